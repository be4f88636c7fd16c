"""Launch scripts run inside the test's own process, as a new process would run them, without its start of seconds."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax

from launch import cli

REPOSITORY = Path(__file__).resolve().parent.parent


def launch_here(
    name: str, *args: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """What the fixture `launch` returns, for a script that is called here.

    It sees the arguments, folder and environment it is given, and one device, and leaves the process's as they were.
    What is set when JAX is imported (JAX_PLATFORMS) stays that of the tests; `launch` is for scripts that need others,
    for signals and for `--help`.
    """
    script = importlib.import_module(f"launch.{name}")
    out, err = _Stream(), _Stream()
    with (
        _process([f"launch/{name}.py", *args], cwd, env),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.run(script.define_flags, script.main)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess([name, *args], code, out.text(), err.text())


class _Stream(io.TextIOWrapper):
    """Text in memory that can do what a real stream can: it has an encoding, and can be reconfigured."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


@contextlib.contextmanager
def _process(argv: list[str], cwd: Path, env: dict[str, str] | None) -> Iterator[None]:
    """Arguments, folder, environment and devices of a process of its own."""
    before, one = (sys.argv, Path.cwd(), dict(os.environ)), jax.local_devices()[:1]
    functions = [name for name in ("devices", "local_devices") if getattr(jax, name).__module__.startswith("jax.")]
    try:
        sys.argv = argv
        os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        # A test may have put functions of its own in the place of JAX's: those stay.
        with mock.patch.multiple(jax, **{name: mock.Mock(return_value=one) for name in functions}):
            yield
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        os.environ.clear()
        os.environ.update(before[2])
