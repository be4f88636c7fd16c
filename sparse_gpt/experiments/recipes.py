"""Experiment: pretraining loss against time and tokens, recipe by recipe, on the same bytes.

Every candidate gets the same budget: one short run for each of as many learning rates as the others have, then a whole
run at the best rate. The baseline and those that end lowest then get runs of several lengths from every seed. A
schedule ends with its run, so that a shorter run is no part of a longer one: what a recipe reaches in less time is what
its shorter runs end with. As many runs as there are cores go on at once, each on one, which changes no bit of them.

Seconds are steps times the seconds of a step, which are measured side by side in one process (`step_seconds.json`):
clocks of trainings on a shared machine tell more about the machine.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs import benchmark
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_most, finish, finish_each, metrics_rows, reported
from sparse_gpt.io import Json, Tree
from sparse_gpt.records import Record
from sparse_gpt.records.base import Seconds, older
from sparse_gpt.training import schedules

BASELINE = "openai_reference"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to train: fields that differ from the size's preset, and the learning rates it may choose from."""

    fields: Mapping[str, Json]
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Size:
    """What is trained, and how much of it.

    Attributes:
      preset: model, density and data.
      candidates: by name.
      fractions: of the preset's steps, longest first: how long the runs are.
      tuning: the same for the short runs that choose a learning rate.
      seeds: of the initial parameters.
      finalists: how many candidates beside the baseline are trained at every length from every seed.
      fields: further fields, for all candidates.
    """

    preset: str
    candidates: Mapping[str, Candidate]
    fractions: tuple[float, ...] = (1.0, 1 / 2, 1 / 3)
    tuning: float = 1 / 4
    seeds: int = 3
    finalists: int = 1
    fields: Mapping[str, Json] = dataclasses.field(default_factory=dict)


def recipes(folder: Path, size: str) -> list[Check]:
    """Trains every candidate of a size (or finishes it), and compares losses after equal time and equal tokens."""
    what = SIZES[size]
    corpus = _corpus(what, folder)
    seconds = _step_seconds(what, folder / "step_seconds.json")
    rates = _best_rates(what, folder, corpus)
    first = [_Run(what, name, rates[name], what.fractions[0], 0) for name in what.candidates]
    _train_all(first, folder, corpus, "whole trainings")
    chosen = finalists({run.name: measures.validation_loss(run.workdir(folder)) for run in first}, what.finalists)
    print(f"trained at every length from every seed: {', '.join(chosen)}")
    further = [
        _Run(what, name, rates[name], fraction, seed)
        for name, fraction, seed in itertools.product(chosen, what.fractions, range(what.seeds))
    ]
    _train_all(further, folder, corpus, "trainings")
    once = [run for run in first if run.name not in chosen]
    rows = [run.row(folder, seconds[run.name]) for run in [*further, *once]]
    plots.write_csv(folder / "recipes.csv", rows)
    plots.draw(
        folder / "recipes.png",
        f"Pretraining loss against time at the size of preset {what.preset}, runs of several lengths",
        "seconds of training (steps times measured seconds per step)",
        "validation loss (nats per token)",
        lambda axes: _lines(rows, axes),
    )
    return [*_reached(rows, what), *_time_to_baseline(rows, chosen)]


def finalists(losses: Mapping[str, float], most: int) -> list[str]:
    """The baseline, then so many of the others, those with the lowest losses first."""
    others = sorted((name for name in losses if name != BASELINE), key=lambda name: losses[name])
    return [BASELINE, *others[:most]]


@dataclasses.dataclass(frozen=True)
class _Run:
    """One training."""

    size: Size
    name: str
    rate: float
    fraction: float
    seed: int

    @property
    def steps(self) -> int:
        return round(self.fraction * presets.preset(self.size.preset).train.steps)

    def workdir(self, folder: Path) -> Path:
        """Where it is trained."""
        recipe = self.name.replace(", ", "_").replace(" ", "_")
        return folder / recipe / f"rate_{self.rate:g}_steps_{self.steps}_seed_{self.seed}"

    def flags(self, folder: Path, corpus: Path) -> list[str]:
        """Of launch.train."""
        fields = {
            **self.size.fields,
            **self.size.candidates[self.name].fields,
            "optimizer.learning_rate": self.rate,
            "train.steps": self.steps,
            "train.seed": self.seed,
            "train.evaluate_tasks": False,
            "data.corpus": corpus,
        }
        of_fields = [f"--config.{field}={value}" for field, value in fields.items()]
        return [f"--preset={self.size.preset}", f"--workdir={self.workdir(folder)}", *of_fields]

    def row(self, folder: Path, step_seconds: float) -> Tree:
        """The finished run as one line of the table."""
        workdir = self.workdir(folder)
        c, last = configs.load(workdir), metrics_rows(workdir)[-1]
        return {
            "recipe": self.name,
            "learning_rate": self.rate,
            "steps": self.steps,
            "tokens": last.tokens,
            "seconds": schedules.iterations(c) * step_seconds,
            "seed": self.seed,
            "val_loss": measures.validation_loss(workdir),
            "dead_neurons": last.dead_neurons,
        }


