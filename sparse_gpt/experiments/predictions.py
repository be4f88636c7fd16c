"""Experiment: what the readings of six complete circuits of the laptop model say about unusual inputs, and whether it
holds for the whole model. The readings are in docs/readings.md; rules and expectations were written before any run."""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from matplotlib.axes import Axes

from sparse_gpt import stored, tasks
from sparse_gpt.circuits import circuit as circuits
from sparse_gpt.circuits import task_batch
from sparse_gpt.circuits.run.edge_ablation import without_pruned_edges
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.experiments import plots
from sparse_gpt.experiments.complete_circuits import FLAGS
from sparse_gpt.experiments.harness import Check, at_least, finish, reported
from sparse_gpt.experiments.laptop_circuits import MODEL
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
    "last",
    "high",
    "step",
    "age",
    "position",
    "count",
    "size",
)
"""Names that a small tokenizer holds whole."""
FALLS, RISES = 2 / 3, 4 / 3  # of the margin at the first level, at the last
SHARE = 2 / 3  # of the predictions that are to come true
Rows = list[Tree]
Expects = Literal["falls", "holds", "rises"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the reading of a circuit leads one to expect of the full model on inputs that the task does not have.

    Attributes:
        task: whose circuit was read.
        side: of the pair's two prompts that the expectation is about: 0 or 1.
        expects: of the full model's mean logit difference between answer and foil, from the first level to the last:
            "falls" to at most FALLS of what it was, "rises" to at least RISES, "holds" above FALLS.
        says: the reading and the expectation, in a sentence.
        axis: what is counted along the levels.
        levels: how often it occurs; the first is the task as it is.
        pair: a pair of samples at a level, from a source of random words.
    """

    task: str
    side: int
    expects: Expects
    says: str
    axis: str
    levels: tuple[int, ...]
    pair: Callable[[int, random.Random], tasks.Pair]

    def came_true(self, first: float, last: float) -> bool:
        """Whether margins at the first and the last level are as expected; never where the first is not positive."""
        if first <= 0:
            return False
        if self.expects == "falls":
            return last <= FALLS * first
        return last >= RISES * first if self.expects == "rises" else last > FALLS * first

    def pairs(self, level: int) -> list[tasks.Pair]:
        """The pairs of a level, always the same."""
        source = random.Random(f"{self.pair.__name__} {level}")
        return [self.pair(level, source) for _ in range(PAIRS)]


def _words(source: random.Random, count: int) -> list[str]:
    return source.sample(VOCABULARY["heldout"].names, count)


def _pair(first: str, second: str, answer: str, other: str) -> tasks.Pair:
    return tasks.Pair(tasks.Sample(first, answer, other), tasks.Sample(second, other, answer))


def loop_variables(level: int, source: random.Random) -> tasks.Pair:
    """A loop of 2 + `level` variables, or of one."""
    one, two, *more = _words(source, 2 + level)
    return _pair(f"for {', '.join([one, two, *more])} in", f"for {one}_{two} in", " enumerate", " range")


def listed_before(level: int, source: random.Random) -> tasks.Pair:
    """A loop, after a line with a list of `level` names."""
    one, two, table, *members = _words(source, 3 + level)
    before = f"{table} = [{', '.join(members)}]\n" if members else ""
    return _pair(f"{before}for {one}, {two} in", f"{before}for {one}_{two} in", " enumerate", " range")


def parameters_before(level: int, source: random.Random) -> tasks.Pair:
    """A lambda with `level` parameters before the last, or a method."""
    listing, name, last, *more = _words(source, 3 + level)
    before = "".join(f"{each}, " for each in more)
    return _pair(f"{listing} = [\n    lambda {before}{last}", f"class {name.title()}:\n    def {last}", ":", "(")


def lambda_attributes(level: int, source: random.Random) -> tasks.Pair:
    """A lambda in a list, or a method of a class that has begun with `level` lambdas."""
    listing, name, last, *more = _words(source, 3 + 2 * level)
    lines = "".join(f"    {a} = lambda {b}: {b}\n" for a, b in zip(more[::2], more[1::2], strict=True))
    return _pair(f"{listing} = [\n    lambda {last}", f"class {name.title()}:\n{lines}    def {last}", ":", "(")


def finished_branches(level: int, source: random.Random) -> tasks.Pair:
    """An else or elif, after `level` if statements of other variables, with else."""
    action, (copied, *others) = _words(source, 1)[0], source.sample(COPIED, level + 1)
    before = "".join(f"if {other} > 5:\n    {action}()\nelse:\n    {action}()\n" for other in others)
    start = f"{before}if {copied} == 3:\n    {action}()\n"
    return _pair(f"{start}else", f"{start}elif", ":\n", f" {copied}")


def unasked_names(level: int, source: random.Random) -> tasks.Pair:
    """An else or elif; at level 1 the name that is scored was never asked about, or mentioned."""
    action, names = _words(source, 1)[0], source.sample(COPIED, 2)
    start = f"if {names[level]} == 3:\n    {action}()\n"
    return _pair(f"{start}else", f"{start}elif", ":\n", f" {names[0]}")


def string_words(level: int, source: random.Random) -> tasks.Pair:
    """A call whose string has gone on for 1 + `level` texts."""
    (action,) = _words(source, 1)
    said = " ".join(source.sample(VOCABULARY["heldout"].texts, 1 + level))
    return _pair(f"{action}('{said}", f'{action}("{said}', "')\n", '")\n')


def finished_arguments(level: int, source: random.Random) -> tasks.Pair:
    """A call whose last argument is an open string, after `level` finished ones in the other quotation mark."""
    (action,), texts = _words(source, 1), source.sample(VOCABULARY["heldout"].texts, 1 + level)

    def prompt(mark: str, other: str) -> str:
        done = "".join(f"{other}{text}{other}, " for text in texts[1:])
        return f"{action}({done}{mark}{texts[0]}"

    return _pair(prompt("'", '"'), prompt('"', "'"), "')\n", '")\n')


def returned_before(level: int, source: random.Random) -> tasks.Pair:
    """while True or return True, after `level` conditions that returned True."""
    action, argument, *asked = _words(source, 2 + level)
    before = "".join(f"    if {name}:\n        return True\n" for name in asked)
    start = f"def {action}({argument}):\n{before}"
    return _pair(f"{start}    while True", f"{start}    return True", ":\n", "\n")


def joined_conditions(level: int, source: random.Random) -> tasks.Pair:
    """while or return, then `level` names joined by and, then True."""
    action, argument, *joined = _words(source, 2 + level)
    between = "".join(f"{name} and " for name in joined)
    start = f"def {action}({argument}):\n"
    return _pair(f"{start}    while {between}True", f"{start}    return {between}True", ":\n", "\n")


def assigned_comparisons(level: int, source: random.Random) -> tasks.Pair:
    """A condition, or an assignment: of True at level 0, of a comparison with True at level 1."""
    asked, name = _words(source, 2)
    assigned = f"{name} = {asked} == True" if level else f"{name}.{asked} = True"
    return _pair(f"if {asked} == True", assigned, ":\n", "\n")


def returned_comparisons(level: int, source: random.Random) -> tasks.Pair:
    """A comparison with True after if, or at level 1 after return; or an assignment."""
    asked, name = _words(source, 2)
    return _pair(f"{('if', 'return')[level]} {asked} == True", f"{name}.{asked} = True", ":\n", "\n")


PREDICTIONS = (
    Prediction(
        "enumerate_range",
        0,
        "rises",
        "A head's query at ` in` looks for commas since ` for`: every further variable makes enumerate more certain.",
        "further loop variables",
        (0, 1, 2, 4),
        loop_variables,
    ),
    Prediction(
        "enumerate_range",
        1,
        "falls",
        "Keys tell commas by how late they are, not by their line: a list in the line before costs range certainty.",
        "names in a list in the line before",
        (0, 1, 2, 4),
        listed_before,
    ),
    Prediction(
        "lambda_func",
        0,
        "falls",
        "Three heads look for lambda or def among late tokens: with more parameters in between the colon falls.",
        "parameters before the last",
        (0, 1, 2, 4),
        parameters_before,
    ),
    Prediction(
        "lambda_func",
        1,
        "falls",
        "What they carry is how much lambda there was: lambdas in the class make a method's bracket less certain.",
        "lambdas in the class before the method",
        (0, 1, 2, 4),
        lambda_attributes,
    ),
    Prediction(
        "single_double_quote",
        0,
        "falls",
        "One head looks for the mark that opened among late tokens: the longer the string, the less certain its end.",
        "further texts in the string",
        (0, 1, 2, 4),
        string_words,
    ),
    Prediction(
        "single_double_quote",
        1,
        "falls",
        "It tells this call from earlier lines, but not the strings within a call: a finished one costs certainty.",
        "finished strings in the other mark in the call",
        (0, 1),
        finished_arguments,
    ),
    Prediction(
        "while_return_true",
        0,
        "falls",
        "Three heads average how much return and while there was lately: earlier return True make the colon uncertain.",
        "conditions that returned True before",
        (0, 1, 2, 4),
        returned_before,
    ),
    Prediction(
        "while_return_true",
        0,
        "falls",
        "They look for the word and not for what it governs: names joined between while and True dilute the colon.",
        "names joined by and, between while and True",
        (0, 1, 2, 4),
        joined_conditions,
    ),
    Prediction(
        "var_if",
        1,
        "falls",
        "The circuit reads == or = and nothing of the statement: an assigned comparison is taken for a condition.",
        "0: True is assigned; 1: a comparison with True",
        (0, 1),
        assigned_comparisons,
    ),
    Prediction(
        "var_if",
        0,
        "holds",
        "It does not read if: after return a comparison with True goes on with a colon as certainly as after if.",
        "0: if; 1: return",
        (0, 1),
        returned_comparisons,
    ),
    Prediction(
        "else_elif",
        0,
        "holds",
        "No head is in the circuit, only the token itself: nothing before makes a colon after else uncertain.",
        "finished if statements with else before",
        (0, 1, 2, 4),
        finished_branches,
    ),
    Prediction(
        "else_elif",
        1,
        "holds",
        "So after elif a name that was never asked about is as likely as the one that was: nothing is copied.",
        "0: the name was asked about; 1: another was",
        (0, 1),
        unasked_names,
    ),
)


def predictions(folder: Path) -> list[Check]:
    """Each prediction on the full model and on the circuit, by its rule."""
    stored.unpack(MODEL, folder / MODEL)
    names = dict.fromkeys(prediction.task for prediction in PREDICTIONS)
    finish("prune", f"--workdir={folder / MODEL}", f"--task={','.join(names)}", *FLAGS)
    run, checks, rows, right = Workdir(folder / MODEL), [], [], 0
    for number, prediction in enumerate(PREDICTIONS, start=1):
        measured = measure(prediction, run)
        plots.draw(
            folder / f"prediction-{number}-{prediction.task}.png",
            prediction.says,
            prediction.axis,
            "logit difference, answer over foil",
            functools.partial(_plot, measured),
            logarithmic=False,
        )
        first, last = measured[0], measured[-1]
        true = prediction.came_true(first["model"], last["model"])
        right += true
        verdict = f"{'right' if true else 'wrong'}: {first['model']:.2f} to {last['model']:.2f}"
        shown = f"{verdict} (circuit {first['circuit']:.2f} to {last['circuit']:.2f})"
        checks.append(reported(f"{number}, {prediction.task} {prediction.expects}: {prediction.says}", shown))
        rows += [{"prediction": number, "task": prediction.task, **row} for row in measured]
    plots.write_csv(folder / "predictions.csv", rows)
    return [at_least("predictions that came true", right, SHARE * len(PREDICTIONS)), *checks]


def measure(prediction: Prediction, run: Workdir) -> Rows:
    """A row per level: mean logit difference of answer and foil, and share of right answers, of the model and of the
    circuit, on the prompts that the prediction is about; logit differences on the others of the pairs."""
    circuit = circuits.load(run.folder / "circuits" / prediction.task, run.params_sha256, run.config.model)
    gated = gated_model(run.config, run.params, circuit.values)
    pruned, gates, shift = without_pruned_edges(gated, circuit), circuit.gates(run.config.model), dict(circuit.shift)
    rows: Rows = []
    for level in prediction.levels:
        batch = task_batch(tasks.encode(prediction.pairs(level), run.tokenizer))
        shifts = np.vectorize(lambda token: shift.get(token, 0.0))(np.stack([batch.answer, batch.foil], axis=1))
        logits = {
            "model": np.asarray(_logits(gated, None, batch)),
            "circuit": circuit.scale * np.asarray(_logits(pruned, gates, batch)) + shifts,
        }
        rows.append({"level": level} | _row(prediction.side, {key: x[:, 0] - x[:, 1] for key, x in logits.items()}))
    return rows


_logits = jax.jit(GatedModel.answer_logits)


def _row(side: int, differences: Mapping[str, np.ndarray]) -> Tree:
    """Columns of a row, from logit differences (B,) by what they are of; prompts 2 i and 2 i + 1 are a pair."""
    asked = {name: values[side::2] for name, values in differences.items()}
    return {
        **{name: float(values.mean()) for name, values in asked.items()},
        **{f"{name}_right": float(np.mean(values > 0)) for name, values in asked.items()},
        **{f"{name}_other": float(values[1 - side :: 2].mean()) for name, values in differences.items()},
    }


def _plot(rows: Sequence[Tree], axes: Axes) -> None:
    for prompts, column, color in (("predicted about", "", "#1f6feb"), ("the others", "_other", "#b3541e")):
        for name, style in (("model", "-"), ("circuit", ":")):
            points = [(row["level"], row[f"{name}{column}"]) for row in rows]
            axes.plot(*zip(*points, strict=True), style, color=color, marker="o", label=f"{name}, {prompts}")
    axes.axhline(0, color="#888888", linewidth=0.8)
