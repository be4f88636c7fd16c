"""Predictions of circuits: their rules, and that every prompt of every level can be asked of the model."""

import random
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import stored, tasks
from sparse_gpt.experiments.laptop_circuits import MODEL
from sparse_gpt.experiments.predictions import PREDICTIONS, Prediction, _row, loop_variables
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
        pairs = [prediction.pair(level, random.Random(draw)) for draw in range(8)]
        encoded = tasks.encode(pairs, run.tokenizer)  # raises where an answer is not one token
        assert encoded.lengths.max() <= run.config.model.context
        assert all(pair.first.prompt != pair.second.prompt for pair in pairs)
        assert all((pair.first.answer, pair.first.foil) == (pair.second.foil, pair.second.answer) for pair in pairs)
    assert len(set(prediction.levels)) == len(prediction.levels)
    assert prediction.levels[0] == 0


def test_a_row_is_of_one_side() -> None:
    """Prompts 2 i and 2 i + 1 are a pair; the prediction is about one of the two."""
    differences = {"model": np.array([3.0, -1.0, 5.0, -2.0]), "circuit": np.array([1.0, 2.0, -1.0, 4.0])}
    first = {"model": 4.0, "circuit": 0.0, "model_right": 1.0, "circuit_right": 0.5}
    second = {"model": -1.5, "circuit": 3.0, "model_right": 0.0, "circuit_right": 1.0}
    assert _row(0, differences) == first | {"model_other": -1.5, "circuit_other": 3.0}
    assert _row(1, differences) == second | {"model_other": 4.0, "circuit_other": 0.0}
