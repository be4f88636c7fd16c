"""Greedy minimality: drop whatever the task does not need, checking the loss each time, until no single item can go.

The search keeps nodes that no longer affect the loss (the paper calls them leftovers), and nodes bring every weight
between them. Items here are nodes, or nodes and edges; the circuit's loss stays at or below the target.
"""

from collections.abc import Callable

import numpy as np

Losses = Callable[[np.ndarray], np.ndarray]  # (N, items) of 0 and 1 -> (N,) losses
Costs = Callable[[np.ndarray], np.ndarray]  # (items,) of 0 and 1 -> (items,) roughly what removing each would add
WIDTH = 8  # candidates tried at a time


def minimise(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    costs: Costs | None = None,
    progress: Callable[[int], None] = lambda left: None,
) -> np.ndarray:
    """Removes items until none can be removed alone without the loss crossing `target`.

    First it sweeps over all items in order of estimated loss increase, removing whatever can go on top of what has gone
    before, until a sweep removes less than half. Then rounds: try every single removal, sweep over the harmless ones.
    The last round finds nothing harmless, which is the certificate.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in the unit of the losses.
      costs: cheap estimates that order the first sweeps (attribution); None goes to the rounds at once.
      progress: called with the number of items left.

    Returns:
      (items,) of 0 and 1. If no single removal is possible from the start, `kept` itself.
    """
    kept, before = np.array(kept, np.float32), np.inf
    while costs is not None and kept.sum() < 0.5 * before:
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
    """`kept` after one pass over `order`, in blocks from its front.

    A harmless block goes whole, and the next one is twice as long; a harmful one is halved. Of at most WIDTH items,
    each is tried alone, and of those that are harmless alone as many go together as can.
    """
    length = WIDTH
    while len(order):
        block = order[:length]
        if losses(_without(kept, [block]))[0] <= target:
            gone, order, length = block, order[len(block) :], 2 * length
        elif len(block) > WIDTH:
            length = len(block) // 2
            continue
        else:
            alone = losses(_without(kept, [block[i : i + 1] for i in range(len(block))]))
            harmless = block[np.argsort(alone, kind="stable")][: int(np.sum(alone <= target))]
            gone = _longest_harmless(losses, kept, harmless, target)
            order, length = np.concatenate([harmless[len(gone) :], order[len(block) :]]), WIDTH
            if not len(gone):
                continue
        kept = _without(kept, [gone])[0]
        progress(int(kept.sum()))
    return kept


def _longest_harmless(losses: Losses, kept: np.ndarray, items: np.ndarray, target: float) -> np.ndarray:
    """The longest of the prefixes of `items` by powers of two, or all, that can go together; one item always can."""
    sizes = sorted({len(items), *(2**i for i in range(1, WIDTH) if 2**i < len(items))} - {0, 1}, reverse=True)
    if not sizes:
        return items
    good = np.flatnonzero(losses(_without(kept, [items[:size] for size in sizes])) <= target)
    return items[: sizes[int(good[0])]] if len(good) else items[:1]


def _without(kept: np.ndarray, removed: list[np.ndarray]) -> np.ndarray:
    """(len(removed), items) copies of `kept`, each without the items of one entry."""
    sets = np.repeat(kept[None, :], len(removed), axis=0)
    for row, items in zip(sets, removed, strict=True):
        row[items] = 0
    return sets
