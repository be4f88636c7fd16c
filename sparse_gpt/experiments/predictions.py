"""Experiment: what the readings of six circuits of the laptop model say about unusual inputs, and whether it holds."""

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes

from sparse_gpt import stored, tasks
from sparse_gpt.circuits import circuit as circuits
from sparse_gpt.circuits import task_batch
from sparse_gpt.circuits.run.edge_ablation import without_pruned_edges
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.experiments import plots
from sparse_gpt.experiments.harness import Check, prune, reported
from sparse_gpt.experiments.laptop_circuits import MODEL, QUOTE, SHORTER
from sparse_gpt.io import Tree
from sparse_gpt.tasks.words import VOCABULARY
from sparse_gpt.workdir import Workdir

PAIRS = 64  # per level of a prediction
COPIED = (
    "width",
    "height",
    "score",
    "price",
    "color",
    "speed",
    "right",
    "last",
    "high",
    "step",
    "age",
    "year",
    "position",
    "count",
    "size",
)
"""Names that a small tokenizer holds whole."""
EASED = (*SHORTER, "--config.prune.target_loss=0.3", "--config.prune.selection_margin=1")
"""For tasks whose loss in the stored model is too near the default target, on some of its samples above it."""
Rows = list[Tree]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the reading of a circuit leads one to expect of the full model on inputs that the task does not have.

    Attributes:
        task: whose circuit was read.
        says: the expectation, in a sentence.
        axis: what is counted along the levels.
        levels: how often it occurs; the first is the task as it is.
        pair: a pair of samples at a level, from a source of random words.
        search: further flags of the search.
        side: the one of the pair's two prompts that the expectation is about; None: both.
    """

    task: str
    says: str
    axis: str
    levels: tuple[int, ...]
    pair: Callable[[int, random.Random], tasks.Pair]
    search: tuple[str, ...] = ()
    side: int | None = None


def _words(source: random.Random, count: int) -> list[str]:
    return source.sample(VOCABULARY["heldout"].names, count)


def quotes(level: int, source: random.Random) -> tasks.Pair:
    """A call whose string is still open, after `level` finished strings in the other quotation mark."""
    names, said = _words(source, level), source.choice(VOCABULARY["heldout"].texts)

    def prompt(mark: str, other: str) -> str:
        return "".join(f"{name} = {other}{_fixed(name)}{other}\n" for name in names) + f"print({mark}{said}"

    return _pair(prompt("'", '"'), prompt('"', "'"), "')\n", '")\n')


def _fixed(name: str) -> str:
    """A text that depends on a name alone, so that both prompts of a pair have the same."""
    texts = VOCABULARY["heldout"].texts
    return texts[VOCABULARY["heldout"].names.index(name) % len(texts)]


def brackets(level: int, source: random.Random) -> tasks.Pair:
    """An open list, flat or nested, of `level` numbers."""
    (name,) = _words(source, 1)
    numbers = ", ".join(str(source.randrange(10)) for _ in range(level))
    return _pair(f"{name} = [{numbers}", f"{name} = [[{numbers}", "]\n", "]]\n")


def entries(level: int, source: random.Random) -> tasks.Pair:
    """An open dict or list of `level` finished entries and a string that has begun."""
    (name,), texts = _words(source, 1), source.sample(VOCABULARY["heldout"].texts, level + 1)
    numbers = [source.randrange(10, 100) for _ in range(level)]

    def prompt(opening: str, between: str) -> str:
        done = (f'"{text}"{between} {number}, ' for text, number in zip(texts[:-1], numbers, strict=True))
        return f'{name} = {opening}{"".join(done)}"{texts[-1]}'

    return _pair(prompt("{", ":"), prompt("[", ","), '":', '",')


def beginnings(level: int, source: random.Random) -> tasks.Pair:
    """A loop about to use current, which began as a set or a string, after `level` others that began as the other."""
    loop, items, *names = _words(source, level + 2)

    def prompt(start: str, other: str) -> str:
        before = "".join(f"{name} = {other}\n" for name in names)
        return f"{before}current = {start}\nfor {loop} in {items}:\n    current"

    return _pair(prompt("set()", '""'), prompt('""', "set()"), ".add", " +=")


def distances(level: int, source: random.Random) -> tasks.Pair:
    """A loop of two variables, the second a name of `level` + 1 words, or of one variable of all these words."""
    one, *names = _words(source, level + 2)
    name = "_".join(names)
    return _pair(f"for {one}, {name} in", f"for {one}_{name} in", " enumerate", " range")


def swaps(level: int, source: random.Random) -> tasks.Pair:
    """An exchange of two variables that is still to be finished, after `level` finished ones of other variables."""
    names = source.sample(COPIED, 2 * level + 2)
    before = "".join(f"{a}, {b} = {b}, {a}\n" for a, b in zip(names[2::2], names[3::2], strict=True))
    a, b = names[:2]
    return _pair(f"{before}{a}, {b} = {b},", f"{before}{b}, {a} = {a},", f" {a}", f" {b}")


def _pair(first: str, second: str, answer: str, other: str) -> tasks.Pair:
    return tasks.Pair(tasks.Sample(first, answer, other), tasks.Sample(second, other, answer))


PREDICTIONS = (
    Prediction(
        QUOTE,
        "Heads collect quotation marks of the whole prompt: finished strings in the other mark pull the answer over.",
        "finished strings in the other quotation mark before the call",
        (0, 1, 2, 3, 4, 6),
        quotes,
    ),
    Prediction(
        "bracket_brace",
        "A list is known by how it opened, which a longer list averages away; a dict by what follows each of its keys.",
        "finished entries of the list or dict",
        (0, 1, 2, 4, 6, 8),
        entries,
        SHORTER,
        side=1,
    ),
    Prediction(
        "set_or_string_fixedvarname",
        "A head collects whether any set began: other variables that are sets make the string's answer less certain.",
        "other variables that began as a set, before the string",
        (0, 1, 2, 3, 4),
        beginnings,
        SHORTER,
        side=1,
    ),
    Prediction(
        "enumerate_range",
        "A head looks for a comma among the last tokens: the longer the second name, the less certain is enumerate.",
        "further words in the second name",
        (0, 1, 2, 3, 4, 6),
        distances,
        SHORTER,
        side=0,
    ),
    Prediction(
        "bracket_counting",
        "Depth is an average over the tokens so far: in a longer list the second bracket counts for less.",
        "numbers in the open list",
        (1, 2, 4, 8, 12, 16, 24, 32),
        brackets,
        EASED,
    ),
    Prediction(
        "var_swap",
        "What recalls the first name reads names of other lines too: finished exchanges make it less certain.",
        "finished exchanges of other variables before",
        (0, 1, 2, 3, 4, 6),
        swaps,
        EASED,
    ),
)


def predictions(folder: Path) -> list[Check]:
    """Each prediction on the full model and on the circuit: the mean logit difference must fall with the level."""
    stored.unpack(MODEL, folder / MODEL)
    checks, rows = [], []
    for prediction in PREDICTIONS:
        prune(folder / MODEL, prediction.task, *prediction.search)
        measured = measure(prediction, Workdir(folder / MODEL))
        plots.draw(
            folder / f"prediction-{prediction.task}.png",
            prediction.says,
            prediction.axis,
            "logit difference, answer over foil",
            functools.partial(_plot, measured),
            logarithmic=False,
        )
        first, last = (
            mean_margin(measured, level, prediction.side) for level in (prediction.levels[0], prediction.levels[-1])
        )
        verdict = f"{'right' if last < first else 'wrong'}: margin {first:.2f} at first, {last:.2f} at last"
        checks.append(reported(f"{prediction.task}: {prediction.says}", verdict))
        rows += measured
    plots.write_csv(folder / "predictions.csv", rows)
    return checks


def measure(prediction: Prediction, run: Workdir) -> Rows:
    """A row per level, model and side of the pair: mean logit difference of answer and foil, and accuracy."""
    circuit = circuits.load(run.folder / "circuits" / prediction.task, run.params_sha256)
    gated = gated_model(run.config, run.params, circuit.values)
    pruned, gates, shift = without_pruned_edges(gated, circuit), circuit.gates(run.config.model), dict(circuit.shift)
    rows: Rows = []
    for level in prediction.levels:
        source = random.Random(f"{prediction.task} {level}")
        pairs = [prediction.pair(level, source) for _ in range(PAIRS)]
        batch = task_batch(tasks.encode(pairs, run.tokenizer))
        shifts = np.vectorize(lambda token: shift.get(token, 0.0))(np.stack([batch.answer, batch.foil], axis=1))
        logits = {
            "full model": np.asarray(_logits(gated, None, batch)),
            "circuit": circuit.scale * np.asarray(_logits(pruned, gates, batch)) + shifts,
        }
        for model, values in logits.items():
            margin = values[:, 0] - values[:, 1]
            for side, answer in enumerate((pairs[0].first.answer, pairs[0].second.answer)):
                differences = margin[side::2]
                rows.append(
                    {
                        "task": prediction.task,
                        "level": level,
                        "model": model,
                        "answer": answer,
                        "logit_difference": float(differences.mean()),
                        "accuracy": float(np.mean(differences > 0)),
                    }
                )
    return rows


_logits = jax.jit(GatedModel.answer_logits)


def mean_margin(rows: Rows, level: int, side: int | None) -> float:
    differences = [row["logit_difference"] for row in rows if row["level"] == level and row["model"] == "full model"]
    return float(np.mean(differences) if side is None else differences[side])


def _plot(rows: Sequence[Tree], axes: Axes) -> None:
    for model, style in (("full model", "-"), ("circuit", ":")):
        for answer, color in zip(dict.fromkeys(row["answer"] for row in rows), ("#1f6feb", "#b3541e"), strict=True):
            shown = [row for row in rows if row["model"] == model and row["answer"] == answer]
            points = [(row["level"], row["logit_difference"]) for row in shown]
            axes.plot(*zip(*points, strict=True), style, color=color, marker="o", label=f"{model}, answer {answer!r}")
    axes.axhline(0, color="#888888", linewidth=0.8)
