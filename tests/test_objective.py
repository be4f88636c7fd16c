"""Circuits that match the model's own answers: what is searched and selected on has them, nulls do not."""

import dataclasses
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from sparse_gpt.circuits import FoundCircuit, summary
from sparse_gpt.circuits.problem import Candidate, LoadedModel, Problem
from sparse_gpt.circuits.run import objective
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.objective import largest_loss
from sparse_gpt.circuits.run.samples import FamilySamples, mixture
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.records import Search
from tests import circuits_model, ground_truth
from tests.test_card import TRUE, measured, problem

CONFIG = circuits_model.config(
    prune=dataclasses.replace(circuits_model.SEARCH, search="path", objective="match", ablation="zero", largest_scale=3)
)


def _built(families: bool) -> Problem:
    params = circuits_model.params(CONFIG)
    samples = circuits_model.samples(CONFIG, params)
    if families:
        parts = {"main": samples, "other": circuits_model.samples(CONFIG, params, answers=(5, 9))}
        each = {name: FamilySamples(part.train, part.validation, part.heldout) for name, part in parts.items()}
        samples = mixture(samples, each)
    return Problem.build(LoadedModel(CONFIG, params), samples)


def _own_shares(made: Problem, batch: TaskBatch) -> np.ndarray:
    logits = np.asarray(made.gated.answer_logits(None, batch), np.float64)
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


@pytest.mark.parametrize("families", [False, True])
def test_searched_and_selected_samples_have_the_models_answers(families: bool) -> None:
    made = _built(families)
    problems = [made, *(made.on_family(name) for name in made.samples.families)]
    for each in problems:
        for batch in (each.train, each.selection.batch):
            np.testing.assert_allclose(batch.foil_share, _own_shares(made, batch), rtol=1e-3, atol=2e-6)
        assert each.heldout.batch.foil_share is None, "what is reported is the task loss"
        assert each.selection.largest_scale == each.heldout.largest_scale == 3
    whole = Candidates(np.ones((1, made.selection.nodes), np.float32))
    assert made.selection.within(whole, 1.0)[0] < 1e-5, "the model matches itself"
    nothing = made.selection.logits(Candidates(np.zeros((1, made.selection.nodes), np.float32)))[0]
    assert largest_loss(nothing, made.selection.batch) > 0.1
    assert made.selection(whole).scale[0] <= 3


def test_divergences_are_kl_between_two_way_answers() -> None:
    rng = np.random.default_rng(0)
    margin, share = rng.normal(0, 3, 50), rng.uniform(0.01, 0.99, 50)
    q = 1 / (1 + np.exp(margin))  # probability of the foil
    kl = share * np.log(share / q) + (1 - share) * np.log((1 - share) / (1 - q))
    np.testing.assert_allclose(objective.losses(margin, share), kl, atol=1e-12)
    np.testing.assert_allclose(objective.losses(margin), -np.log(1 - q), atol=1e-12)
    sure = objective.foil_shares(np.array([[9e9, 0], [0, 9e9]]))
    assert np.isfinite(objective.losses(np.array([1e30, -1e30]), sure)).all()


def test_nulls_have_to_do_the_task() -> None:
    """To match what the model answers with two unrelated tokens would be no null; halves of the samples match."""
    made = problem()
    prune = dataclasses.replace(made.settings, search="path", objective="match")
    model = LoadedModel(dataclasses.replace(made.model.config, prune=prune), made.model.params)
    matching = dataclasses.replace(made, model=model)
    true, seen = ground_truth.candidate(made, TRUE), []

    def find(other: Problem) -> Candidate:
        seen.append((other.settings.objective, other.train.foil_share is None))
        return true

    for row in ("nonsense", "permuted_weights"):
        measured(row, "main", matching, true, find)
    assert seen == [("task", True)] * 3
    seen.clear()
    measured("stability", "main", matching, true, find)
    assert set(seen) == {("match", False)}


@pytest.mark.parametrize(("aim", "what"), [("task", "task loss"), ("match", "divergence from the model")])
def test_a_target_that_was_missed_is_named_as_what_it_is(aim: str, what: str) -> None:
    found = SimpleNamespace(
        reached=False,
        circuit=SimpleNamespace(nodes=(), target_loss=0.1),
        search=Search(trials=(), hyperparameters={"search": "path", "objective": aim}),
    )
    (line,) = summary._misses(cast("FoundCircuit", found))
    assert line == f"no circuit reached {what} 0.1; this is the best found"
