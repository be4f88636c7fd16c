"""What a circuit may have above its target where the model itself is near it, or above (prune.above_model)."""

import dataclasses

import numpy as np
import pytest

from sparse_gpt.circuits import find_circuit
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run import objective
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, ROWS, Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.samples import FamilySamples, TaskSamples, mixture
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.search import fresh, mask_search
from tests import circuits_model, ground_truth

CONFIG = circuits_model.config()
ABOVE, TARGET = 0.05, 0.5


def _solvable(batch: TaskBatch, share: float) -> TaskBatch:
    """The batch with what the whole model answers as the answer in a share of its rows."""
    logits = Evaluator(circuits_model.gated(CONFIG), batch, NO_TOKENS).full_logits()
    wrong = (logits[:, 0] < logits[:, 1]) & (np.random.default_rng(0).random(len(logits)) < share)
    return batch._replace(
        answer=np.where(wrong, batch.foil, batch.answer), foil=np.where(wrong, batch.answer, batch.foil)
    )


def _evaluator(tasks: int, upper_share: float = 0.0) -> Evaluator:
    batch = _solvable(circuits_model.batch(3 * ROWS, seed=4), 0.7)
    if tasks > 1:
        batch = batch._replace(task=(np.arange(3 * ROWS) // ROWS % tasks).astype(np.int32))
    return Evaluator(circuits_model.gated(CONFIG), batch, NO_TOKENS, upper_share=upper_share)


def test_each_task_may_have_so_much_more_than_the_model() -> None:
    plain = _evaluator(tasks=3)
    found = plain.allowing(ABOVE, TARGET).allowance
    margins = np.diff(plain.full_logits())[:, 0].astype(np.float64)
    expected = [np.log1p(np.exp(margins[plain.batch.task == i])).mean() + ABOVE - TARGET for i in range(3)]
    assert max(expected) > 0
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-6)
    assert plain.allowing(ABOVE, 10.0).allowance == (0, 0, 0)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("upper_share", [0.0, 0.95])
def test_losses_are_less_the_allowance_and_bounds_are_kept(tasks: int, upper_share: float) -> None:
    plain = _evaluator(tasks, upper_share)
    allowance = (0.3,) if tasks == 1 else (0.6, 0.3, 0.5)
    allowing = dataclasses.replace(plain, allowance=allowance)
    some = Masks(np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(20)]))
    exact, found = plain(some), allowing(some).loss
    for i, logits in enumerate(exact.logits):
        calibrated = exact.calibration.scale[i] * logits
        each = objective.losses_by_task(calibrated, plain.batch, upper_share)
        assert found[i] == pytest.approx(max(each[task] - allowance[task] for task in each), abs=1e-6)
    bound = float(np.median(found))
    within = allowing.losses_up_to(some, bound)
    np.testing.assert_array_equal(within <= bound, found <= bound)
    np.testing.assert_allclose(within[found <= bound], found[found <= bound], atol=1e-6)
    few, fewer = allowing.on_few(64)(some).loss, plain.on_few(64)(some).loss
    assert np.all(few <= fewer + 1e-6)
    assert np.all(few >= fewer - max(allowance) - 1e-6)


def _marks(margin: float, above: float, search: str = "path") -> Problem:
    """The marks of the model made by hand, in two families; in the second the model itself answers a tenth wrong."""
    prune = dataclasses.replace(
        ground_truth.PRUNE,
        steps=20,
        random_draws=2,
        search=search,
        selection_margin=margin,
        above_model=above,
        target_loss=2.0,
    )
    config = ground_truth.config(prune)
    parts = {}
    for i, name in enumerate(("main", "mislabeled")):
        batches = [ground_truth.batch(split, 64, 10 * i + j) for j, split in enumerate(("train", "train", "heldout"))]
        parts[name] = FamilySamples(*(_mislabeled(batch) if i else batch for batch in batches))
    samples = TaskSamples(*parts["main"], names=("marks",))
    model = LoadedModel(config, ground_truth.params(config.model), "by hand")
    return Problem.build(model, mixture(samples, parts))


def _mislabeled(batch: TaskBatch) -> TaskBatch:
    turned = np.arange(len(batch.answer)) // 2 % 10 == 0
    return batch._replace(
        answer=np.where(turned, batch.foil, batch.answer), foil=np.where(turned, batch.answer, batch.foil)
    )


