"""The mask search, rankings, calibration and greedy minimality."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import xlogy

from sparse_gpt import interruption
from sparse_gpt.circuits.evidence.curves import area
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.model_graph import edges_between
from sparse_gpt.circuits.nodes import from_vector, random_gates, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run import calibration, objective
from sparse_gpt.circuits.run.candidates import AT_A_TIME, CANDIDATES, Candidates
from sparse_gpt.circuits.run.edge_ablation import ablate_edges, edge_places
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, ROWS, Evaluator
from sparse_gpt.circuits.run.gated_model import binary_loss
from sparse_gpt.circuits.run.subcircuits import build_subcircuits
from sparse_gpt.circuits.run.task_batch import by_task_and_length, padded, rounded, rows, trimmed
from sparse_gpt.circuits.search import hyperparameters, mask_search, minimize, paper_search, pause, ranking
from sparse_gpt.config import PruneConfig
from sparse_gpt.costs.collectives import find_collectives
from sparse_gpt.interruption import Interrupted
from sparse_gpt.records.search import TargetPoint
from tests import circuits_model

CONFIG = circuits_model.config()
PRUNE = PruneConfig(steps=12, seeds=2, k_coefs=(0.0, 1e-2), batch_pairs=4, learning_rate=2e-2, init_noise_scale=0.1)


def _may_open() -> dict[str, np.ndarray]:
    may_open = searchable(CONFIG.model, circuits_model.params(CONFIG))
    return {site: value & (np.arange(value.shape[1]) % 5 > 0)[None, :] for site, value in may_open.items()}


def _find(
    hyperparameters: hyperparameters.Hyperparameters, steps: int = PRUNE.steps, paused: Path | None = None
) -> mask_search.SearchResult:
    one = jax.devices()[:1]
    return mask_search.search(_problem(steps), hyperparameters, progress=False, devices=one, paused=paused)


def _problem(steps: int) -> Problem:
    config = dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, steps=steps))
    return circuits_model.search_problem(config, _may_open(), circuits_model.batch(24, seed=1))


@pytest.mark.slow
def test_devices_share_the_searches_out_and_do_not_communicate() -> None:
    """Three searches over two devices: one is done twice, and left out of the result."""
    h = hyperparameters.Hyperparameters(*(value[:3] for value in hyperparameters.population(PRUNE)))
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(24, seed=1)

    def find(devices: int) -> mask_search.SearchResult:
        return mask_search.search(_problem(4), h, progress=False, devices=jax.devices()[:devices])

    alone, shared = find(1), find(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), shared, alone)
    np.testing.assert_array_equal(shared.open_nodes, alone.open_nodes)

    mesh = mask_search._mesh(4, jax.devices()[:2])
    states = paper_search.initial_states(hyperparameters.population(PRUNE), _may_open())
    batches = mask_search._batches(batch, 0, 2, PRUNE.batch_pairs)
    mask = {site: value.astype(np.float32) for site, value in _may_open().items()}
    given = (model, mask, hyperparameters.population(PRUNE), states, jnp.int32(0), batches)
    text = mask_search.advance.lower(*given, steps=4, mesh=mesh).compile().as_text()
    assert "num_partitions=2" in text
    assert find_collectives(text) == []


def test_searches_side_by_side_are_the_searches_alone() -> None:
    h = hyperparameters.population(PRUNE)._replace(
        learning_rate=np.array([1e-2, 2e-2, 3e-2, 4e-2], np.float32), beta2=np.array([0.9, 0.95, 0.99, 0.5], np.float32)
    )
    together = _find(h)
    for trial in range(4):
        alone = _find(hyperparameters.Hyperparameters(*(values[trial : trial + 1] for values in h)))
        np.testing.assert_allclose(together.loss[trial], alone.loss[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(together.open_nodes[trial], alone.open_nodes[0])
        np.testing.assert_allclose(to_vector(together.tau)[trial], to_vector(alone.tau)[0], atol=1e-3)


def test_taus_stay_within_the_clamp_and_unsearched_nodes_closed() -> None:
    h = hyperparameters.population(dataclasses.replace(PRUNE, learning_rate=0.5))
    found = to_vector(_find(h).tau)
    may_open = to_vector(_may_open()) > 0
    assert found[:, may_open].max() == 1
    assert found.min() == -1
    np.testing.assert_array_equal(found[:, ~may_open], -1)


def test_a_stopped_search_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each of two chunks; what is there for other searches, or is torn, is not gone on with."""
    h, paused = hyperparameters.population(PRUNE), tmp_path / "paused.npz"
    monkeypatch.setattr(mask_search, "CHUNK", PRUNE.steps // 2)
    straight = _find(h)
    for done in (PRUNE.steps // 2, PRUNE.steps):
        with monkeypatch.context() as reported:
            reported.setattr(interruption, "requested", lambda: True)
            reported.setattr(interruption, "check", _interrupt)
            with pytest.raises(Interrupted):
                _find(h, paused=paused)
        assert pause.read(paused, h, paper_search.initial_states(h, _may_open()))[0] == done
    jax.tree.map(np.testing.assert_array_equal, _find(h, paused=paused), straight)
    whole = tmp_path / "whole.npz"
    _find(h, paused=whole)
    with monkeypatch.context() as finished:  # what follows a search may be stopped too: nothing is searched again
        finished.setattr(mask_search, "advance", None)
        jax.tree.map(np.testing.assert_array_equal, _find(h, paused=whole), straight)
    other = h._replace(k_coef=2 * h.k_coef)
    assert pause.read(paused, other, paper_search.initial_states(other, _may_open()))[0] == 0
    paused.write_bytes(paused.read_bytes()[:100])
    jax.tree.map(np.testing.assert_array_equal, _find(h, paused=paused), straight)


def _interrupt() -> None:
    raise Interrupted


def test_a_price_on_nodes_closes_them() -> None:
    h = hyperparameters.population(dataclasses.replace(PRUNE, seeds=1, k_coefs=(0.0, 1.0)))
    free, costly = _find(h, steps=24).open_nodes[:, -1]
    assert costly < free / 2


def test_population_has_every_seed_with_every_price() -> None:
    h = hyperparameters.population(PRUNE)
    np.testing.assert_array_equal(h.seed, [0, 0, 1, 1])
    np.testing.assert_allclose(h.k_coef, [0, 1e-2, 0, 1e-2])
    assert {len(values) for values in h} == {4}


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    h = hyperparameters.Hyperparameters(*(np.float32(0.5) for _ in hyperparameters.Hyperparameters._fields))._replace(
        warmup=np.float32(0.2)
    )
    rates = np.array([paper_search.learning_rate(h, jnp.int32(step), 100) for step in range(100)])
    np.testing.assert_allclose(rates[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(rates[20:], 0.5 * np.arange(80, 0, -1) / 80, rtol=1e-5)


def test_batches_go_around_the_pairs() -> None:
    batch = circuits_model.batch(10, seed=2)
    stacked = mask_search._batches(batch, first=3, count=2, batch_pairs=2)
    np.testing.assert_array_equal(stacked.tokens[0], batch.tokens[[2, 3, 4, 5]])  # pairs 6, 7 of 5: 1, 2
    np.testing.assert_array_equal(stacked.answer[1], batch.answer[[6, 7, 8, 9]])


def test_ranking_breaks_ties_by_attribution_then_by_order() -> None:
    tau = np.array([1.0, 1.0, -1.0, 1.0, 0.5, 1.0])
    attribution = np.array([-0.1, -0.3, -9.0, -0.1, -9.0, -9.0])
    may_open = np.array([1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(ranking.rank(tau, attribution, may_open), [1, 0, 3, 4, 2])


@pytest.mark.parametrize("seed", range(5))
def test_bisection_finds_what_a_linear_scan_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = np.sort(rng.random((6, 41)))[:, ::-1]  # falling losses of sizes 0 .. 40
    curves[0] = 0.9  # never reaches
    tried: list[tuple[int, int]] = []

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        tried.extend(zip(which.tolist(), sizes.tolist(), strict=True))
        found = curves[which, sizes]
        return np.where(found > bounds, np.nextafter(bounds, 9), found)  # all that is promised above a bound

    limit = np.full(6, 40)
    sizes, reached = ranking.smallest_sizes(losses, rng.integers(1, 41, 6), limit, 0.3)
    assert not reached[0]
    assert reached[1:].all()
    np.testing.assert_array_equal(sizes[1:], [1 + np.flatnonzero(curve[1:] <= 0.3)[0] for curve in curves[1:]])
    assert len(set(tried)) == len(tried) < 6 * 10  # none twice, and none after it is settled


def test_sizes_that_do_not_reach_the_target_are_the_closest() -> None:
    curve = np.array([9, 5, 4, 3, 2, 6, 6, 6, 7.0])
    sizes, reached = ranking.smallest_sizes(lambda _, k, bounds: curve[k], np.array([2]), np.array([8]), 1.0)
    assert not reached[0]
    assert sizes[0] == 4


@pytest.mark.parametrize("seed", range(3))
def test_bisection_at_several_targets_between_known_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = np.sort(rng.random(41))[::-1]
    targets, tried = np.array([0.8, 0.5, 0.2, -1.0]), set()
    expected = np.array([1 + np.flatnonzero(curve[1:] <= t)[0] if t > 0 else 40 for t in targets])
    low = np.maximum(0, expected - 4)

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        del bounds
        tried.update((sizes - low[which]).tolist())
        return curve[sizes]

    sizes, reached = ranking.smallest_sizes(losses, np.minimum(expected + 2, 40), np.full(4, 40), targets, low)
    np.testing.assert_array_equal(sizes, expected)
    np.testing.assert_array_equal(reached, [True, True, True, False])
    assert min(tried) > 0 or low.min() == 0


def test_area_under_sizes_and_targets() -> None:
    def points(*edges: int) -> list[TargetPoint]:
        targets = zip((0.5, 0.05, 0.005), edges, strict=True)
        return [TargetPoint(target_loss=t, nodes=1, edges=e, task_loss=t, reached=e < 999) for t, e in targets]

    flat = area(points(100, 100, 100))
    assert flat.area == pytest.approx(4)
    assert flat.mean_edges == pytest.approx(100)
    rising = area(points(10, 100, 999))
    assert rising.area == pytest.approx(1.5)
    assert rising.lowest_target == 0.05
    once = area(points(10, 999, 999))
    assert (once.area, once.mean_edges, once.lowest_target) == (None, None, 0.5)


def test_size_grid() -> None:
    np.testing.assert_array_equal(ranking.size_grid(1), [1])
    grid = ranking.size_grid(500)
    assert (grid[0], grid[-1]) == (1, 500)
    assert (np.diff(grid) > 0).all()


def _logits(seed: int, count: int = 3, scale: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((count, 64, 2)).astype(np.float32)
    logits[..., 0] += 0.5 * scale
    return logits, np.tile(np.array([[0, 1], [1, 0], [2, 1], [3, 0]], np.int32), (16, 1))


def _lbfgs(
    logits: np.ndarray, index: np.ndarray, tokens: int, share: np.ndarray | float = 0.0, largest: float = 16.0
) -> float:
    """The loss at the calibration that the paper's method finds: L-BFGS, here within the bounds of the scale. Of
    answers that are to be matched, KL written out."""

    def loss(free: np.ndarray) -> float:
        shift = np.append(free[1:], 0.0)[index]
        corrected = free[0] * logits.astype(np.float64) + shift
        margin = corrected[:, 0] - corrected[:, 1]
        both = [(1 - share, -np.logaddexp(0, -margin)), (share, -np.logaddexp(0, margin))]
        return float(np.mean(sum(xlogy(p, p) - p * log_q for p, log_q in both)))

    bounds = [(0, largest)] + [(None, None)] * tokens
    found = scipy.optimize.minimize(
        loss, np.eye(1 + tokens)[0], method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}
    )
    return float(found.fun)


@pytest.mark.parametrize("largest", [16.0, 0.3])
def test_calibration_that_matches_the_models_answers(largest: float) -> None:
    """Against L-BFGS on KL; what is matched exactly has divergence 0."""
    logits, index = _logits(1)
    share = np.random.default_rng(2).uniform(0.01, 0.9, len(index)).astype(np.float32)
    scale, _shift, loss = calibration.fit_many(logits, np.minimum(index, 3), 3, share, largest, 100)
    assert (scale <= largest).all()
    for i, one in enumerate(logits):
        assert loss[i] == pytest.approx(_lbfgs(one, np.minimum(index, 3), 3, share, largest), abs=3e-5)
    own = np.stack([np.log1p(-share), np.log(share)], axis=1)
    np.testing.assert_allclose(objective.foil_shares(own), share, rtol=1e-4)
    np.testing.assert_allclose(objective.losses(own[:, 0] - own[:, 1], share), 0, atol=1e-6)
    assert calibration.fit_many(own[None], np.minimum(index, 3), 3, share)[2][0] < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_calibration_never_hurts_and_is_the_one_that_lbfgs_finds(seed: int) -> None:
    logits, index = _logits(seed)
    index = np.minimum(index, 3)  # 3 stands for a token that is not shifted
    scale, shift, loss = calibration.fit_many(logits, index, 3)
    for i, one in enumerate(logits):
        fitted = calibration.fit(one, index, 3)
        found = float(binary_loss(calibration.apply(fitted, one, index)))
        expected = _lbfgs(one, index, 3)
        assert expected - 3e-5 <= found <= expected + 1e-6  # whose gradients are differences
        assert found - 1e-6 <= loss[i] <= found + 1e-4
        assert loss[i] < binary_loss(one)
        newton = calibration.Calibration(np.float32(scale[i]), shift[i].astype(np.float32))
        np.testing.assert_allclose(binary_loss(calibration.apply(newton, one, index)), loss[i], rtol=1e-5)


def test_calibration_finds_what_little_tells_the_answers_apart() -> None:
    rng = np.random.default_rng(0)
    first = np.tile([True, False], 256)  # one answer or the other; the model always prefers the first by far
    difference = 20 + np.where(first, 0.25, -0.25) + 0.05 * rng.standard_normal(512)
    logits = np.stack([difference, np.zeros(512)], axis=1).astype(np.float32)
    logits, index = np.where(first[:, None], logits, logits[:, ::-1]), np.where(first[:, None], [0, 1], [1, 0])
    own = calibration.fit(logits[:256], index[:256], 2)
    assert binary_loss(calibration.apply(own, logits[:256], index[:256])) < 0.1
    assert binary_loss(calibration.apply(own, logits[256:], index[256:])) < 0.1
    assert binary_loss(logits) > 2


@pytest.mark.parametrize(("size", "bound"), [(0.01, calibration.MAX_SCALE), (-2.0, 0.0)])
def test_calibration_within_bounds(size: float, bound: float) -> None:
    """What hardly tells the answers apart is not blown up, what prefers the wrong one is not turned round; shifts are
    the best for that scale, by a search over a grid."""
    rng = np.random.default_rng(1)
    first = np.tile([True, False, True], 40)  # one answer twice as often, so a shift helps
    own = 3 + np.where(first, size, -size) + 0.1 * abs(size) * rng.standard_normal(120)
    logits = np.stack([own, np.zeros(120)], axis=1).astype(np.float32)
    logits, index = np.where(first[:, None], logits, logits[:, ::-1]), np.where(first[:, None], [0, 1], [1, 0])
    scale, shift, loss = calibration.fit_many(logits[None], index, 2)
    assert scale[0] == bound

    def at(difference: float) -> float:
        margin = np.where(first, 1, -1) * (bound * own + difference)
        return float(np.mean(np.logaddexp(0, -margin)))

    assert loss[0] == pytest.approx(min(at(x) for x in np.linspace(-60, 60, 120_001)), abs=1e-6)
    assert loss[0] == pytest.approx(at(shift[0, 0] - shift[0, 1]), abs=1e-6)
    fitted = calibration.fit(logits, index, 2)
    assert 0 <= fitted.scale <= calibration.MAX_SCALE
    assert binary_loss(calibration.apply(fitted, logits, index)) <= loss[0] + 1e-6


def test_calibration_of_perfect_answers_stays_finite() -> None:
    logits, index = _logits(0)
    index = np.zeros_like(index)
    logits = np.sort(np.abs(logits), axis=2)[..., ::-1]
    own = calibration.fit(logits[0], index, 0)
    assert np.isfinite(own.scale)
    scale, _, loss = calibration.fit_many(logits, index, 0)
    assert np.isfinite(scale).all()
    assert (loss < 0.1).all()


def test_choices_without_a_shift() -> None:
    batch = circuits_model.batch(6, seed=3)._replace(answer=np.array([1, 5, 9] * 2), foil=np.array([5, 1, 1] * 2))
    tokens = np.array([1, 5], np.int32)
    np.testing.assert_array_equal(calibration.choice_index(batch, tokens)[:3], [[0, 1], [1, 0], [2, 0]])
    assert not calibration.choice_index(batch, tokens[:0]).any()
    np.testing.assert_array_equal(calibration.shift_tokens(batch), [1, 5, 9])
    many = circuits_model.batch(200, seed=3)
    assert len(calibration.shift_tokens(many)) == 0


@pytest.mark.parametrize("seed", range(6))
def test_greedy_removal_ends_where_nothing_can_go(seed: int) -> None:
    """Losses with redundancy: a need is met by any one of several items, so what can go depends on what is gone."""
    rng = np.random.default_rng(seed)
    needs = [rng.choice(40, size=rng.integers(1, 6), replace=False) for _ in range(12)]
    price = rng.random(12)

    def losses(sets: np.ndarray) -> np.ndarray:
        unmet = np.stack([1 - sets[:, need].max(axis=1) for need in needs], axis=1)
        return unmet @ price

    target = 0.8
    costs = (lambda kept: rng.random(40)) if seed % 2 else None  # any order will do
    kept = minimize.minimize(losses, np.ones(40), target, costs)
    assert losses(kept[None])[0] <= target
    for item in np.flatnonzero(kept):
        smaller = kept.copy()
        smaller[item] = 0
        assert losses(smaller[None])[0] > target
    assert kept.sum() <= 12


def test_greedy_removal_tries_few_candidates() -> None:
    """Useless items go in long blocks; needed ones are tried about twice: in the sweep, and for the certificate."""
    needed, tried = np.arange(300) % 2 == 0, []

    def losses(sets: np.ndarray) -> np.ndarray:
        tried.append(len(sets))
        return (1 - sets[:, needed]).sum(axis=1)

    kept = minimize.minimize(losses, np.ones(300), 0.5, lambda kept: np.where(needed, 1.0, 0.0))
    np.testing.assert_array_equal(kept, needed)
    assert sum(tried) < 2.5 * needed.sum()


def test_greedy_removal_of_what_is_all_needed_or_all_useless() -> None:
    np.testing.assert_array_equal(minimize.minimize(lambda s: 20.0 - s.sum(axis=1), np.ones(20), 0.5), np.ones(20))
    assert minimize.minimize(lambda s: 0 * s.sum(axis=1), np.ones(20), 0.5).sum() == 0


def test_evaluation_in_chunks_is_evaluation_one_by_one() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(ROWS + 12, seed=4)
    evaluator = Evaluator(model, batch, NO_TOKENS)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(11)])
    run = jax.jit(lambda model, gates: model.answer_logits(gates, batch))
    expected = [run(model, from_vector(vector, CONFIG.model)) for vector in sets]
    np.testing.assert_allclose(evaluator.logits(Candidates(sets)), expected, rtol=1e-4, atol=1e-5)
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
    shorter = Evaluator(model, circuits_model.batch(12, seed=4), NO_TOKENS).logits(Candidates(sets))
    np.testing.assert_allclose(
        Evaluator(model, batch, NO_TOKENS).logits(Candidates(sets)), shorter, rtol=1e-4, atol=1e-4
    )


def test_rejection_by_the_first_samples_rejects_what_all_samples_would() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(2 * ROWS, seed=4)
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(20)])
    # Random answers: a circuit can hardly beat chance, ln 2; some of these come below it by more than others.
    evaluator = Evaluator(model, batch, NO_TOKENS)
    exact = evaluator(Candidates(sets)).calibrated
    each = np.where(np.arange(20) % 2, float(np.median(exact)), np.inf)  # a bound for every candidate
    for bound in (float(np.median(exact)), 0.4 * float(np.min(exact)), 10.0, each):
        found = evaluator.within(Candidates(sets), bound)
        np.testing.assert_array_equal(found <= bound, exact <= bound)
        np.testing.assert_allclose(found[exact <= bound], exact[exact <= bound], atol=1e-6)
    assert np.all(evaluator.within(Candidates(sets), 0.1) < 0.6 * exact)  # half of the samples: no more was computed


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
    exact, pieces = hard(Candidates(sets)).calibrated, []
    logits = Evaluator.logits

    def counted(self: Evaluator, candidates: Candidates) -> np.ndarray:
        pieces.append(len(self.batch.positions))
        return logits(self, candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "logits", counted)
        assert np.all(hard.within(Candidates(sets), 0.6) > 0.6)
        assert pieces == [ROWS]
        np.testing.assert_allclose(hard.within(Candidates(sets), np.max(exact) + 1e-3), exact, atol=1e-6)
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
        Candidates(np.ones((1, to_vector(model.ablation).size), np.float32)),
    )
    ordered = evaluator.hardest_first(one)
    np.testing.assert_array_equal(ordered.batch.tokens[:ROWS], batch.tokens[2 * ROWS : 3 * ROWS])
    np.testing.assert_array_equal(ordered.batch.tokens[2 * ROWS : 3 * ROWS], batch.tokens[:ROWS])
    np.testing.assert_array_equal(ordered.batch.tokens[3 * ROWS :], batch.tokens[3 * ROWS :])
    np.testing.assert_allclose(ordered(one).calibrated, evaluator(one).calibrated, rtol=1e-5)
    sets_of_values = {site: value[None] for site, value in model.ablation.items()}
    turning = dataclasses.replace(evaluator, gated=dataclasses.replace(model, draws=sets_of_values))
    assert turning.hardest_first(one) is turning


def test_what_is_known_is_of_the_same_samples_model_and_program() -> None:
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(20, seed=4)
    gates = to_vector(circuits_model.random_gates(CONFIG, 1))
    evaluator, one = Evaluator(model, batch, NO_TOKENS), Candidates(gates[None])
    first = evaluator.logits(one)
    first[:] = 7  # a caller's copy
    expected = evaluator.logits(Candidates(np.stack([gates, gates])))[:1]  # several are not looked up
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


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17])
def test_candidates_are_shared_out_evenly(count: int) -> None:
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(count)])
    chunks = list(Candidates(sets).chunks(CONFIG.model))
    counts = [each for _, _, each in chunks]
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= CANDIDATES
    assert len(chunks) % AT_A_TIME == 0 or len(chunks) == count
    gates = np.concatenate([to_vector(gates)[:each] for gates, _, each in chunks])
    np.testing.assert_array_equal(gates, sets)
    assert all(to_vector(gates)[each:].sum() == 0 for gates, _, each in chunks)


