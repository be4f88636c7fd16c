"""Numbers at the end of float32 and beyond it: losses stay finite, what overflowed is no success, JSON has no NaN."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparse_gpt.circuits.evidence import search_record
from sparse_gpt.circuits.run import calibration
from sparse_gpt.circuits.run.objective import LARGEST, accuracy, agreement, bounded, task_loss
from sparse_gpt.circuits.search import ranking
from sparse_gpt.errors import InputError
from sparse_gpt.io import write_json

INF, NAN = np.inf, np.nan
EXTREMES = np.array(
    [[INF, 0], [0, INF], [INF, INF], [-INF, INF], [NAN, 0], [0, NAN], [NAN, INF], [3e38, -3e38], [1, 2]], np.float32
)


def test_bounded_logits_are_finite_and_keep_their_order() -> None:
    found = bounded(EXTREMES)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= np.float32(LARGEST)
    right = [True, False, False, False, False, False, False, True, False]
    np.testing.assert_array_equal(found[:, 0] > found[:, 1], right)
    np.testing.assert_array_equal(found[-1], [1, 2])
    np.testing.assert_array_equal(bounded(found), found)


def test_what_is_not_a_number_is_as_wrong_as_can_be() -> None:
    assert task_loss(bounded(EXTREMES[4:5])) == task_loss(bounded(EXTREMES[3:4])) == pytest.approx(2 * LARGEST)


@pytest.mark.parametrize("tokens", [0, 2])
def test_calibration_of_extreme_logits_is_finite(tokens: int) -> None:
    logits = bounded(np.concatenate([EXTREMES, EXTREMES[:, ::-1]]))[None]
    index = np.tile(np.array([[0, 1], [1, 0]], np.int32), (9, 1)) if tokens else np.zeros((18, 2), np.int32)
    scale, shift, loss = calibration.fit_many(logits, index, tokens)
    assert np.isfinite(scale).all()
    assert np.isfinite(shift).all()
    assert np.isfinite(loss).all()
    own = calibration.Calibration(np.float32(calibration.MAX_SCALE), np.zeros(tokens, np.float32))
    corrected = calibration.calibrate(logits[0], own, index)
    assert np.isfinite(task_loss(corrected))
    assert 0 <= accuracy(corrected) <= 1
    assert agreement(corrected, logits[0]) == 1


def test_history_has_no_losses_that_json_has_not() -> None:
    loss = np.array([[0.5, NAN, INF]], np.float32)
    found: Any = SimpleNamespace(loss=loss, open_nodes=np.array([[3, 2, 0]]))
    entries = search_record.history(found)
    assert [entry.loss[0] for entry in entries] == [0.5, np.float32(LARGEST), np.float32(LARGEST)]
    assert entries[-1].open_nodes == (0,)


def test_sizes_are_found_where_every_gate_is_closed() -> None:
    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return np.where(sizes >= 5, 0.0, 2 * LARGEST)

    sizes, reached = ranking.smallest_sizes(losses, np.zeros(2, int), np.array([9, 4]), 0.1)
    assert (sizes.tolist(), reached.tolist()) == ([5, 1], [True, False])


def test_json_that_would_hold_a_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"search\.json: a result is not finite"):
        write_json(tmp_path / "search.json", {"loss": [0.5, NAN]})
    assert list(tmp_path.iterdir()) == []
