"""Where a loss may be above its target: what counts as reached, on which samples, and at which targets."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sparse_gpt.circuits import pipeline
from sparse_gpt.circuits.evidence import curves
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run import task_batch
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import largest_loss, losses, losses_by_task
from sparse_gpt.circuits.run.samples import FamilySamples, TaskSamples, mixture
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.search.integrated_gradients import path_gradient
from sparse_gpt.config import PruneConfig
from sparse_gpt.records.search import CurvePoint
from tests import circuits_model

PRUNE = PruneConfig(
    search="path", ablation="zero", target_loss=0.3, selection_margin=0.5, above_model=0.2, largest_scale=1.0
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A circuit may be 0.2 nats above the model."""
    config = circuits_model.config(prune=PRUNE, n_layer=1)
    params = circuits_model.params(config)
    return Problem.build(LoadedModel(config, params), circuits_model.samples(config, params, 24, shifted=False))


def test_reached_is_the_target_or_what_is_allowed_above_the_model(problem: Problem) -> None:
    """Selection aims at half of the target, and its allowance says how far above that the model lets it be."""
    selection = problem.selection
    (model,) = losses_by_task(selection.full_logits(), selection.batch, selection.upper_share).values()
    limit, rng, seen = max(PRUNE.target_loss, model + PRUNE.above_model), np.random.default_rng(0), set()
    assert selection.allowance[0] > 0.05, "or nothing is shown"
    for share in np.linspace(0.7, 1, 60):
        gates = problem.searchable_nodes * (rng.random(selection.nodes) < share)
        support = Support(problem.graph, gates.astype(np.float32))
        candidate = problem.candidate(support)
        logits = calibrate(selection.logits(support.masks)[0], candidate.calibration, selection.index)
        loss = largest_loss(logits, selection.batch)
        assert candidate.reached == (loss <= limit), (loss, limit)
        seen.add((candidate.reached, loss <= limit + selection.allowance[0]))
    assert {(True, True), (False, True), (False, False)} <= seen, "some lie between the two limits"