def test_random_circuits_have_the_same_counts() -> None:
    gates = circuits_model.random_gates(CONFIG, seed=5, share=0.2)
    drawn = from_vector(random_gates(to_vector(gates), CONFIG.model, 7, seed=0), CONFIG.model)
    for site, value in gates.items():
        np.testing.assert_array_equal(drawn[site].sum(axis=2), np.repeat(value.sum(axis=1)[None], 7, axis=0))
    assert len({vector.tobytes() for vector in to_vector(drawn)}) == 7
    gates["attn_k"] = gates["attn_q"]
    tied = from_vector(random_gates(to_vector(gates), CONFIG.model, 7, seed=0, tie_qk=True), CONFIG.model)
    np.testing.assert_array_equal(tied["attn_k"], tied["attn_q"])
    np.testing.assert_array_equal(tied["attn_k"].sum(axis=2), np.repeat(gates["attn_k"].sum(axis=1)[None], 7, axis=0))


def test_slopes_foretell_the_removal_of_one_item() -> None:
    """Against differences: a gate or an edge opened by a little less, under the same calibration."""
    model, batch = circuits_model.gated(CONFIG), circuits_model.batch(ROWS, seed=6)
    evaluator = Evaluator(model, batch, NO_TOKENS)
    gates = circuits_model.random_gates(CONFIG, seed=7)
    gates["attn_v"][:, [0, 4]] = 0
    every = edges_between(CONFIG.model, circuits_model.params(CONFIG), gates)
    places, vector = edge_places(CONFIG.model, every), to_vector(gates)
    nodes, edges = evaluator.slopes(Candidates(vector[None], places))
    own = calibration.Calibration(
        *(np.float32(x) for x in evaluator(Candidates(vector[None])).scale), np.zeros(0, np.float32)
    )

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
