"""What experiments are made of: numbers to check, and launch scripts run in processes of their own."""

import contextlib
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import msgspec
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import interruption, presets
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, read_bytes
from sparse_gpt.progress import ProgressBar
from sparse_gpt.records import Circuit, Manifest, MetricsRow

if TYPE_CHECKING:
    from sparse_gpt.parameters import Params

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_AT_ONCE = 8  # processes: each takes a gigabyte or two


@dataclasses.dataclass(frozen=True)
class Check:
    """One measured number (or hash), and whether it is as expected."""

    name: str
    measured: Json
    expected: str
    holds: bool


@dataclasses.dataclass(frozen=True)
class Experiment:
    """`run` takes a folder, does (or finishes) the work in it and returns the checks. With `of_a_model` it takes a
    workdir or a stored model, and a list of tasks, too."""

    proves: str
    cost: str
    run: Callable[..., list[Check]]
    of_a_model: bool = False


def script(name: str, *args: str, devices: int | None = None, log: int | None = None) -> "subprocess.Popen[bytes]":
    """A launch script as a process of its own; `devices` sets how many CPU devices it sees, `log` is a file descriptor
    for what it prints."""
    environment = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | os.environ  # the same few programs, many times
    if devices is not None:
        environment |= {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", f"sparse_gpt.launch.{name}", *args]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)


def finish(name: str, *args: str, devices: int | None = None) -> None:
    """Runs a launch script to its end. InputError when it fails; its own message stands above."""
    code = wait_for(script(name, *args, devices=devices))
    if code == interruption.EXIT_CODE:
        raise interruption.Interrupted(interruption.LINE)
    if code:
        raise InputError(f"launch.{name} ended with exit code {code}; the same command of reproduce goes on from here")


def finish_each(name: str, runs: Mapping[Path, Sequence[str]], what: str) -> dict[Path, int]:
    """Runs a launch script with several lists of flags, as many at once as this process has cores (at most
    MOST_AT_ONCE), each on one: so more of them end in an hour than one after the other on all.

    Args:
      name: of the script.
      runs: flags, by the file that takes what is printed.
      what: the runs are, for the progress bar.

    Returns:
      Exit codes by file.
    """
    free, waiting, codes = _cores(), list(runs), dict[Path, int]()
    running: dict[Path, tuple[int | None, subprocess.Popen[bytes]]] = {}
    with interruption.deferred(), ProgressBar(total=len(runs), desc=what, unit="run") as bar:
        while running or waiting:
            while free and waiting:
                path, core = waiting.pop(0), free.pop(0)
                with path.open("wb") as log, _on(core):
                    running[path] = core, script(name, *runs[path], log=log.fileno())
            time.sleep(0.2)
            if interruption.requested():
                for _, process in running.values():
                    process.send_signal(signal.SIGTERM)
                codes |= {path: process.wait() for path, (_, process) in running.items()}
                break
            for path in [path for path, (_, process) in running.items() if process.poll() is not None]:
                core, process = running.pop(path)
                codes[path] = process.returncode
                free.append(core)
                bar.update()
        interruption.check()
    return codes


def _cores() -> list[int | None]:
    """Cores that this process may use; where the system does not say so, one that is not named."""
    if not hasattr(os, "sched_getaffinity"):
        return [None]
    return [*sorted(os.sched_getaffinity(0))[:MOST_AT_ONCE]]


@contextlib.contextmanager
def _on(core: int | None) -> Iterator[None]:
    """What is started inside runs on one core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_for(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a script that has ended. A signal to this process is passed on to it, so that it saves, and
    raised here once it has ended."""
    passed_on = False
    with interruption.deferred():
        while True:
            try:
                code = process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if interruption.requested() and not passed_on:
                    process.send_signal(signal.SIGTERM)
                    passed_on = True
        interruption.check()
    return code


def prune(workdir: Path, task: str, *flags: str) -> Circuit:
    """The circuit of a task; launch.prune keeps one that is there for these parameters and settings."""
    finish("prune", f"--workdir={workdir}", f"--task={task}", *flags)
    return circuit(workdir, task)


def circuit(workdir: Path, task: str) -> Circuit:
    """circuit.json of a task."""
    return Circuit.read(workdir / "circuits" / task / "circuit.json")


def manifest(workdir: Path) -> Manifest:
    """manifest.json of a finished run. InputError if it has not ended."""
    path = workdir / Manifest.FILE
    facts = Manifest.read(path)
    if facts.params_sha256 is None or facts.nonzeros is None:
        raise InputError(f"{path}: params_sha256 or nonzeros is missing; finish the training first")
    return facts


def metrics(workdir: Path) -> list[MetricsRow]:
    """metrics.jsonl without what a clock decides."""
    return [msgspec.structs.replace(row, tokens_per_second=None) for row in metrics_rows(workdir)]


def metrics_rows(workdir: Path) -> list[MetricsRow]:
    """Lines of metrics.jsonl; InputError names the one that is damaged."""
    path = workdir / MetricsRow.FILE
    lines = read_bytes(path).splitlines()
    return [MetricsRow.parse(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1)]


def given_tokens(folder: Path, steps: int) -> str:
    """--batches of random tokens for preset tiny, made once."""
    path = folder / "batches.npy"
    c = presets.tiny()
    folder.mkdir(parents=True, exist_ok=True)
    shape = (steps, c.train.batch_size, c.model.context + 1)
    np.save(path, np.random.default_rng(0).integers(0, c.model.vocab_size, shape).astype(np.int32))
    return f"--batches={path}"


def params(workdir: Path) -> "Params":
    """Parameters of a run's newest checkpoint."""
    from sparse_gpt.training.checkpoint import load_params  # here, so that the table of experiments does without JAX

    return load_params(workdir, configs.load(workdir).model)[0]


def at_most(name: str, measured: float | None, limit: float) -> Check:
    """None, or what is not finite, is above every limit."""
    return Check(name, measured, f"at most {limit:g}", _finite(measured) and measured <= limit)


def at_least(name: str, measured: float | None, limit: float) -> Check:
    """None, or what is not finite, is below every limit."""
    return Check(name, measured, f"at least {limit:g}", _finite(measured) and measured >= limit)


def _finite(measured: float | None) -> TypeGuard[float]:
    return measured is not None and math.isfinite(measured)


def equal(name: str, measured: Json, wanted: Json) -> Check:
    return Check(name, measured, str(wanted), measured == wanted)


def reported(name: str, measured: Json) -> Check:
    """A number without a limit."""
    return Check(name, measured, "reported", True)
