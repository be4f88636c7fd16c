"""The experiments of launch/reproduce: each runs launch scripts in processes of their own and returns figures."""

import importlib
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt import interruption, presets
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import expected
from sparse_gpt.experiments.harness import (
    Check,
    Experiment,
    at_least,
    at_most,
    equal,
    finish,
    manifest,
    metrics,
    params,
    prune,
    reported,
    script,
    waited,
)
from sparse_gpt.records import Record
from sparse_gpt.records.base import Count

INTERRUPTED = interruption.EXIT_CODE  # of a script that saved and stopped
KILLS = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1


def quickstart(folder: Path) -> list[Check]:
    """Three seeds of the preset, on one corpus."""
    figures = []
    for seed in range(3):
        workdir = folder / f"seed_{seed}"
        corpus = [] if seed == 0 else [f"--config.data.corpus={folder / 'seed_0' / 'corpus'}"]
        finish("train", "--preset=quickstart", f"--workdir={workdir}", f"--config.train.seed={seed}", *corpus)
        figures += [_parameters("quickstart", workdir)] if seed == 0 else []
        found = prune(workdir, "single_double_quote").metrics
        figures += [
            at_most(f"seed {seed}: task loss of the full model", found.full_model_task_loss, 0.05),
            at_most(f"seed {seed}: edges of the circuit", found.edges, 40),
            at_most(f"seed {seed}: held-out task loss of the circuit", found.task_loss, 0.15),
            at_least(f"seed {seed}: task loss without the circuit", found.ablated_task_loss, 0.69),
            at_least(f"seed {seed}: task loss of random circuits", found.random_circuit, 0.69),
        ]
    return figures


def hashes(folder: Path) -> list[Check]:
    """Corpora and tokenizers of presets against the hashes they have everywhere, and parameters of preset tiny against
    those that it has on machines of this kind, if one is known."""
    from sparse_gpt.data import Corpus  # here, because it takes a second to import

    figures = []
    for preset, wanted in expected.CORPORA.items():
        finish("data", f"--preset={preset}", f"--workdir={folder / preset}")
        corpus = Corpus.open(folder / preset / "corpus")
        figures.append(equal(f"{preset}: corpus SHA-256", corpus.sha256, wanted.corpus))
        figures.append(equal(f"{preset}: tokenizer SHA-256", corpus.tokenizer.sha256, wanted.tokenizer))
    trained = folder / "tiny_trained"
    finish("train", "--preset=tiny", f"--workdir={trained}", f"--config.data.corpus={folder / 'tiny' / 'corpus'}")
    return [*figures, _parameters("tiny", trained)]


def _parameters(preset: str, workdir: Path) -> Check:
    """Whether a trained preset has the parameters that it has on machines of this kind; reported if none are known."""
    facts = manifest(workdir)
    where, sha256, threads = expected.platform(facts), facts.params_sha256, facts.machine and facts.machine.threads
    name = f"{preset}: params_sha256 on {' '.join(where)}, {threads} threads"
    known = expected.PARAMETERS.get((preset, where))
    return equal(name, sha256, known) if known else reported(name, sha256)


def given_tokens(folder: Path, steps: int) -> str:
    """--batches of random tokens for preset tiny, made once."""
    path = folder / "batches.npy"
    c = presets.tiny()
    folder.mkdir(parents=True, exist_ok=True)
    shape = (steps, c.train.batch_size, c.model.context + 1)
    np.save(path, np.random.default_rng(0).integers(0, c.model.vocab_size, shape).astype(np.int32))
    return f"--batches={path}"


def resume_exactness(folder: Path) -> list[Check]:
    """400 steps straight against the same with one kill, once by SIGKILL and once by SIGTERM."""
    flags = ["--preset=tiny", given_tokens(folder, 400), "--config.train.checkpoint_every=20"]
    finish("train", f"--workdir={folder / 'straight'}", *flags)
    figures = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        hits = disturbed(folder / number.name, flags, [number], random.Random(0), early=0.0)
        figures += same_run(folder / number.name, folder / "straight", f"{number.name}: ")
        figures.append(at_least(f"{number.name}: kills that hit a running training", hits, 1))
    return figures


def same_run(workdir: Path, straight: Path, prefix: str = "") -> list[Check]:
    """Whether a disturbed run ended as the straight one did, and logged the same."""
    wanted = manifest(straight).params_sha256
    return [
        equal(f"{prefix}params_sha256", manifest(workdir).params_sha256, wanted),
        equal(f"{prefix}metrics equal", metrics(workdir) == metrics(straight), True),
    ]


def scale_equality(folder: Path) -> list[Check]:
    """Ten steps on one device and on two meshes of eight."""
    from sparse_gpt.parameters import flatten

    flags = ["--preset=tiny", given_tokens(folder, 10)]
    finish("train", f"--workdir={folder / 'one'}", *flags, devices=1)
    one = flatten(params(folder / "one"))
    figures = []
    for mesh in ("data=8", "data=2,fsdp=2,tensor=2"):
        workdir = folder / mesh
        finish("train", f"--workdir={workdir}", *flags, f"--config.train.mesh={mesh}", devices=8)
        many = flatten(params(workdir))
        # A float added up in another order can change which of two nearly equal weights is the last one kept.
        differing = sum(int(np.sum(np.abs(many[path] - leaf) > 1e-4)) for path, leaf in one.items())
        share = differing / sum(leaf.size for leaf in one.values())
        figures.append(at_most(f"{mesh}: share of parameters that differ by more than 1e-4", share, 1e-3))
        counts = manifest(workdir).nonzeros == manifest(folder / "one").nonzeros
        figures.append(equal(f"{mesh}: nonzeros of every tensor equal", counts, True))
    return figures