def _corpus(what: Size, folder: Path) -> Path:
    """The corpus of all runs."""
    flags = [f"--config.{name}={value}" for name, value in what.fields.items()]
    finish("data", f"--preset={what.preset}", f"--workdir={folder}", *flags)
    return folder / "corpus"


def _train(runs: Sequence[_Run], folder: Path, corpus: Path, what: str) -> list[tuple[_Run, str]]:
    """Trains what is not trained yet. Those that failed, with their exit code and the last line that they printed,
    which stands in a file beside the workdir like all others."""
    logs = [run.workdir(folder).parent / f"{run.workdir(folder).name}.log" for run in runs]
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
    codes = finish_each("train", {log: run.flags(folder, corpus) for run, log in zip(runs, logs, strict=True)}, what)
    pairs = zip(runs, logs, strict=True)
    return [(run, f"exit code {codes[log]}: {_last_line(log)}") for run, log in pairs if codes[log]]


def _train_all(runs: Sequence[_Run], folder: Path, corpus: Path, what: str) -> None:
    """Trains what is not trained yet, all of which has to succeed."""
    _refuse(_train(runs, folder, corpus, what), folder)


def _refuse(failed: Sequence[tuple[_Run, str]], folder: Path) -> None:
    """InputError if there is any."""
    if failed:
        run, reason = failed[0]
        raise InputError(f"{run.workdir(folder)}: {reason}; the same command of reproduce goes on from here")


def diverged(reason: str) -> bool:
    """Whether a training that failed so has come to a loss that is not finite, as NonFiniteLossError says it."""
    return reason.startswith("exit code 2: error: loss ") and " and gradient RMS " in reason


def _last_line(log: Path) -> str:
    """What a script printed last, progress bars aside: where it failed, the reason."""
    lines = log.read_text("utf-8", errors="replace").splitlines()  # a bar's carriage returns end lines, too
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")


def _best_rates(what: Size, folder: Path, corpus: Path) -> dict[str, float]:
    """Of every candidate the learning rate whose short run ends with the lowest validation loss."""
    short = [
        _Run(what, name, rate, what.tuning, 0)
        for name, candidate in what.candidates.items()
        for rate in candidate.rates
        if len(candidate.rates) > 1
    ]
    failed = _train(short, folder, corpus, "short trainings")
    _refuse([each for each in failed if not diverged(each[1])], folder)  # a process that was killed says nothing
    for run, reason in failed:  # too large a rate diverges
        print(f"{run.name}: learning rate {run.rate:g} is left out: {reason}")
    best = {}
    for name, candidate in what.candidates.items():
        left_out = {run.rate for run, _ in failed if run.name == name}
        tried = {run.rate: run for run in short if run.name == name and run.rate not in left_out}
        if len(candidate.rates) == 1:
            best[name] = candidate.rates[0]
        elif tried:
            best[name] = min(tried, key=lambda rate: measures.validation_loss(tried[rate].workdir(folder)))
        else:
            raise InputError(
                f"{name}: none of the learning rates {candidate.rates} can be trained; the reasons stand above"
            )
    return best


class StepSeconds(Record):
    """step_seconds.json: what steps take, measured side by side."""

    configs: dict[str, Tree] = older({})
    """By candidate, what was measured; other candidates, or others by these names, are measured anew."""
    seconds: dict[str, Seconds] = older({})
    """Median of a step, by candidate."""


def _step_seconds(what: Size, path: Path, rounds: int = 15) -> Mapping[str, float]:
    """Median seconds of a step of every candidate, taken in turn; measured once."""
    wanted = {name: _config(what, each) for name, each in what.candidates.items()}
    trees = {name: configs.to_dict(config) for name, config in wanted.items()}
    kept = StepSeconds.read_if_any(path)
    if kept is None or kept.configs != trees:
        steps = {name: benchmark.compiled_step(config, True) for name, config in wanted.items()}
        kept = StepSeconds(configs=trees, seconds=benchmark.side_by_side(steps, rounds))
        kept.write(path)
    return kept.seconds


