"""Predictions of circuits: their rules, and that every prompt of every level can be asked of the model."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import stored, tasks
from sparse_gpt.circuits import Circuit, Node
from sparse_gpt.experiments import predictions
from sparse_gpt.experiments.laptop_circuits import MODEL
from sparse_gpt.experiments.predictions import PREDICTIONS, Prediction, _row, loop_variables
from sparse_gpt.model.taps import site_widths
from sparse_gpt.workdir import Workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """The stored model."""
    folder: Path = tmp_path_factory.mktemp("predictions") / MODEL
    stored.unpack(MODEL, folder)
    return Workdir(folder)


@pytest.mark.parametrize(
    ("expects", "first", "last", "true"),
    [
        ("falls", 3.0, 2.0, True),
        ("falls", 3.0, 2.01, False),
        ("falls", 3.0, -5.0, True),
        ("rises", 3.0, 4.0, True),
        ("rises", 3.0, 3.99, False),
        ("holds", 3.0, 2.01, True),
        ("holds", 3.0, 9.0, True),
        ("holds", 3.0, 2.0, False),
        ("falls", -1.0, -2.0, False),  # the model cannot do what is predicted about
        ("holds", 0.0, 1.0, False),
    ],
)
def test_what_comes_true(expects: str, first: float, last: float, true: bool) -> None:
    prediction = Prediction("enumerate_range", 0, expects, "", "", (0, 1), loop_variables)  # type: ignore[arg-type]
    assert prediction.came_true(first, last) is true


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda each: f"{each.task}-{each.pair.__name__}")
def test_every_prompt_can_be_asked(prediction: Prediction, run: Workdir) -> None:
    assert prediction.task in tasks.TASKS
    for level in prediction.levels:
        pairs = prediction.pairs(level)
        encoded = tasks.encode(pairs, run.tokenizer)  # raises where an answer is not one token
        assert encoded.lengths.max() <= run.config.model.context
        assert all(pair.first.prompt != pair.second.prompt for pair in pairs)
        assert all((pair.first.answer, pair.first.foil) == (pair.second.foil, pair.second.answer) for pair in pairs)
    assert len(set(prediction.levels)) == len(prediction.levels)
    assert prediction.levels[0] == 0


def test_levels_count_what_they_say() -> None:
    """Prompts of a pair differ in what the task asks about, and otherwise have the same words."""
    first, second = _prompts(predictions.loop_variables, 3)
    assert (first.count(", "), second.count(", ")) == (4, 0)
    first, second = _prompts(predictions.listed_before, 3)
    assert first.split("]")[0] == second.split("]")[0]
    assert (first.count(", "), second.count(", ")) == (3, 2)
    assert first.replace(", ", "_") == second.replace(", ", "_")
    first, second = _prompts(predictions.parameters_before, 3)
    assert (first.count(", "), second.count(", ")) == (3, 0)
    first, second = _prompts(predictions.lambda_attributes, 3)
    assert (first.count("lambda"), second.count("lambda"), second.count("def")) == (1, 3, 1)
    first, second = _prompts(predictions.finished_branches, 3)
    assert (first.count("else"), second.count("else"), second.count("elif")) == (4, 3, 1)
    assert first.removesuffix("else") == second.removesuffix("elif")
    (first, second), (others, _) = (_prompts(predictions.unasked_names, level) for level in (0, 1))
    pair = predictions.unasked_names(1, random.Random(1))
    assert pair.second.answer in first
    assert pair.second.answer not in others
    first, second = _prompts(predictions.string_words, 3)
    assert first.replace("'", '"') == second
    assert len(first) > len(_prompts(predictions.string_words, 0)[0])
    first, second = _prompts(predictions.finished_arguments, 3)
    assert (first.count('"'), first.count("'"), second.count('"'), second.count("'")) == (6, 1, 1, 6)
    first, second = _prompts(predictions.returned_before, 3)
    assert (first.count("return True"), second.count("return True")) == (3, 4)
    first, second = _prompts(predictions.joined_conditions, 3)
    assert first.count(" and ") == second.count(" and ") == 3
    assert first.replace("while", "return") == second
    assert [_prompts(predictions.assigned_comparisons, level)[1].count("==") for level in (0, 1)] == [0, 1]
    assert [_prompts(predictions.returned_comparisons, level)[0].split()[0] for level in (0, 1)] == ["if", "return"]


def _prompts(pair: Callable[[int, random.Random], tasks.Pair], level: int) -> tuple[str, str]:
    found = pair(level, random.Random(1))
    return found.first.prompt, found.second.prompt


def test_a_row_is_of_one_side() -> None:
    """Prompts 2 i and 2 i + 1 are a pair; the prediction is about one of the two."""
    differences = {"model": np.array([3.0, -1.0, 5.0, -2.0]), "circuit": np.array([1.0, 2.0, -1.0, 4.0])}
    first = {"model": 4.0, "circuit": 0.0, "model_right": 1.0, "circuit_right": 0.5}
    second = {"model": -1.5, "circuit": 3.0, "model_right": 0.0, "circuit_right": 1.0}
    assert _row(0, differences) == first | {"model_other": -1.5, "circuit_other": 3.0}
    assert _row(1, differences) == second | {"model_other": 4.0, "circuit_other": 0.0}


@pytest.mark.slow
def test_a_circuit_of_all_nodes_is_the_model(workdir: Path) -> None:
    """Calibration included: scale 2 doubles every logit difference, a shift moves those of its token."""
    stored.unpack(MODEL, workdir)
    run = Workdir(workdir)
    widths, m = site_widths(run.config.model), run.config.model
    nodes = tuple(Node(i, site, c) for site, width in widths.items() for i in range(m.n_layer) for c in range(width))
    answer = run.tokenizer.encode("x')\n")[-1]
    circuit = Circuit(
        task="single_double_quote",
        params_sha256=run.params_sha256,
        ablation="mean",
        norm="live",
        target_loss=0.15,
        scale=2.0,
        shift=((answer, 0.5),),
        edge_pruned=False,
        nodes=nodes,
        edges=(),
        metrics={},
        values={site: np.zeros((m.n_layer, width), np.float32) for site, width in widths.items()},
    )
    circuit.save(workdir / "circuits" / "single_double_quote")
    prediction = next(each for each in PREDICTIONS if each.task == "single_double_quote" and each.side == 0)
    (row,) = predictions.measure(dataclasses.replace(prediction, levels=(0,)), run)
    assert row["circuit"] == pytest.approx(2 * row["model"] + 0.5, rel=1e-4)
    assert row["circuit_other"] == pytest.approx(2 * row["model_other"] - 0.5, rel=1e-4)
    assert row["model"] > 1
    assert row["model_other"] > 1
    assert (row["level"], row["model_right"], row["circuit_right"]) == (0, 1, 1)
