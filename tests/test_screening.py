"""Removal of many nodes at once by a prediction: what it takes, and that the losses it verifies are kept."""

import numpy as np
import pytest

from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.search import removal
from tests import circuits_model

CONFIG = circuits_model.config()


class Margins:
    """Samples whose margins are linear in the items, but for what goes wrong when two certain items both go."""

    def __init__(self, items: int = 400, trap: float = 0.0):
        rng = np.random.default_rng(3)
        self.slopes = rng.normal(0, 0.002, (64, items))
        self.slopes[:, rng.choice(items, 20, replace=False)] += 0.25  # what the task needs
        self.pair, self.trap, self.tried, self.gradients = (11, 12), trap, 0, 0

    def margin(self, sets: np.ndarray) -> np.ndarray:
        both_gone = (1 - sets[:, self.pair[0]]) * (1 - sets[:, self.pair[1]])
        return sets @ self.slopes.T - self.trap * both_gone[:, None]

    def losses(self, sets: np.ndarray) -> np.ndarray:
        self.tried += len(sets)
        return np.asarray(np.mean(np.logaddexp(0, -self.margin(sets)), axis=1))

    def given(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        self.gradients += 1
        return self.margin(kept[None])[0], self.slopes, None


@pytest.mark.parametrize("trap", [0.0, 50.0])
def test_screening_leaves_what_is_needed_within_a_few_gradients(trap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the trap, what is predicted fails until the share is small enough to part the two items."""
    problem = Margins(trap=trap)
    monkeypatch.setattr(removal, "FEW", 250)
    stopped = removal.screen(problem.losses, np.ones(400), 0.09, problem.given)
    assert stopped.sum() >= 250, "what is left is to be tried, not predicted"
    monkeypatch.setattr(removal, "FEW", 32)
    problem = Margins(trap=trap)
    left = removal.screen(problem.losses, np.ones(400), 0.09, problem.given)
    assert problem.losses(left[None])[0] <= 0.09
    assert left.sum() < (80 if trap == 0 else 300)
    assert problem.tried + problem.gradients < 40
    end = removal.minimize(problem.losses, left, 0.09)
    alone = problem.losses(removal._without(end, [np.array([i]) for i in np.flatnonzero(end)]))
    assert problem.losses(end[None])[0] <= 0.09 < alone.min()


def test_screening_of_what_is_above_the_target_leaves_it() -> None:
    problem = Margins()
    np.testing.assert_array_equal(removal.screen(problem.losses, np.ones(400), 1e-9, problem.given), np.ones(400))


def test_harmful_items_are_tried_again_only_when_nothing_else_is_left() -> None:
    """Of forty items ten can go: the twenty that never can are tried in the first round and in the last."""
    tried = np.zeros(40, int)

    def losses(sets: np.ndarray) -> np.ndarray:
        gone = 1 - sets
        single = sets.sum(axis=1) == sets.sum(axis=1).max()
        if len(sets) > 8:
            tried[:] += (gone[single].sum(axis=0) == 1).astype(int)
        return gone[:, :20].sum(axis=1) * 0.1 + gone[:, 20:].sum(axis=1) * 5.0

    kept = removal.minimize(losses, np.ones(40), 1.0)
    assert kept[20:].all()
    assert kept[:20].sum() == 10
    assert tried[20:].max() <= 2


@pytest.mark.slow
def test_slopes_of_margins_are_those_of_the_loss() -> None:
    """Per sample, so that their mean, weighted by how wrong each sample is, is the gradient of the calibrated loss."""
    evaluator = Evaluator(circuits_model.gated(CONFIG), circuits_model.batch(18, seed=8), NO_TOKENS)
    gates = np.ones(evaluator.nodes, np.float32)
    margin, slopes, foil_share = evaluator.margins(gates)
    assert foil_share is None
    assert slopes.shape == (18, evaluator.nodes)
    expected = evaluator.slopes(Masks(gates[None]))[0]
    found = -np.mean(slopes / (1 + np.exp(margin))[:, None], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
