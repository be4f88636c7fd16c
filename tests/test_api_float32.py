"""A model that was trained in bfloat16 has the same numbers everywhere: those of float32."""

from pathlib import Path

import numpy as np
import pytest

import sparse_gpt as sg
from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.page.twin import shared_prompts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[sg.Model, sg.Model]:
    """The stored model as it is, and as if its training had been in bfloat16."""
    exact = sg.open("laptop", tmp_path_factory.mktemp("laptop") / "workdir")
    return exact, sg.Model(Path(exact.folder), configs.replace(exact.config, {"train.dtype": "bfloat16"}))


def test_runs_are_in_float32(models: tuple[sg.Model, sg.Model]) -> None:
    expected, run = (each.run("x = 'hello", record="mlp_out") for each in models)
    np.testing.assert_array_equal(run.logits, expected.logits)
    assert run["mlp_out", 0].dtype == np.float32


@pytest.mark.slow
def test_the_table_beside_the_twin_says_what_evaluate_says(models: tuple[sg.Model, sg.Model]) -> None:
    for shared in shared_prompts(*models, [tasks.find("single_double_quote")]):
        differences = [prediction.difference for prediction in shared.predictions]
        assert differences[0] == differences[1]
        ((answer, foil),) = models[1].evaluate([(shared.prompt, shared.answer, shared.foil)]).logits
        assert differences[0] == pytest.approx(answer - foil, abs=1e-4)


@pytest.mark.slow
def test_what_is_measured_of_a_model_is_float32(
    models: tuple[sg.Model, sg.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node means, natural samples and contexts go through `Workdir.model`, evaluation.json through its own."""
    monkeypatch.setattr(tasks_solved, "PAIRS", 4)
    assert (models[1].model.dtype, models[1].model.remat) == ("float32", False)
    rows = []
    for each in models:
        config = configs.replace(each.config, {"train.remat": True})
        rows.append(tasks_solved.evaluate(config, each.params, each.tokenizer, ("for_while",)).tasks)
    assert rows[0] == rows[1]
