"""Calibration of a circuit's two logits, and greedy removal, each against something slow."""

import numpy as np
import pytest
import scipy.optimize
from scipy.special import xlogy

from sparse_gpt.circuits.run import calibration, objective
from sparse_gpt.circuits.run.gated_model import binary_loss
from sparse_gpt.circuits.search import removal
from tests import circuits_model


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


@pytest.mark.slow
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
    kept = removal.minimize(losses, np.ones(40), target, costs)
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

    kept = removal.minimize(losses, np.ones(300), 0.5, lambda kept: np.where(needed, 1.0, 0.0))
    np.testing.assert_array_equal(kept, needed)
    assert sum(tried) < 2.5 * needed.sum()


def test_greedy_removal_of_what_is_all_needed_or_all_useless() -> None:
    np.testing.assert_array_equal(removal.minimize(lambda s: 20.0 - s.sum(axis=1), np.ones(20), 0.5), np.ones(20))
    assert removal.minimize(lambda s: 0 * s.sum(axis=1), np.ones(20), 0.5).sum() == 0
