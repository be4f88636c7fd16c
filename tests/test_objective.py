"""Circuits that match the model's own answers: what is searched and selected on has them, nulls do not."""

import dataclasses
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import scipy.stats

from sparse_gpt.circuits import FoundCircuit, summary
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run import objective
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import largest_loss
from sparse_gpt.circuits.run.samples import FamilySamples, mixture
from sparse_gpt.circuits.run.support import Candidate
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


@pytest.mark.slow
@pytest.mark.parametrize("families", [False, True])
def test_searched_and_selected_samples_have_the_models_answers(families: bool) -> None:
    made = _built(families)
    problems = [made, *(made.on_family(name) for name in made.samples.families)]
    for each in problems:
        for batch in (each.train, each.selection.batch):
            np.testing.assert_allclose(batch.foil_share, _own_shares(made, batch), rtol=1e-3, atol=2e-6)
        assert each.heldout.batch.foil_share is None, "what is reported is the task loss"
        assert each.selection.largest_scale == each.heldout.largest_scale == 3
    whole = Masks(np.ones((1, made.selection.nodes), np.float32))
    assert made.selection.losses_up_to(whole, 1.0)[0] < 1e-5, "the model matches itself"
    nothing = made.selection.logits(Masks(np.zeros((1, made.selection.nodes), np.float32)))[0]
    assert largest_loss(nothing, made.selection.batch) > 0.1
    assert made.selection(whole).calibration.scale[0] <= 3


def test_divergences_are_kl_between_two_way_answers() -> None:
    rng = np.random.default_rng(0)
    margin, share = rng.normal(0, 3, 50), rng.uniform(0.01, 0.99, 50)
    q = 1 / (1 + np.exp(margin))  # probability of the foil
    kl = share * np.log(share / q) + (1 - share) * np.log((1 - share) / (1 - q))
    np.testing.assert_allclose(objective.losses(margin, share), kl, atol=1e-12)
    np.testing.assert_allclose(objective.losses(margin), -np.log(1 - q), atol=1e-12)
    sure = objective.foil_shares(np.array([[9e9, 0], [0, 9e9]]))
    assert np.isfinite(objective.losses(np.array([1e30, -1e30]), sure)).all()


def _one_word_wrong(words: int, tasks: int) -> tuple[np.ndarray, TaskBatch]:
    """Logits and samples of pairs that answer with a word, and with token 3; the first of the words is always wrong."""
    rng, pairs = np.random.default_rng(0), 240
    word = 10 + np.arange(pairs) % words
    answer, foil = np.stack([word, np.full(pairs, 3)], 1), np.stack([np.full(pairs, 3), word], 1)
    margin = np.where(answer == 10, -2.0, rng.normal(6, 1, answer.shape)).reshape(-1)
    task = np.repeat(np.arange(pairs) % tasks, 2).astype(np.int32)
    tokens = np.zeros((2 * pairs, 4), np.int32)
    batch = TaskBatch(tokens, np.full(2 * pairs, 3), answer.reshape(-1), foil.reshape(-1), task if tasks > 1 else None)
    return np.stack([margin, np.zeros_like(margin)], 1), batch


def _upper_end(values: np.ndarray, labels: list[object]) -> float:
    """Of the 95 % interval of a mean over clusters, slowly."""
    mean, found = values.mean(), list(dict.fromkeys(labels))
    sums = [sum(v - mean for v, label in zip(values, labels, strict=True) if label == each) for each in found]
    error = np.sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums)) / len(values)
    return float(mean + scipy.stats.t.ppf(0.975, len(sums) - 1) * error)


