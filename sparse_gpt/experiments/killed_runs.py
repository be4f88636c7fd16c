"""Experiments: a run that is killed and resumed ends with the same bits as one that was not."""

import random
import signal
import subprocess
import time
from pathlib import Path

from sparse_gpt import interruption
from sparse_gpt.errors import InputError
from sparse_gpt.experiments.harness import (
    Check,
    at_least,
    equal,
    finish,
    given_tokens,
    manifest,
    metrics,
    script,
    wait_for,
)
from sparse_gpt.records import Record
from sparse_gpt.records.base import Count

KILLS = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1


def resume_exactness(folder: Path) -> list[Check]:
    """400 steps straight against the same with one kill, once by SIGKILL and once by SIGTERM."""
    flags = ["--preset=tiny", given_tokens(folder, 400), "--config.train.checkpoint_every=20"]
    finish("train", f"--workdir={folder / 'straight'}", *flags)
    checks = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        hits = disturb(folder / number.name, flags, [number], random.Random(0), early=0.0)
        checks += check_same_run(folder / number.name, folder / "straight", f"{number.name}: ")
        checks.append(at_least(f"{number.name}: kills that hit a running training", hits, 1))
    return checks


def torture(folder: Path, kills: int = 50, steps: int = 1200) -> list[Check]:
    """One short training with many kills against the same undisturbed."""
    flags = ["--preset=tiny", given_tokens(folder, steps), "--config.train.checkpoint_every=10"]
    finish("train", f"--workdir={folder / 'straight'}", *flags)
    draw = random.Random(0)
    signals = [draw.choice(KILLS) for _ in range(kills)]
    hits = disturb(folder / "disturbed", flags, signals, draw)
    return [
        *check_same_run(folder / "disturbed", folder / "straight"),
        at_least("kills that hit a running process", hits, kills),
    ]


def check_same_run(workdir: Path, straight: Path, prefix: str = "") -> list[Check]:
    """Whether a disturbed run ended as the straight one did, and logged the same."""
    wanted = manifest(straight).params_sha256
    return [
        equal(f"{prefix}params_sha256", manifest(workdir).params_sha256, wanted),
        equal(f"{prefix}metrics equal", metrics(workdir) == metrics(straight), True),
    ]


class Kills(Record):
    """kills.json: that a run was disturbed."""

    signals: tuple[str, ...]
    """Names of the signals, in order."""
    hits: Count
    """How many hit a running process."""


def disturb(
    workdir: Path, flags: list[str], signals: list[signal.Signals], draw: random.Random, early: float = 0.2
) -> int:
    """Trains to the end, stopping the run with one signal after the other. Returns how many hit a running process.

    A share `early` of the signals comes within the first seconds, while the process starts or restores. The others come
    a random moment after it has written a new checkpoint, so that the run gets on: while it trains, or writes the next.
    Done once, it is not done again: the number is kept beside the run.
    """
    record = workdir / "kills.json"
    if record.is_file():
        return Kills.read(record).hits
    hits = 0
    for number in signals:
        process = script("train", f"--workdir={workdir}", *flags)
        try:
            if draw.random() < early:
                time.sleep(draw.uniform(0, 8))
            else:
                _wait_for_checkpoint(process, workdir)
                time.sleep(draw.uniform(0, 0.1))
            process.send_signal(number)
            code = wait_for(process)
        finally:  # this process may be asked to end, too
            process.kill()
        hits += code in (-number, interruption.EXIT_CODE)
        if code not in (-number, interruption.EXIT_CODE, 0):
            raise InputError(f"launch.train ended with exit code {code} after {number.name}; its message stands above")
    finish("train", f"--workdir={workdir}", *flags)
    Kills(signals=tuple(number.name for number in signals), hits=hits).write(record)
    return hits


def _wait_for_checkpoint(process: "subprocess.Popen[bytes]", workdir: Path) -> None:
    """Returns when there is a checkpoint that was not there before, or the process has ended."""
    before = _newest_step(workdir)
    while process.poll() is None and _newest_step(workdir) <= before:
        time.sleep(0.02)


def _newest_step(workdir: Path) -> int:
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
    return max(steps, default=-1)