def test_sizes_at_targets_are_those_of_losses_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ranking whose first k nodes have a loss of 1 / k, whatever is allowed above the model."""

    class Evaluator:
        def __init__(self, allowance: tuple[float, ...]):
            self.allowance = allowance

        def on_few(self) -> "Evaluator":
            return self

        def losses_up_to(self, masks: Masks, bound: object) -> np.ndarray:
            return 1 / masks.gates.sum(axis=1) - sum(self.allowance)

        def losses(self, masks: Masks, calibration: object) -> np.ndarray:
            return 1 / masks.gates.sum(axis=1)

        def __call__(self, masks: Masks) -> Any:
            return SimpleNamespace(calibration=None)

    monkeypatch.setattr(dataclasses, "replace", lambda one, allowance: Evaluator(allowance))
    graph = SimpleNamespace(tied=None, count_edges=lambda gates: int(gates.sum()))
    monkeypatch.setattr(ranking, "truncate", lambda orders, sizes, tied: np.arange(150) < np.asarray(sizes)[:, None])
    order = np.arange(150)
    for allowance in ((), (0.2,), (0.0,)):
        evaluator = Evaluator(allowance)
        one = cast(Problem, SimpleNamespace(graph=graph, selection=evaluator, heldout=evaluator))
        sizes = (1, 4, 16, 64, 150)
        curve = [
            CurvePoint(nodes=k, edges=k, task_loss=1 / k, selection_task_loss=1 / k - sum(allowance)) for k in sizes
        ]
        found = curves.size_versus_target(one, order, curve)
        for point in found.points:
            wanted = int(np.ceil(1 / point.target_loss - 1e-9))
            assert point.reached == (wanted <= 150), (allowance, point)
            assert not point.reached or point.nodes == wanted, (allowance, point)
        assert found.lowest_target == 0.01


def test_a_family_with_longer_prompts_than_the_mixture_has() -> None:
    """The mixture leaves out its longest tenth; one family alone has all."""

    def made(seed: int) -> TaskBatch:
        """Two of 40 pairs have 40 tokens."""
        rng, ends = np.random.default_rng(seed), np.full(80, 9, np.int32)
        ends[76:] = 39
        tokens = rng.integers(0, circuits_model.VOCABULARY, (80, 64)).astype(np.int32)
        return TaskBatch(tokens, ends, np.full(80, 3, np.int32), np.full(80, 7, np.int32))

    config = circuits_model.config(prune=PruneConfig(ablation="zero", search="paper"), context=64, n_layer=1)
    families = {name: FamilySamples(made(i), made(i + 2), made(i + 4)) for i, name in enumerate(("main", "other"))}
    samples = mixture(TaskSamples(made(0), made(2), made(4)), families)
    whole = Problem.build(LoadedModel(config, circuits_model.params(config)), samples)
    alone = whole.on_family("main")
    assert whole.selection.batch.tokens.shape[1] == 32
    assert alone.selection.batch.tokens.shape[1] == 64
    assert int(alone.selection.batch.positions.max()) == 39


@pytest.mark.parametrize("tasks", [1, 8, 10, 12, 20])
def test_few_samples_leave_out_no_task(tasks: int) -> None:
    """The longest tenth goes, unless it is all that a task has."""
    ends = np.full(40 * tasks, 9, np.int32)
    ends[-40:] = 30 + np.arange(40) // 2  # of the last task each pair is longer than the one before
    task = np.repeat(np.arange(tasks), 40).astype(np.int32)
    batch = TaskBatch(np.zeros((40 * tasks, 64), np.int32), ends, ends, ends, task)
    chosen = task_batch.few(batch, 80 if tasks < 20 else 160)
    assert set(task[chosen]) == set(range(tasks))
    assert ends[chosen].max() < ends.max() or tasks == 1
    np.testing.assert_array_equal(chosen[1::2], chosen[::2] + 1)


def test_slopes_of_what_is_to_be_matched_are_those_of_the_divergence(problem: Problem) -> None:
    """Gradients along a path, where samples have the model's answers, against differences."""
    evaluator, rng = problem.selection.on_rows(np.arange(8)), np.random.default_rng(0)
    share = rng.uniform(0.2, 0.8, 8).astype(np.float32)
    matching = dataclasses.replace(evaluator, batch=evaluator.batch._replace(foil_share=share))
    gates, way = np.full(evaluator.nodes, 0.5), rng.standard_normal(evaluator.nodes) * 0.004
    ends = np.stack([gates - way, gates + way]).astype(np.float32)
    for each, foil_share in ((evaluator, None), (matching, share)):
        slope = path_gradient(each, np.ones(1), np.ones(1), (gates, gates))
        logits = each.logits(Masks(ends))
        less, more = (np.mean(losses(one[:, 0] - one[:, 1], foil_share)) for one in logits)
        assert 2 * slope @ way == pytest.approx(more - less, rel=0.05), foil_share


@pytest.mark.parametrize("reached", [True, False])
def test_a_minimal_circuit_above_the_target_is_none(monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    support = SimpleNamespace(size=3, gates=np.ones(3))
    evaluator = SimpleNamespace(within_support=lambda gates: None)
    alone = SimpleNamespace(selection=evaluator, candidate=lambda support: Candidate(support, cast(Any, None), reached))
    alone.on_paper_terms = lambda: alone
    several = SimpleNamespace(families=("main", "other"), main_family="main")
    whole = SimpleNamespace(
        samples=several, settings=SimpleNamespace(refine_most=9), on_family={"main": alone}.__getitem__
    )
    monkeypatch.setattr(pipeline, "keep_support", lambda *given: support)
    monkeypatch.setattr(pipeline, "describe", lambda problem, candidate: "described")
    complete = Candidate(cast(Any, support), cast(Any, None), True)
    found: object = pipeline.minimal_circuit(cast(Any, whole), complete, cast(Any, None), progress=False)
    assert found == ("described" if reached else None)