def torture(folder: Path, kills: int = 50, steps: int = 1200) -> list[Check]:
    """One short training with many kills against the same undisturbed."""
    flags = ["--preset=tiny", given_tokens(folder, steps), "--config.train.checkpoint_every=10"]
    finish("train", f"--workdir={folder / 'straight'}", *flags)
    draw = random.Random(0)
    signals = [draw.choice(KILLS) for _ in range(kills)]
    hits = disturbed(folder / "disturbed", flags, signals, draw)
    return [
        *same_run(folder / "disturbed", folder / "straight"),
        at_least("kills that hit a running process", hits, kills),
    ]


class Kills(Record):
    """kills.json: that a run was disturbed."""

    signals: tuple[str, ...]
    """Names of the signals, in order."""
    hits: Count
    """How many hit a running process."""


def disturbed(
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
                _until_new_checkpoint(process, workdir)
                time.sleep(draw.uniform(0, 0.1))
            process.send_signal(number)
            code = waited(process)
        finally:  # this process may be told to end, too
            process.kill()
        hits += code in (-number, INTERRUPTED)
        if code not in (-number, INTERRUPTED, 0):
            raise InputError(f"launch.train ended with exit code {code} after {number.name}; its message stands above")
    finish("train", f"--workdir={workdir}", *flags)
    Kills(signals=tuple(number.name for number in signals), hits=hits).write(record)
    return hits


def _until_new_checkpoint(process: "subprocess.Popen[bytes]", workdir: Path) -> None:
    """Returns when there is a checkpoint that was not there before, or the process has ended."""
    before = _newest(workdir)
    while process.poll() is None and _newest(workdir) <= before:
        time.sleep(0.02)


def _newest(workdir: Path) -> int:
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
    return max(steps, default=-1)


def _later(module: str, function: str, **options: str) -> Callable[..., list[Check]]:
    """A function of sparse_gpt.experiments.MODULE, imported when it is called: the table is shown, and names are
    checked, without JAX."""

    def run(*args: Any) -> list[Check]:
        found: list[Check] = getattr(importlib.import_module(f"sparse_gpt.experiments.{module}"), function)(
            *args, **options
        )
        return found

    return run


EXPERIMENTS: Mapping[str, Experiment] = {
    "sparse-vs-dense": Experiment(
        "a sparse model's circuits are many times smaller than those of a dense model with equal pretraining loss",
        "90 min on 2 cores",
        _later("comparisons", "sparse_vs_dense"),
    ),
    "sparse-vs-dense-laptop": Experiment(
        "the same for the stored laptop model and a dense one trained for as many steps",
        "2 h on 2 cores",
        _later("comparisons", "sparse_vs_dense_laptop"),
    ),
    "frontier": Experiment(
        "pretraining loss against circuit size over widths and numbers of nonzeros; kurtosis of the residual stream",
        "2 h on 2 cores",
        _later("comparisons", "frontier"),
    ),
    "bridge": Experiment(
        "bridges make a dense and a sparse model one: hybrids, steering of the dense model, circuits transported",
        "90 min on 2 cores",
        _later("bridges", "bridge"),
    ),
    "bridge-quickstart": Experiment(
        "the same with preset bridge_quickstart",
        "40 min on 2 cores",
        _later("bridges", "bridge", preset="bridge_quickstart", sparse_preset="quickstart"),
    ),
    "laptop-circuits": Experiment(
        "circuits of all tasks that the stored laptop model solves, and their sizes before and after refinement",
        "2 h on 2 cores",
        _later("laptop", "laptop_circuits"),
    ),
    "predictions": Experiment(
        "what the readings of six circuits of the laptop model say about unusual inputs, against the full model",
        "40 min on 2 cores",
        _later("laptop", "predictions"),
    ),
    "attribution-vs-learned": Experiment(
        "the mask search's circuits of one model are smaller, at every loss, than those of rankings by attribution",
        "10 min a task",
        _later("rankings", "attribution_vs_learned"),
        of_a_model=True,
    ),
    "path-vs-paper": Experiment(
        "the path search leaves smaller circuits of one model than the paper's search, in less time",
        "10 min a task",
        _later("searches", "path_vs_paper"),
        of_a_model=True,
    ),
    "necessity": Experiment(
        "task loss of one model without its first nodes, as the mask search and other rankings order them",
        "10 min a task",
        _later("rankings", "necessity"),
        of_a_model=True,
    ),
    "hashes": Experiment(
        "corpora of two presets have the same bytes everywhere, a model of preset tiny on machines of its kind",
        "2 min on 2 cores",
        hashes,
    ),
    "quickstart": Experiment(
        "a small sparse model learns the quote task, and its circuit is small, sufficient and necessary (3 seeds)",
        "30 min on 2 cores",
        quickstart,
    ),
    "resume-exactness": Experiment(
        "a run that is killed and resumed ends with the same bits, metrics included",
        "2 min on 2 cores",
        resume_exactness,
    ),
    "scale-equality": Experiment(
        "a mesh of eight devices trains what one device trains", "3 min on 2 cores", scale_equality
    ),
    "torture": Experiment(
        "50 kills at random moments (SIGKILL, SIGTERM, SIGHUP, SIGUSR1) change nothing", "15 min on 2 cores", torture
    ),
}