@pytest.mark.parametrize(("words", "tasks"), [(40, 1), (40, 3), (16, 1), (15, 1), (1, 2)])
def test_of_a_loss_the_upper_end_of_its_interval_counts_too(words: int, tasks: int) -> None:
    """Clusters are answers where these are words, and else pairs; every task has an interval of its own."""
    logits, batch = _one_word_wrong(words, tasks)
    each = np.log1p(np.exp(logits[:, 1] - logits[:, 0]))
    task = np.zeros(len(each), int) if batch.task is None else batch.task
    answers = [frozenset(pair) for pair in zip(batch.answer.tolist(), batch.foil.tolist(), strict=True)]
    labels = answers if words >= 16 else [i // 2 for i in range(len(each))]
    upper = [
        _upper_end(each[task == t], [x for x, own in zip(labels, task == t, strict=True) if own]) for t in set(task)
    ]
    means = [each[task == t].mean() for t in set(task)]
    assert largest_loss(logits, batch) == pytest.approx(max(means))
    for share in (0.1, 0.6, 1.0):
        expected = max(max(mean, share * end) for mean, end in zip(means, upper, strict=True))
        assert largest_loss(logits, batch, share) == pytest.approx(expected)


def test_a_word_that_is_always_wrong_is_refused_though_the_mean_is_small() -> None:
    logits, batch = _one_word_wrong(40, 1)
    logits = 3 * logits  # nats that the word is wrong by: 6
    assert largest_loss(logits, batch) < 0.6 * 0.15 < largest_loss(logits, batch, 0.6)
    right = np.stack([np.full(len(logits), 4.0), np.zeros(len(logits))], 1)
    assert largest_loss(right, batch, 0.6) == pytest.approx(largest_loss(right, batch))


def test_weights_of_samples_follow_the_worst_task() -> None:
    rng = np.random.default_rng(0)
    margin = np.concatenate([rng.normal(4, 1, 20), rng.normal(1, 1, 40), rng.normal(2, 1, 30)])
    logits, task = np.stack([margin, np.zeros(90)], axis=1), np.repeat([0, 1, 2], [20, 40, 30])
    batch = circuits_model.batch(90, seed=3)._replace(task=task)
    weights, losses = objective.weights_of_worst(logits, batch), objective.losses_by_task(logits, batch)
    assert weights.sum() == pytest.approx(1)
    of_task = np.bincount(task, weights)
    assert all(np.ptp(weights[task == each]) == 0 for each in range(3))
    spread = objective.SPREAD * losses[1]
    np.testing.assert_allclose(of_task / of_task[1], [np.exp((losses[i] - losses[1]) / spread) for i in range(3)], 1e-5)
    allowed = objective.weights_of_worst(logits, batch, allowance=(0.0, 1.0, 0.0))
    assert np.argmax(np.bincount(task, allowed)) == 2, "what a task is allowed is not held against it"
    np.testing.assert_allclose(objective.weights_of_worst(logits, batch._replace(task=None)), 1 / 90, rtol=1e-5)
    right = objective.weights_of_worst(np.stack([np.full(90, 1e9), np.zeros(90)], axis=1), batch)
    np.testing.assert_allclose(np.bincount(task, right), 1 / 3, rtol=1e-5)  # nobody is wrong anywhere


def test_too_few_clusters_have_no_interval() -> None:
    logits, batch = _one_word_wrong(1, 1)
    few = TaskBatch(*(None if x is None else x[:8] for x in batch))
    assert largest_loss(logits[:8], few, 1.0) == largest_loss(logits[:8], few)


@pytest.mark.slow
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


def test_each_task_of_a_batch_has_clusters_of_its_own() -> None:
    """A task of two answers beside one that copies words: its pairs stay independent, and so does its interval."""
    pairs, rng = 40, np.random.default_rng(0)
    two = np.tile([3, 7], pairs)
    words = rng.permutation(400)[: 2 * pairs].repeat(2).reshape(-1, 2)[: 2 * pairs]
    words = np.stack([rng.choice(words[:20, 0], pairs), np.full(pairs, 999)], axis=1).reshape(-1)
    answer = np.concatenate([two, words]).astype(np.int32)
    foil = answer.reshape(-1, 2)[:, ::-1].reshape(-1)
    tokens, ends = np.zeros((4 * pairs, 4), np.int32), np.full(4 * pairs, 3, np.int32)
    both = TaskBatch(tokens, ends, answer, foil, np.repeat([0, 1], 2 * pairs).astype(np.int32))
    alone = TaskBatch(tokens[: 2 * pairs], ends[: 2 * pairs], answer[: 2 * pairs], foil[: 2 * pairs])
    labels = objective.answer_clusters(both)
    first, second = labels[: 2 * pairs], labels[2 * pairs :]
    np.testing.assert_array_equal(first, objective.answer_clusters(alone))
    assert len(np.unique(first)) == pairs
    assert len(np.unique(second)) == len(np.unique(words)) - 1 >= objective.MANY_ANSWERS
    assert not set(first) & set(second)
    logits = np.zeros((4 * pairs, 2), np.float32)
    logits[:, 0] = 3 - 6 * (np.arange(4 * pairs) % 10 == 0)
    together = objective.losses_by_task(logits, both, 1.0)[0]
    assert (
        together
        == objective.losses_by_task(logits[: 2 * pairs], alone, 1.0)[0]
        > np.mean(objective.losses(logits[: 2 * pairs, 0]))
    )
