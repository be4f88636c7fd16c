"""What launch.benchmark tells of the training loop."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sparse_gpt import presets
from sparse_gpt.costs import benchmark
from sparse_gpt.data import Corpus


@pytest.mark.slow
def test_data_wait_is_what_the_loop_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that sleeps is seen in the loop, and only there."""
    seconds = 0.05

    def sleepy(self: Corpus, split: str, seed: int, rows: int, context: int, *others: Any) -> Iterator[np.ndarray]:
        for index in itertools.count():
            time.sleep(seconds)
            yield self.batch(split, seed, index, rows, context)

    monkeypatch.setattr(Corpus, "loader", sleepy)
    found = benchmark.data_wait(1, presets.tiny())
    assert found["steps"] == 20
    assert found["step_ms"] > found["waits_ms"] >= 1e3 * seconds
    assert found["share_of_step"] == pytest.approx(found["waits_ms"] / found["step_ms"])
    assert found["making_ms"] > 0
