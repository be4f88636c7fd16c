"""Removal of items from any set, by losses and by predictions of them that are right, wrong, or right nearby."""

import itertools

import numpy as np
import pytest

from sparse_gpt.circuits.search import removal


def _losses(sets: np.ndarray) -> np.ndarray:
    """Each of the first ten items costs 1, the others 0.01."""
    gone = 1 - sets
    return np.asarray(gone[:, :10].sum(axis=1) + 0.01 * gone[:, 10:].sum(axis=1))


def _thinned(predicted: removal.Losses, target: float = 0.5) -> tuple[np.ndarray, int]:
    rounds = 0

    def predict(kept: np.ndarray, bound: float) -> tuple[removal.Losses, removal.Costs]:
        nonlocal rounds
        rounds += 1
        return predicted, lambda kept: 1 - np.arange(len(kept)) / len(kept)  # the last items are the cheapest

    left = removal.remove_many(_losses, np.ones(60), target, predict)
    return removal.thin(_losses, left, target, predict), rounds


def test_a_right_prediction_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    left, _ = _thinned(_losses)
    assert _losses(left[None])[0] <= 0.5
    assert left.sum() == 12  # two are left to the room below the target
    monkeypatch.setattr(removal, "ROOM", 0.0)
    assert _thinned(_losses)[0].sum() == 10
    monkeypatch.setattr(removal, "_many_at_once", lambda *args: None)
    left, of_sweeps = _thinned(_losses)
    assert left.sum() == 10
    monkeypatch.setattr(removal, "STRETCH", 1.0)
    left, of_one_stretch = _thinned(_losses)
    assert left.sum() == 10
    assert of_one_stretch == 3  # one removes nothing, the second sweep finds nothing more
    assert of_sweeps > of_one_stretch


