"""Losses of masks: in chunks, side by side, within bounds, looked up, and how they change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import from_vector, to_vector
from sparse_gpt.circuits.run import calibration, packed_batch
from sparse_gpt.circuits.run import evaluator as evaluation
from sparse_gpt.circuits.run.edge_ablation import ablate_edges, edge_places
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, ROWS, Evaluator
from sparse_gpt.circuits.run.gated_model import binary_loss
from sparse_gpt.circuits.run.masks import AT_A_TIME, PER_CALL, Masks
from sparse_gpt.circuits.run.subcircuits import build_subcircuits
from sparse_gpt.circuits.run.task_batch import by_task_and_length, padded, rounded, rows, trimmed
from tests import circuits_model

CONFIG = circuits_model.config()


@pytest.mark.slow
def test_evaluation_in_chunks_is_evaluation_one_by_one() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(ROWS + 12, seed=4)
    evaluator = Evaluator(model, batch, NO_TOKENS)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(11)])
    run = jax.jit(lambda model, gates: model.answer_logits(gates, batch))
    expected = [run(model, from_vector(vector, CONFIG.model)) for vector in sets]
    np.testing.assert_allclose(evaluator.logits(Masks(sets)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        evaluator.full_logits(), jax.jit(lambda m: m.answer_logits(None, batch))(model), atol=1e-4
    )


def test_short_samples_are_not_computed_at_full_width() -> None:
    assert [rounded(length, 90) for length in (1, 32, 33, 70)] == [32, 32, 64, 90]
    model, batch = circuits_model.gated(CONFIG), padded(circuits_model.batch(12, seed=4), 40)
    assert trimmed(batch).tokens.shape == (12, 32)  # positions are below 8
    assert trimmed(batch._replace(positions=batch.positions + 24)).tokens.shape == (12, 32)
    assert trimmed(batch._replace(positions=batch.positions + 30)).tokens.shape == (12, 40)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(3)])
    shorter = Evaluator(model, circuits_model.batch(12, seed=4), NO_TOKENS).logits(Masks(sets))
    np.testing.assert_allclose(Evaluator(model, batch, NO_TOKENS).logits(Masks(sets)), shorter, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("draws", [None, 3])
def test_the_whole_model_takes_few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch, draws: int | None) -> None:
    monkeypatch.setattr(packed_batch, "PART", 60)
    monkeypatch.setattr(packed_batch, "CELLS", 16 * 14)
    monkeypatch.setattr(evaluation, "ROWS", 30)
    model, batch = circuits_model.gated(CONFIG), padded(circuits_model.batch(64, seed=4), 16)
    batch = batch._replace(positions=np.r_[np.full(20, 1), np.full(5, 15), batch.positions[25:]].astype(np.int32))
    if draws:
        rng = np.random.default_rng(0)
        values = {site: rng.standard_normal((draws, *value.shape)) for site, value in model.ablation.items()}
        model = dataclasses.replace(
            model, draws={site: jnp.asarray(each, jnp.float32) for site, each in values.items()}
        )
    evaluator = Evaluator(model, batch, NO_TOKENS)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(2)])
    pieces = evaluator._pieces(sets)
    assert {(*piece.batch.tokens.shape, *piece.batch.packing.grid.shape) for piece in pieces} == {(1, 60, 14, 16)}
    assert sum(piece.samples for piece in pieces) == 64
    assert pieces[0].samples == 14, "as many as the grid has"
    assert sum(piece.samples for piece in pieces[:3]) >= 25, "long prompts are few at a time"
    run = jax.jit(lambda model, gates, batch: model.answer_logits(gates, batch))
    for i, found in enumerate(evaluator.logits(Masks(sets))):
        own = [model.with_ablation_set(number) for number in range(3)]
        expected = [
            run(own[n], from_vector(sets[i], CONFIG.model), rows(batch, slice(30 * n, 30 * n + 30))) for n in range(3)
        ]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_lengths_that_prompts_are_laid_out_in() -> None:
    def lengths(context: int) -> list[int]:
        return [packed_batch.laid_out(length, context) for length in (1, 16, 32, 33, 64, 65, 90, 100)]

    assert lengths(90) == [32, 32, 32, 64, 64, 90, 90, 100]
    assert lengths(16) == [16, 16, 32, 33, 64, 65, 90, 100], "what does not fit is not cut"


@pytest.mark.slow
def test_rejection_by_the_first_samples_rejects_what_all_samples_would() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(2 * ROWS, seed=4)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(20)])
    # Random answers: a circuit can hardly beat chance, ln 2; some of these come below it by more than others.
    evaluator = Evaluator(model, batch, NO_TOKENS)
    exact = evaluator(Masks(sets)).loss
    each = np.where(np.arange(20) % 2, float(np.median(exact)), np.inf)  # a bound for every candidate
    for bound in (float(np.median(exact)), 0.4 * float(np.min(exact)), 10.0, each):
        found = evaluator.losses_up_to(Masks(sets), bound)
        np.testing.assert_array_equal(found <= bound, exact <= bound)
        np.testing.assert_allclose(found[exact <= bound], exact[exact <= bound], atol=1e-6)
    assert np.all(evaluator.losses_up_to(Masks(sets), 0.1) < 0.6 * exact)  # half of the samples: no more was computed


@pytest.mark.slow
def test_candidates_whose_upper_end_is_above_the_bound_are_rejected() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(3 * ROWS, seed=4)
    wrong = np.diff(Evaluator(model, batch, NO_TOKENS).full_logits())[:, 0] > 0
    swapped = np.where(wrong, (batch.foil, batch.answer), (batch.answer, batch.foil))
    batch = batch._replace(answer=swapped[0], foil=swapped[1])  # what the whole model answers
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(20)])
    for task in (None, np.repeat(np.arange(3), ROWS).astype(np.int32)):
        means = Evaluator(model, batch._replace(task=task), NO_TOKENS)
        upper = dataclasses.replace(means, upper_share=0.95)
        exact, mean = upper(Masks(sets)).loss, means(Masks(sets)).loss
        bound = float(np.median(exact))
        assert np.all(exact >= mean - 1e-6)
        assert np.any((mean <= bound) & (exact > bound))
        found = upper.losses_up_to(Masks(sets), bound)
        np.testing.assert_array_equal(found <= bound, exact <= bound)
        np.testing.assert_allclose(found[exact <= bound], exact[exact <= bound], atol=1e-6)
        few = upper.on_few(64)(Masks(sets)).loss
        np.testing.assert_array_equal(few, means.on_few(64)(Masks(sets)).loss)


def test_one_task_that_is_too_hard_rejects_a_candidate_at_its_own_samples() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(4 * ROWS, seed=4)
    full = Evaluator(model, batch, NO_TOKENS).full_logits()
    wrong = full[:, 0] < full[:, 1]
    batch = batch._replace(
        answer=np.where(wrong, batch.foil, batch.answer), foil=np.where(wrong, batch.answer, batch.foil)
    )
    task = np.repeat([1, 0, 2, 3], ROWS).astype(np.int32)
    answer, foil = (np.where(task == 1, *pair) for pair in ((batch.foil, batch.answer), (batch.answer, batch.foil)))
    hard = Evaluator(model, batch._replace(answer=answer, foil=foil, task=task), NO_TOKENS)  # task 1 is all wrong
    sets = np.stack([np.ones(hard.nodes, np.float32), to_vector(circuits_model.random_gates(CONFIG, 1))])
    exact, pieces = hard(Masks(sets)).loss, []
    logits = Evaluator.logits

    def counted(self: Evaluator, masks: Masks) -> np.ndarray:
        pieces.append(len(self.batch.positions))
        return logits(self, masks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "logits", counted)
        assert np.all(hard.losses_up_to(Masks(sets), 0.6) > 0.6)
        assert pieces == [ROWS]
        np.testing.assert_allclose(hard.losses_up_to(Masks(sets), np.max(exact) + 1e-3), exact, atol=1e-6)
    ordered = by_task_and_length(rows(hard.batch, np.random.default_rng(0).permutation(2 * ROWS).repeat(2)))
    assert np.all(np.diff(ordered.task) >= 0)
    assert all(
        np.all(np.diff(ordered.positions[ordered.task == each].reshape(-1, 2).max(axis=1)) >= 0) for each in range(4)
    )


def test_hardest_samples_come_first_and_change_no_loss() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(3 * ROWS + 10, seed=4)
    full = Evaluator(model, batch, NO_TOKENS).full_logits()
    wrong = full[:, 0] < full[:, 1]
    batch = batch._replace(
        answer=np.where(wrong, batch.foil, batch.answer), foil=np.where(wrong, batch.answer, batch.foil)
    )
    order = np.argsort(np.abs(full[: 3 * ROWS, 0] - full[: 3 * ROWS, 1]))[::-1]  # the easiest ones first
    batch = rows(batch, np.append(order, np.arange(3 * ROWS, 3 * ROWS + 10)))
    evaluator, one = (
        Evaluator(model, batch, NO_TOKENS),
        Masks(np.ones((1, to_vector(model.ablation).size), np.float32)),
    )
    ordered = evaluator.hardest_first(one)
    np.testing.assert_array_equal(ordered.batch.tokens[:ROWS], batch.tokens[2 * ROWS : 3 * ROWS])
    np.testing.assert_array_equal(ordered.batch.tokens[2 * ROWS : 3 * ROWS], batch.tokens[:ROWS])
    np.testing.assert_array_equal(ordered.batch.tokens[3 * ROWS :], batch.tokens[3 * ROWS :])
    np.testing.assert_allclose(ordered(one).loss, evaluator(one).loss, rtol=1e-5)
    sets_of_values = {site: value[None] for site, value in model.ablation.items()}
    turning = dataclasses.replace(evaluator, gated=dataclasses.replace(model, draws=sets_of_values))
    assert turning.hardest_first(one) is turning


@pytest.mark.slow
def test_what_is_known_is_of_the_same_samples_model_and_program() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(20, seed=4)
    gates = to_vector(circuits_model.random_gates(CONFIG, 1))
    evaluator, one = Evaluator(model, batch, NO_TOKENS), Masks(gates[None])
    first = evaluator.logits(one)
    first[:] = 7  # a caller's copy
    expected = evaluator.logits(Masks(np.stack([gates, gates])))[:1]  # several are not looked up
    np.testing.assert_array_equal(evaluator.logits(one), expected)
    fewer = dataclasses.replace(evaluator, batch=rows(batch, slice(10)))
    np.testing.assert_allclose(fewer.logits(one), expected[:, :10], rtol=1e-5)
    others = model.replace(ablation={site: value + 1 for site, value in model.ablation.items()})
    assert np.abs(evaluator.of(others).logits(one) - expected).max() > 1e-3
    within = dataclasses.replace(evaluator, subcircuits=build_subcircuits(model, from_vector(gates, CONFIG.model)))
    np.testing.assert_allclose(within.logits(one), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(within.full_logits(), evaluator.full_logits())  # not within: the whole model runs it
    assert len(evaluator.known) == 4
    np.testing.assert_allclose(within.of(others).logits(one), evaluator.of(others).logits(one))


@pytest.mark.slow
def test_longer_samples_have_room_within_a_support() -> None:
    model, short = circuits_model.gated(CONFIG), circuits_model.batch(20, seed=4)
    gates = to_vector(circuits_model.random_gates(CONFIG, 1))
    long = padded(circuits_model.batch(ROWS, seed=5), 16)
    long = long._replace(positions=np.full(ROWS, 15, np.int32))
    within = Evaluator(
        model, padded(short, 16), NO_TOKENS, subcircuits=build_subcircuits(model, from_vector(gates, CONFIG.model))
    )
    one = Masks(gates[None])
    for other in (within.on(long), within.on(long).on(padded(short, 16))):
        expected = Evaluator(model, other.batch, NO_TOKENS).logits(one)
        np.testing.assert_allclose(other.logits(one), expected, rtol=1e-4, atol=1e-4)
    both = within.and_on(long)
    assert len(both.batch.positions) == ROWS + 20
    np.testing.assert_array_equal(both.batch.positions[20:], long.positions)  # pairs by length
    expected = Evaluator(model, both.batch, NO_TOKENS).logits(one)
    np.testing.assert_allclose(both.logits(one), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_support_is_widened_for_what_it_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "WORTH_COMPILING", 0)
    monkeypatch.setattr(evaluation, "FEW", 1.0)
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(20, seed=4)
    larger = to_vector(circuits_model.random_gates(CONFIG, 1, 0.6))
    smaller = larger * (np.arange(len(larger)) % 3 > 0)
    whole = Evaluator(model, batch, NO_TOKENS)
    assert whole.widened(larger) is whole
    within = whole.within_support(smaller)
    assert within.widened(smaller) is within
    widened = within.widened(larger)
    for evaluator, holds in ((within, False), (widened, True)):
        assert evaluator.subcircuits is not None
        assert evaluator.subcircuits.holds(larger[None]).all() == holds
    expected = whole.logits(Masks(larger[None]))
    np.testing.assert_allclose(widened.logits(Masks(larger[None])), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_each_candidate_runs_in_the_fastest_model_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(ROWS + 20, seed=4)
    support = to_vector(circuits_model.random_gates(CONFIG, 1, 0.6))
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(2, 9)])
    sets[::2] *= support
    whole = Evaluator(model, batch, NO_TOKENS)
    within = dataclasses.replace(
        whole, subcircuits=build_subcircuits(model, from_vector(support, CONFIG.model)), room=evaluation.room_of(batch)
    )
    ran: list[tuple[bool, int]] = []
    pieces = Evaluator._pieces

    def counted(self: Evaluator, gates: np.ndarray) -> list[evaluation.Piece]:
        found = pieces(self, gates)
        ran.extend((piece.model is self.subcircuits, len(gates)) for piece in found)
        return found

    expected = whole.logits(Masks(sets))
    monkeypatch.setattr(Evaluator, "_pieces", counted)
    np.testing.assert_allclose(within.logits(Masks(sets)), expected, rtol=1e-4, atol=1e-4)
    assert sorted(ran) == [(False, 3)] * 2 + [(True, 4)] * 2
    places = edge_places(CONFIG.model, ModelGraph(CONFIG.model, circuits_model.params(CONFIG)).edges(sets[0])[:9])
    kept = (np.random.default_rng(0).random((7, 9)) < 0.5).astype(np.float32)
    cut = Masks(sets, places, kept)
    np.testing.assert_allclose(within.logits(cut), whole.logits(cut), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17])
def test_candidates_are_shared_out_evenly(count: int) -> None:
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(count)])
    chunks = list(Masks(sets).chunks(CONFIG.model))
    counts = [each for _, _, each in chunks]
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= PER_CALL
    assert len(chunks) % AT_A_TIME == 0 or len(chunks) == count
    gates = np.concatenate([to_vector(gates)[:each] for gates, _, each in chunks])
    np.testing.assert_array_equal(gates, sets)
    assert all(to_vector(gates)[each:].sum() == 0 for gates, _, each in chunks)


@pytest.mark.slow
def test_slopes_foretell_the_removal_of_one_item() -> None:
    """Against differences: a gate or an edge opened by a little less, under the same calibration."""
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(ROWS, seed=6)
    evaluator = Evaluator(model, batch, NO_TOKENS)
    gates = circuits_model.random_gates(CONFIG, seed=7)
    gates["attn_v"][:, [0, 4]] = 0
    every = ModelGraph(CONFIG.model, circuits_model.params(CONFIG)).edges(to_vector(gates))
    places, vector = edge_places(CONFIG.model, every), to_vector(gates)
    nodes, edges = evaluator.slopes(Masks(vector[None], places))
    (scale,) = evaluator(Masks(vector[None])).calibration.scale
    own = calibration.Calibration(np.float32(scale), np.zeros(0, np.float32))

    @jax.jit
    def loss(gates: dict[str, jax.Array], kept: jax.Array) -> jax.Array:
        logits = ablate_edges(model, gates, jnp.asarray(places), kept).answer_logits(gates, batch)
        return binary_loss(calibration.apply(own, logits, jnp.zeros((ROWS, 2), jnp.int32)))

    kept, small = np.ones(len(places), np.float32), np.float32(2e-2)
    for edge in np.argsort(-np.abs(edges))[:5]:
        up, down = kept.copy(), kept.copy()
        up[edge] += small
        down[edge] -= small
        np.testing.assert_allclose(
            (loss(gates, up) - loss(gates, down)) / (2 * small), edges[edge], rtol=0.02, atol=1e-3
        )
    for node in np.argsort(-np.abs(nodes * vector))[:5]:
        up, down = vector.copy(), vector.copy()
        up[node] += small
        down[node] -= small
        difference = loss(from_vector(up, CONFIG.model), kept) - loss(from_vector(down, CONFIG.model), kept)
        np.testing.assert_allclose(difference / (2 * small), nodes[node], rtol=0.02, atol=1e-3)
