"""Experiments: a run that is killed and resumed ends with the same bits as one that was not."""

import random
import shutil
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
from sparse_gpt.records import Manifest, Record
from sparse_gpt.records.base import Count, older

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
    """kills.json: how a run was disturbed so far."""

    signals: tuple[str, ...] = older(())
    """Names of the signals that were sent, in order."""
    hits: Count = older(0)
    """How many hit a running process."""


def disturb(
    workdir: Path, flags: list[str], signals: list[signal.Signals], draw: random.Random, early: float = 0.2
) -> int:
    """Trains to the end, stopping the run with one signal after the other. Returns how many hit a running process.

    A share `early` of the signals comes within the first seconds, while the process starts or restores. The others come
    a random moment after it has written a new checkpoint, so that the run gets on: while it trains, or writes the next.
    What was counted is kept beside the run, so that what is stopped goes on with the next signal. A run that has ended
    with signals still to come begins anew: nothing is left to be hit.
    """
    record = workdir / "kills.json"
    kept = Kills.read_if_any(record) or Kills()
    if len(kept.signals) < len(signals) and _has_ended(workdir):
        print(f"{workdir}: had ended before all of its kills were counted; it begins anew")
        shutil.rmtree(workdir)
        kept = Kills()
    for number in signals[len(kept.signals) :]:
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
        if code not in (-number, interruption.EXIT_CODE, 0):
            raise InputError(f"launch.train ended with exit code {code} after {number.name}; its message stands above")
        hit = code in (-number, interruption.EXIT_CODE)
        kept = Kills(signals=(*kept.signals, number.name), hits=kept.hits + hit)
        kept.write(record)
    finish("train", f"--workdir={workdir}", *flags)
    return kept.hits


def _has_ended(workdir: Path) -> bool:
    facts = Manifest.read_if_any(workdir / Manifest.FILE)
    return facts is not None and facts.params_sha256 is not None


def _wait_for_checkpoint(process: "subprocess.Popen[bytes]", workdir: Path) -> None:
    """Returns when there is a checkpoint that was not there before, or the process has ended."""
    before = _newest_step(workdir)
    while process.poll() is None and _newest_step(workdir) <= before:
        time.sleep(0.02)


def _newest_step(workdir: Path) -> int:
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
    return max(steps, default=-1)
