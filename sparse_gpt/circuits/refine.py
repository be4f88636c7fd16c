"""Greedy minimality: drop every node that the task does not need, one after another, checking the loss each time.

The search leaves nodes behind that only met in passing (the paper names them as leftovers). Here a node goes when the
circuit without it still has its loss at or below the target; at the end no single node can go.
"""

from collections.abc import Callable

import numpy as np

Losses = Callable[[np.ndarray], np.ndarray]  # (N, items) of 0 and 1 -> (N,) losses


def minimal(
    losses: Losses, kept: np.ndarray, target: float, progress: Callable[[int], None] = lambda left: None
) -> np.ndarray:
    """Removes items until none can be removed alone without the loss crossing `target`.

    Each round tries every single removal, then takes as many of the harmless ones as can go together: the longest
    prefix, least harmful first, found by halving. A round that can take only one takes the least harmful.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in the unit of the losses.
      progress: told the number of items left after every round.

    Returns:
      (items,) of 0 and 1. If no single removal is possible from the start, `kept` itself.
    """
    kept = np.array(kept, np.float32)
    while True:
        items = np.flatnonzero(kept)
        without = losses(_each_removed(kept, items))
        order = items[np.argsort(without, kind="stable")][: int(np.sum(without <= target))]
        if not len(order):
            return kept
        kept = _remove_prefix(losses, kept, order, target)
        progress(int(kept.sum()))


def _each_removed(kept: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(len(items), all) copies of `kept`, each without one item."""
    sets = np.repeat(kept[None, :], len(items), axis=0)
    sets[np.arange(len(items)), items] = 0
    return sets


def _remove_prefix(losses: Losses, kept: np.ndarray, order: np.ndarray, target: float) -> np.ndarray:
    """`kept` without the longest prefix of `order` that halving finds harmless; at least the first goes."""
    sizes = np.unique(np.maximum(1, (len(order) * 0.5 ** np.arange(8)).astype(int)))[::-1]
    sets = np.repeat(kept[None, :], len(sizes), axis=0)
    for row, size in zip(sets, sizes, strict=True):
        row[order[:size]] = 0
    good = np.flatnonzero(losses(sets) <= target)
    return sets[good[0]] if len(good) else sets[-1]