@pytest.mark.slow
def test_a_circuit_is_found_where_the_model_itself_misses_the_target() -> None:
    problem = _marks(margin=0.1, above=0.05)
    first, second = problem.selection.allowance
    assert (first, second > 0.1) == (0, True)
    found = find_circuit(problem, progress=False)
    assert found.reached
    assert list(found.search.allowed) == ["mislabeled"]
    assert found.search.allowed["mislabeled"] == pytest.approx(problem.selection_target + second)
    assert len(found.circuit.edges) < 40
    assert found.search.stages[-1].edges == len(found.circuit.edges)
    assert _marks(margin=0.1, above=0.05, search="paper").selection.allowance == ()


def test_natural_text_may_have_more() -> None:
    """On the family that is made of text, whatever it is called, up to what is asked for; nowhere else."""
    plain = _marks(margin=0.1, above=0.05)
    samples = dataclasses.replace(plain.samples, natural="mislabeled")
    first, model = plain.selection.allowance

    def allowed(above: float, samples: TaskSamples) -> tuple[float, ...]:
        prune = dataclasses.replace(plain.settings, above_natural=above)
        config = ground_truth.config(prune)
        made = Problem.build(LoadedModel(config, ground_truth.params(config.model), "by hand"), samples)
        fresh = made.allowing(dataclasses.replace(made.selection, allowance=()), 10.0)
        assert fresh.allowance == (0, above if samples.natural else 0)
        return made.selection.allowance

    assert allowed(model + 0.5, samples) == (first, model + 0.5)
    assert allowed(model / 2, samples) == (first, model), "of two allowances the larger one"
    assert allowed(0.5, plain.samples) == (first, model)


def test_a_search_aims_at_what_selection_allows() -> None:
    problem = _marks(margin=0.1, above=0.05)
    np.testing.assert_allclose(mask_search._aim(problem).allowance, problem.selection.allowance, rtol=1e-6)
    none = dataclasses.replace(problem, selection=dataclasses.replace(problem.selection, allowance=()))
    np.testing.assert_array_equal(mask_search._aim(none).allowance, [0, 0])


def test_the_target_is_reached_where_the_allowance_says_so() -> None:
    problem = _marks(margin=0.1, above=0.0)
    prune = dataclasses.replace(problem.settings, target_loss=0.2)
    model = LoadedModel(dataclasses.replace(problem.model.config, prune=prune), problem.model.params)
    strict = dataclasses.replace(problem, model=model)
    whole = Support(problem.graph, problem.searchable_nodes)
    losses = objective.losses_by_task(problem.selection.full_logits(), problem.selection.batch)
    assert losses[0] < 0.2 < losses[1]
    assert strict.candidate(whole).reached
    paper = dataclasses.replace(model.config, prune=dataclasses.replace(prune, search="paper"))
    none = dataclasses.replace(strict, selection=dataclasses.replace(strict.selection, allowance=()))
    none = dataclasses.replace(none, model=dataclasses.replace(model, config=paper))
    assert not none.candidate(whole).reached, "the paper's search knows no allowance"


def test_samples_that_join_and_fresh_ones_have_allowances_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _marks(margin=0.1, above=0.0)
    wrong = rows(problem.selection.batch, np.flatnonzero(problem.selection.batch.task == 1)[:2])
    larger = problem.selecting_on(wrong).selection
    assert larger.allowance == larger.allowing(0.0, problem.selection_target).allowance
    assert larger.allowance[1] > problem.selection.allowance[1]
    whole, seen = Support(problem.graph, np.ones(problem.searchable_nodes.size, np.float32)), []

    def accept(one: Masks, evaluator: Evaluator, checked: Evaluator) -> tuple[float, np.ndarray]:
        seen.append((checked.allowance, checked.upper_share))
        return 0.0, np.zeros(0, int)

    monkeypatch.setattr(fresh, "_loss", accept)
    monkeypatch.setattr(fresh, "fresh_samples", lambda *_: iter([_mislabeled(problem.heldout.batch)]))
    fresh.minimized_until_it_holds(problem, whole, problem.selection, lambda *_: {"nodes": whole}, print)
    means = Evaluator(problem.gated, _mislabeled(problem.heldout.batch), NO_TOKENS)
    assert seen == [(means.allowing(0.0, problem.settings.target_loss).allowance, 0.0)]
    assert max(seen[0][0]) > 0
