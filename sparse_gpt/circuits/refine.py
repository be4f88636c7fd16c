"""Greedy minimality: drop whatever the task does not need, checking the loss each time, until no single item can go.

The search leaves nodes behind that only met in passing (the paper names them as leftovers), and nodes bring every
weight between them. Items here are nodes, or nodes and edges; the circuit's loss stays at or below the target.
"""

from collections.abc import Callable

import numpy as np

Losses = Callable[[np.ndarray], np.ndarray]  # (N, items) of 0 and 1 -> (N,) losses
Costs = Callable[[np.ndarray], np.ndarray]  # (items,) of 0 and 1 -> (items,) roughly what removing each would add
WIDTH = 8  # candidates tried at a time


def minimal(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    costs: Costs | None = None,
    progress: Callable[[int], None] = lambda left: None,
) -> np.ndarray:
    """Removes items until none can be removed alone without the loss crossing `target`.

    First it sweeps over all items from the cheapest to the dearest, removing whatever can go on top of what has gone
    before, until a sweep removes little. Then rounds: try every single removal, sweep over the harmless ones. The last
    round finds nothing harmless, which is the certificate.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in the unit of the losses.
      costs: cheap estimates that order the first sweeps (attribution); None goes to the rounds at once.
      progress: told the number of items left.

    Returns:
      (items,) of 0 and 1. If no single removal is possible from the start, `kept` itself.
    """
    kept, before = np.array(kept, np.float32), np.inf
    while costs is not None and kept.sum() < 0.9 * before:
        before = kept.sum()
        items = np.flatnonzero(kept)
        order = items[np.argsort(costs(kept)[items], kind="stable")]
        kept = _sweep(losses, kept, order, target, progress)
    while True:
        items = np.flatnonzero(kept)
        if not len(items):
            return kept
        alone = losses(_without(kept, [items[i : i + 1] for i in range(len(items))]))
        harmless = items[np.argsort(alone, kind="stable")][: int(np.sum(alone <= target))]
        if not len(harmless):
            return kept
        kept = _sweep(losses, kept, harmless, target, progress)


def _sweep(
    losses: Losses, kept: np.ndarray, order: np.ndarray, target: float, progress: Callable[[int], None]
) -> np.ndarray:
    """`kept` after one pass over `order`.

    Runs of doubling length are tried side by side and the longest harmless one goes. Where not even one item can go,
    the next WIDTH items are tried one by one and those before the first harmless one are passed over.
    """
    while len(order):
        runs = [order[:length] for length in sorted({min(2**i, len(order)) for i in range(WIDTH)})]
        good = np.flatnonzero(losses(_without(kept, runs)) <= target)
        if len(good):
            run = runs[int(good[-1])]
        else:
            singles = [order[i : i + 1] for i in range(1, min(1 + WIDTH, len(order)))]
            good = np.flatnonzero(losses(_without(kept, singles)) <= target) if singles else good
            if not len(good):
                order = order[1 + len(singles) :]
                continue
            order = order[1 + int(good[0]) :]
            run = order[:1]
        kept = _without(kept, [run])[0]
        order = order[len(run) :]
        progress(int(kept.sum()))
    return kept


def _without(kept: np.ndarray, removed: list[np.ndarray]) -> np.ndarray:
    """(len(removed), items) copies of `kept`, each without the items of one entry."""
    sets = np.repeat(kept[None, :], len(removed), axis=0)
    for row, items in zip(sets, removed, strict=True):
        row[items] = 0
    return sets