def test_sweeps_predict_anew_before_they_have_gone_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where predictions see three quarters of what is lost since they were made, little is done in vain."""
    asked = 0

    def predict(kept: np.ndarray, bound: float) -> tuple[removal.Losses, removal.Costs]:
        here = _losses(kept[None])[0]

        def guess(sets: np.ndarray) -> np.ndarray:
            nonlocal asked
            asked += len(sets)
            return np.asarray(here + 0.75 * (_losses(sets) - here))

        return guess, lambda kept: 1 - np.arange(len(kept)) / len(kept)

    def needed() -> int:
        nonlocal asked
        asked = 0
        found = removal.thin(_losses, np.ones(400), 3.0, predict)
        assert _losses(found[None])[0] <= 3.0
        assert found.sum() <= 400 - 290
        return asked

    in_stretches = needed()
    monkeypatch.setattr(removal, "STRETCH", 1.0)
    assert in_stretches < needed()


def _removed_at_once(costs: np.ndarray, target: float = 0.5) -> list[np.ndarray]:
    nested = [np.ones(60, np.float32)]
    removal._many_at_once(_losses, nested[0], target, lambda kept: costs, nested.append)
    return nested


def test_many_items_go_before_any_is_tried_alone() -> None:
    """The smallest estimates go first, and what goes together costs a share of the slack, no more."""
    costs = np.where(np.arange(60) < 10, 1, np.linspace(0.02, 0.01, 60))
    nested = _removed_at_once(costs)
    assert len(nested) == 1 + removal.REMOVALS
    for before, after in itertools.pairwise(nested):
        gone = np.flatnonzero(before - after)
        assert len(gone) > 1
        np.testing.assert_array_equal(gone, np.flatnonzero(before)[-len(gone) :])
        loss, rise = _losses(before[None])[0], _losses(after[None])[0] - _losses(before[None])[0]
        assert rise <= removal.SHARE * (0.5 - loss) + 1e-9
        longer = before.copy()
        longer[np.flatnonzero(before)[-2 * len(gone) :]] = 0
        too_many = _losses(longer[None])[0] - loss > removal.SHARE * (0.5 - loss)
        assert too_many or 2 * len(gone) > removal.LARGEST_FRONT * before.sum(), "no more than had to be"


def test_a_large_estimate_below_zero_is_not_taken_for_harmless() -> None:
    costs = np.where(np.arange(60) < 10, -1, 0.01)
    nested = _removed_at_once(costs)
    assert nested[-1].sum() < 60
    assert nested[-1][:10].all()


def test_nothing_goes_at_once_that_the_slack_does_not_cover() -> None:
    assert len(_removed_at_once(np.ones(60), target=0.01)) == 1


def test_a_sweep_ends_when_many_items_in_a_row_could_not_go() -> None:
    """And counts anew after one that could."""
    harmful, tried = np.zeros(200), np.zeros(200)
    harmful[10:30] = harmful[31:] = 1

    def losses(sets: np.ndarray) -> np.ndarray:
        gone = 1 - sets
        tried[gone[gone.sum(axis=1) == gone.sum(axis=1).min()].any(axis=0)] = 1
        return np.asarray(gone @ harmful)

    *_, (left, _) = removal._removals(losses, np.ones(200), np.arange(200), 0.5, patience=24)
    np.testing.assert_array_equal(left == 0, harmful == 0)
    assert 31 + 24 <= tried.sum() < 31 + 24 + 2 * removal.WIDTH
    whole = removal._sweep(losses, np.ones(200), np.arange(200), 0.5, lambda kept: None)
    np.testing.assert_array_equal(whole, left)
    assert tried.all()


def test_what_a_wrong_prediction_removes_is_followed_as_far_as_it_holds() -> None:
    left, _ = _thinned(lambda sets: np.zeros(len(sets)))
    assert _losses(left[None])[0] <= 0.5
    assert 10 <= left.sum() < 60


def test_only_what_predictions_leave_in_doubt_is_tried() -> None:
    """Predicted to rise by at most DOUBT times the slack, items are tried, and go if they can; by more, they stay."""
    tried: list[np.ndarray] = []

    def losses(sets: np.ndarray) -> np.ndarray:
        tried.extend(sets)
        return _losses(sets)

    def left(times: float, more: float = 0.0) -> np.ndarray:
        def predict(kept: np.ndarray, bound: float) -> tuple[removal.Losses, removal.Costs]:
            loss = _losses(kept[None])[0]
            assert bound == pytest.approx(loss + removal.DOUBT * (0.205 - loss))
            return lambda sets: times * _losses(sets) + more, lambda kept: kept

        tried.clear()
        return removal.try_doubtful(losses, np.ones(40), 0.205, predict)

    found = left(1.0)
    assert found[:10].all()
    assert found.sum() == 20
    assert all(sets[:10].all() for sets in tried), "what costs 1 is never in doubt"
    assert left(1.0, more=0.2).sum() == 20, "above the target, and yet in doubt"
    assert left(1000.0).all()
    assert [sets.all() for sets in tried] == [True], "nothing else was tried"


def test_what_was_tried_and_refused_is_not_tried_again() -> None:
    asked: list[float] = []

    def predict(kept: np.ndarray, bound: float) -> tuple[removal.Losses, removal.Costs]:
        asked.append(kept.sum())
        return lambda sets: np.zeros(len(sets)), lambda kept: kept

    assert removal.try_doubtful(_losses, np.ones(40), 0.205, predict).sum() == 20
    assert asked == [40], "all were in doubt, and all were tried"


@pytest.mark.parametrize("more", [0, 60])
def test_of_many_items_those_of_the_smallest_costs_are_tried(more: int) -> None:
    """Nothing can go, and all is in doubt."""
    count, tried = removal.FEW + more, set[int]()
    fewer = removal.PROSPECTS if more else count

    def losses(sets: np.ndarray) -> np.ndarray:
        tried.update(np.flatnonzero(sets.min(axis=0) == 0).tolist())
        return np.asarray(count - sets.sum(axis=1))

    def predict(kept: np.ndarray, bound: float) -> tuple[removal.Losses, removal.Costs]:
        return lambda sets: np.zeros(len(sets)), lambda kept: -np.arange(len(kept), dtype=float)

    assert removal.try_doubtful(losses, np.ones(count), 0.5, predict).all()
    assert tried == set(range(count - fewer, count))


def test_items_that_only_then_become_harmless_go_too() -> None:
    """The last item is needed as long as the first is there."""

    def losses(sets: np.ndarray) -> np.ndarray:
        return np.asarray(sets[:, 0] * (1 - sets[:, -1]) + (1 - sets[:, 1:3]).sum(axis=1))

    found = removal.try_doubtful(losses, np.ones(20), 0.5, lambda kept, bound: (losses, lambda kept: kept))
    np.testing.assert_array_equal(np.flatnonzero(found), [1, 2])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 33])
def test_the_last_of_nested_sets_at_the_target_is_found(count: int) -> None:
    """In few steps; where losses are not monotone, one that is at the target before one that is not."""
    nested, steps = [np.array([i]) for i in range(count)], []

    def losses_above(last: float) -> removal.Losses:
        return lambda sets: (steps.append(1), np.array([float(sets[0, 0] > last)]))[1]

    for last in range(count):
        steps.clear()
        assert removal._last_within(losses_above(last), nested, 0.5) == last
        assert len(steps) <= 1 + np.ceil(np.log2(count))
    up_and_down = np.random.default_rng(0).random(count)
    at = removal._last_within(lambda sets: up_and_down[sets[0]], nested, 0.5)
    assert at == 0 or up_and_down[at] <= 0.5
    assert at == count - 1 or up_and_down[at + 1] > 0.5


def test_a_prediction_that_is_never_right_removes_nothing() -> None:
    left, rounds = _thinned(lambda sets: np.zeros(len(sets)), target=0.005)
    assert (left.sum(), rounds) == (60, 2)  # by either way of removal
