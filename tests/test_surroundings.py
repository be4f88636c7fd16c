"""What a script makes of the shell, the machine and the disk that it finds."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import jax
import pytest

from launch import cli, report
from sparse_gpt import compilation_cache, surroundings
from tests.inprocess import REPOSITORY, launch_here
from tests.test_launch import one_line


def raises(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.slow
def test_settings_that_change_bits_or_break_scripts_are_not_let_in() -> None:
    """In a process of its own, since JAX and matplotlib read them when they are imported."""
    hostile = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONIOENCODING": "ascii",
        "JAX_ENABLE_X64": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    program = (
        "from sparse_gpt import surroundings\nsurroundings.settle()\nimport jax, matplotlib.figure\n"
        "matplotlib.figure.Figure().savefig('/dev/null', format='png')\n"
        "c = jax.config\nprint('·', c.jax_enable_x64, c.jax_default_prng_impl, c.jax_numpy_dtype_promotion)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | hostile, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\\xb7 False threefry2x32 standard\n"


def test_a_reader_that_has_gone_ends_a_script_quietly() -> None:
    """`reproduce --list | head -n 0`, with the reader gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "launch.reproduce", "--list"]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


@pytest.mark.parametrize("number", surroundings.DISK, ids=[errno.errorcode[number] for number in surroundings.DISK])
def test_what_the_disk_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(report, "main", lambda: raises(OSError(number, os.strerror(number), "some/file")))
    one_line(launch_here("report", "--workdir=x"), f"some/file: {os.strerror(number)}; ", surroundings.DISK[number])


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone", "file"), AssertionError(), KeyError("a")])
def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(report, "main", lambda: raises(error))
    done = launch_here("report", "--workdir=x")
    assert done.returncode == 1
    assert type(error).__name__ in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'\nmore")], ids=["cuda", "nonsense"]
)
def test_a_jax_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(report, "main", lambda: raises(error))
    monkeypatch.setattr(jax, "devices", lambda: raises(error))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    one_line(launch_here("report", "--workdir=x"), "JAX_PLATFORMS=cuda", "JAX does not start here", "JAX_PLATFORMS=cpu")


@pytest.mark.parametrize("home", ["", "missing", "closed", "file"])
def test_programs_are_kept_only_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_text("")
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / home) if home else "")
    compilation_cache.keep_programs()
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    if home == "missing":
        assert Path(kept).is_relative_to(tmp_path / "missing" / ".cache" / "sparse_gpt")
    else:
        assert kept == ""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