def _config(what: Size, candidate: Candidate) -> Config:
    base = presets.preset(what.preset)
    return configs.validate(configs.replace(base, {**what.fields, **candidate.fields}))


# ---------------------------------------------------------------------------------------------------------------------
# What the runs say


def _means(rows: Sequence[Mapping[str, Json]], recipe: str) -> list[tuple[float, float]]:
    """(seconds, mean loss over seeds) of a recipe's lengths, shortest first."""
    own = [row for row in rows if row["recipe"] == recipe]
    lengths = sorted({row["seconds"] for row in own})
    return [(at, float(np.mean([row["val_loss"] for row in own if row["seconds"] == at]))) for at in lengths]


def loss_after(seconds: float, means: Sequence[tuple[float, float]]) -> float | None:
    """Loss after so many seconds, on the line through the lengths nearest to it (linear in the logarithm of time); None
    outside of what was measured."""
    for (early, worse), (late, better) in itertools.pairwise(means):
        if early <= seconds <= late:
            share = math.log(seconds / early) / math.log(late / early)
            return worse + share * (better - worse)
    return None


def seconds_to(loss: float, means: Sequence[tuple[float, float]]) -> float | None:
    """Seconds to a loss, on the same line; None if no run has reached it, or all have."""
    for (early, worse), (late, better) in itertools.pairwise(means):
        if better <= loss <= worse and better < worse:
            share = (worse - loss) / (worse - better)
            return float(early * (late / early) ** share)
    return None


def _reached(rows: Sequence[Mapping[str, Json]], what: Size) -> list[Check]:
    """Mean loss of every recipe after equal tokens, and after the time of the baseline's runs."""
    checks, base = [], _means(rows, BASELINE)
    for name in what.candidates:
        means = _means(rows, name)
        whole = means[-1][0]
        for at, loss in means:
            share = f"{at / whole:.3g} of the steps ({at:.0f} s)"
            checks.append(reported(f"{name}: validation loss after {share}", loss))
        for at, _ in base if name != BASELINE else ():
            checks.append(reported(f"{name}: validation loss after {at:.0f} s", loss_after(at, means)))
    return checks


def _time_to_baseline(rows: Sequence[Mapping[str, Json]], chosen: Sequence[str]) -> list[Check]:
    """What each finalist needs of the baseline's time for the loss that the baseline's longest runs end with."""
    whole, loss = _means(rows, BASELINE)[-1]
    checks = []
    for name in chosen[1:]:
        means = _means(rows, name)
        needed = means[0][0] if means[0][1] <= loss else seconds_to(loss, means)
        share = needed and needed / whole
        checks.append(at_most(f"{name}: share of the time of {BASELINE} for its loss", share, 0.5))
    return checks


def _lines(rows: Sequence[Mapping[str, Json]], axes: Axes) -> None:
    """A point per run and a line per recipe through the means of its lengths."""
    axes.set_yscale("linear")  # losses are within one decade
    for name in dict.fromkeys(row["recipe"] for row in rows):
        (line,) = axes.plot(*zip(*_means(rows, name), strict=True), linewidth=2, label=name)
        points = [(row["seconds"], row["val_loss"]) for row in rows if row["recipe"] == name]
        axes.plot(*zip(*points, strict=True), linestyle="", marker="o", markersize=3, color=line.get_color())


REFERENCE: Mapping[str, Json] = {"optimizer.recipe": BASELINE}
FAST: Mapping[str, Json] = {"optimizer.recipe": "fast"}


def _candidates(*rates: float) -> dict[str, Candidate]:
    """All that are compared where a preset is trained. `rates` are for gradients divided by their RMS; the recipe that
    clips leaves them a hundred times smaller (docs/decisions/0004)."""
    return {
        BASELINE: Candidate(REFERENCE, rates),
        "paper": Candidate({"optimizer.recipe": "paper"}, tuple(100 * rate for rate in rates)),
        "fast": Candidate(FAST, rates),
        "fast, eps 0.03": Candidate({**FAST, "optimizer.eps": 0.03}, rates),
        "muon, momentum 0.95": Candidate({"optimizer.recipe": "muon", "optimizer.beta1": 0.95}, rates),
    }


SIZES: Mapping[str, Size] = {
    "quickstart": Size("quickstart", _candidates(0.05, 0.1, 0.2)),
    "laptop": Size("laptop", _candidates(0.03, 0.06, 0.12)),
    "tiny": Size(
        "tiny", {BASELINE: Candidate(REFERENCE, (0.02,)), "fast": Candidate(FAST, (0.02, 0.05))}, (1.0, 0.5), 0.25, 1
    ),
}
"""By name, as registry.py gives it."""
