"""Kills scripts at uniformly random moments of their whole life, and checks that nothing comes of it.

python -m tests.storm --kills=100 --workdir=DIR     # 25 of each of data, train, prune and bridge, of preset tiny

A script is started and killed, again and again, until it is done; then it is compared with an undisturbed run, and
begins anew in a new folder, until it has been hit as often as asked for. Promised are equal results, no step twice in
metrics.jsonl, and for signals that can be handled exit code 75 within seconds.
"""

import argparse
import dataclasses
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparse_gpt.experiments.harness import metrics, script

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SECONDS = 15.0  # until the exit of a handled signal, on a machine that does other things as well
SLOWEST = 600.0  # of one start


def corpus_hash(folder: Path) -> Any:
    """The manifest has the hashes of all shards."""
    return (folder / "corpus" / "manifest.json").read_text()


def trained(folder: Path) -> Any:
    """Hash of the parameters, and metrics; an AssertionError if a step is there twice."""
    logged = metrics(folder)
    steps = [entry.step for entry in logged]
    assert steps == sorted(set(steps)), f"{folder}: steps {steps}"
    return json.loads((folder / "manifest.json").read_text())["params_sha256"], logged


def circuit(folder: Path) -> Any:
    """circuit.json, and search.json without the time it took."""
    place = folder / "circuits" / "for_while"
    search = json.loads((place / "search.json").read_text())
    return json.loads((place / "circuit.json").read_text()), {**search, "seconds": 0}


def bridged(folder: Path) -> Any:
    """Both models and what bridge.json says."""
    return trained(folder / "dense"), trained(folder), json.loads((folder / "bridge.json").read_text())


@dataclasses.dataclass(frozen=True)
class Job:
    """A script, its flags, its result by folder, and what must be in its folder before (names in the first one's)."""

    name: str
    flags: tuple[str, ...]
    result: Callable[[Path], Any]
    needs_model: bool = False


TINY = ("--preset=tiny", "--config.model.n_layer=1")  # a second layer would add nothing but time to compile
JOBS = (
    Job("data", (*TINY, "--config.data.tokens=400000"), corpus_hash),
    Job("train", (*TINY, "--config.train.evaluate_tasks"), trained),
    Job("prune", ("--task=for_while", "--config.prune.target_loss=50", "--config.prune.tune_trials=16"), circuit, True),
    Job("bridge", TINY, bridged),
)


@dataclasses.dataclass
class Tally:
    """What happened to one job."""

    hits: int = 0  # signals that ended a script
    early: int = 0  # those that came before Python ran any of our code
    rounds: int = 0  # runs that came to their end
    seconds: list[float] = dataclasses.field(default_factory=list)  # from a handled signal to the exit
    codes: dict[str, int] = dataclasses.field(default_factory=dict)


def handles(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Whether a process has a handler for a signal by now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def strike(job: Job, folder: Path, after: float, number: signal.Signals, tally: Tally) -> bool:
    """Starts a job and sends a signal after some seconds. Whether the job came to its end."""
    process = script(job.name, f"--workdir={folder}", *job.flags)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        ready = handles(process, number)
        process.send_signal(number)
        sent = time.monotonic()
        code = process.wait(timeout=SLOWEST)
        took = time.monotonic() - sent
        tally.codes[f"{number.name} {code}"] = tally.codes.get(f"{number.name} {code}", 0) + 1
        if number == signal.SIGKILL:
            assert code in (-number, 0), f"{job.name}: exit code {code} after {number.name}"
        elif ready:
            assert code in (75, 0), f"{job.name}: exit code {code} after {number.name}"
            assert took < SECONDS, f"{job.name}: {took:.1f} s from {number.name} to exit code {code}"
            tally.seconds.append(took)
        else:
            tally.early += 1
        tally.hits += code != 0
        return code == 0
    assert process.returncode == 0, f"{job.name}: exit code {process.returncode} without a signal"
    return True


def finish(job: Job, folder: Path) -> None:
    code = script(job.name, f"--workdir={folder}", *job.flags).wait(timeout=SLOWEST)
    assert code == 0, f"{job.name}: exit code {code} without a signal"


def begin(job: Job, folder: Path, model: Path | None) -> Path:
    """A folder in which the job can start."""
    if job.needs_model:
        assert model
        shutil.copytree(model, folder)
    return folder


def storm(job: Job, root: Path, kills: int, draw: random.Random, model: Path | None) -> Tally:
    """As many hits on one job as asked for; AssertionError when anything is not as promised."""
    tally, straight = Tally(), begin(job, root / f"{job.name}_straight", model)
    finish(job, straight)  # compiles, so that the next one is as long as those that are killed
    shutil.rmtree(straight)
    started = time.monotonic()
    finish(job, begin(job, straight, model))
    life, wanted = time.monotonic() - started, job.result(straight)
    while tally.hits < kills:
        folder = begin(job, root / f"{job.name}_{tally.rounds}", model)
        while tally.hits < kills and not strike(job, folder, draw.uniform(0, life), draw.choice(KILLS), tally):
            pass
        finish(job, folder)  # where it has ended, it only says so
        assert job.result(folder) == wanted, f"{folder}: not what {straight} is"
        assert not (folder / ".lock").exists()
        tally.rounds += 1
        shutil.rmtree(folder)
    return tally


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS), help="which of the four, commas between")
    parser.add_argument("--workdir", type=Path, required=True, help="a new folder")
    given = parser.parse_args(arguments)
    names = given.jobs.split(",")
    given.workdir.mkdir(parents=True)
    model = given.workdir / "model"
    if "prune" in names:
        finish(Job("train", TINY, trained), model)
    for job in (job for job in JOBS if job.name in names):
        draw = random.Random(f"{given.seed} {job.name}")
        tally = storm(job, given.workdir, -(-given.kills // len(names)), draw, model)
        waits = tally.seconds or [0.0]
        print(
            f"{job.name}: {tally.hits} hits ({tally.early} before the handlers), {tally.rounds} runs, all equal; exits "
            f"{dict(sorted(tally.codes.items()))}; seconds to the exit: median {statistics.median(waits):.2f}, longest "
            f"{max(waits):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
