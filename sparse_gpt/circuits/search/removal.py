"""Removing items from a set while a loss stays at its target: one by one until none can go, or many at once by what is
predicted and then verified. Items are anything; minimize.py removes nodes and edges of a circuit.
"""

from collections.abc import Callable, Iterator

import numpy as np

from sparse_gpt.circuits.run import objective

Losses = Callable[[np.ndarray], np.ndarray]  # (N, items) of 0 and 1 -> (N,) losses
Costs = Callable[[np.ndarray], np.ndarray]  # (items,) of 0 and 1 -> (items,) roughly what removing each would add
Progress = Callable[[np.ndarray], None]
Margins = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
"""(items,) of 0 and 1 -> margins (B,) of some samples, their slopes (B, items) with respect to the items, and what
`objective.losses` takes beside margins."""
Predict = Callable[[np.ndarray, float], tuple[Losses, Costs]]
"""(items,) of 0 and 1, and a bound -> losses of its parts, roughly, where they are at most the bound; costs."""
WIDTH = 8  # masks tried at a time
FEW, PROSPECTS = 200, 50  # items: few enough for each to be tried; how many of more are
DOUBT = 4  # times the slack: an item is tried whose predicted rise is at most so much
WORTH_PREDICTING = 0.05  # of what is left, what a round of predictions should have removed for another one
PATIENCE = 32  # items in a row that a sweep by predictions finds harmful before it ends
STRETCH, ROOM = 0.1, 0.03  # of the items, and of the target, see `thin`
REMOVALS, SHARE = 3, 0.25  # see `_many_at_once`
LARGEST_FRONT, SMALLEST_FRONT = 0.3, 0.01  # of what is left, how much it takes at a time
LARGEST_SHARE, SMALLEST_SHARE = 0.5, 1 / 16  # of the slack, and of the items, that one removal by prediction may take


def minimize(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    costs: Costs | None = None,
    progress: Progress = lambda kept: None,
) -> np.ndarray:
    """Removes items until none can be removed alone without the loss crossing `target`.

    First it sweeps over all items in order of estimated loss increase, removing whatever can go on top of what has gone
    before, until a sweep removes less than half. Then rounds: try single removals, sweep over the harmless ones. What
    was harmful in one round is not tried in the next, but once more when nothing else is left to try: then nothing is
    harmless, which is the certificate.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in the unit of the losses.
      costs: cheap estimates that order the first sweeps (attribution); None goes to the rounds at once.
      progress: called with what is left, (items,), whenever something is gone.

    Returns:
      (items,) of 0 and 1. If no single removal is possible from the start, `kept` itself.
    """
    kept = np.array(kept, np.float32)
    if costs is not None:
        kept = _swept(losses, kept, target, costs, progress)
    alone = np.full(len(kept), -np.inf)  # loss without the item, when it was tried last
    left_then = np.full(len(kept), -1)  # items that were left then; as items only go, it tells what is out of date
    while len(items := np.flatnonzero(kept)):
        tried = items[alone[items] <= target]
        if not len(tried):
            tried = items[left_then[items] != len(items)]
        if not len(tried):
            break
        alone[tried] = losses(_without(kept, [tried[i : i + 1] for i in range(len(tried))]))
        left_then[tried] = len(items)
        order = tried[np.argsort(alone[tried], kind="stable")]
        harmless = order[: int(np.sum(alone[tried] <= target))]
        if len(harmless):
            kept = _sweep(losses, kept, harmless, target, progress)
    return kept


def _swept(losses: Losses, kept: np.ndarray, target: float, costs: Costs, progress: Progress) -> np.ndarray:
    """The sweeps of `minimize`."""
    before = np.inf
    while kept.sum() < 0.5 * before:
        before = kept.sum()
        kept = _sweep(losses, kept, _cheapest_first(costs, kept), target, progress)
    return kept


def _cheapest_first(costs: Costs, kept: np.ndarray) -> np.ndarray:
    """The items of `kept` in order of their costs."""
    items = np.flatnonzero(kept)
    return items[np.argsort(costs(kept)[items], kind="stable")]


def screen(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    margins: Margins,
    progress: Progress = lambda kept: None,
) -> np.ndarray:
    """Removes many items at once, as long as more than FEW are left, by a prediction that is verified once.

    Margins are taken to change linearly. The items that cost least alone go together, as many as are predicted to cost
    a share of the slack below the target, and at most that share of the items. What costs more than predicted stays,
    and the share is halved.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in nats.
      margins: of the calibrated logits, answer - foil.
      progress: called with what is left, (items,), whenever something is gone.

    Returns:
      (items,) of 0 and 1, to be minimized.
    """
    kept, share = np.array(kept, np.float32), LARGEST_SHARE
    loss = losses(kept[None, :])[0]
    stale = True
    while loss < target and kept.sum() > FEW and share >= SMALLEST_SHARE:
        if stale:
            margin, slopes, foil_share = margins(kept)
            order, predicted = _predicted(margin, slopes, foil_share, np.flatnonzero(kept))
        slack = share * (target - loss)
        enough = np.flatnonzero(predicted <= np.mean(objective.losses(margin, foil_share)) + slack)
        count = min(1 + int(enough[-1]), int(share * len(order)), len(order) - FEW) if len(enough) else 0
        fewer = _without(kept, [order[:count]])
        found = losses(fewer)[0] if count else np.inf
        stale = found <= loss + LARGEST_SHARE * (target - loss)
        if stale:
            kept, loss, share = fewer[0], found, min(2 * share, LARGEST_SHARE)
            progress(kept)
        else:
            share /= 2
    return kept


def remove_many(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    predict: Predict,
    progress: Progress = lambda kept: None,
) -> np.ndarray:
    """Removes many items at once by their slopes, as many as hold; a large set is soon small enough to be swept.

    Arguments and result are those of `thin`.
    """
    kept = np.array(kept, np.float32)
    gone = kept.sum()
    while kept.any() and gone >= WORTH_PREDICTING * kept.sum():
        nested = [kept]
        guess, costs = predict(kept, target)
        _many_at_once(guess, kept, target, costs, nested.append)
        left = nested[_last_within(losses, nested, target)]
        gone, kept = kept.sum() - left.sum(), left
        if gone:
            progress(kept)
    return kept


def thin(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    predict: Predict,
    progress: Progress = lambda kept: None,
) -> np.ndarray:
    """Sweeps as `minimize` does, by losses that are predicted near what is left, and takes as much of it as holds,
    until a sweep hardly pays.

    A prediction is good near its set. So a sweep stops where a share STRETCH of the items is gone, which is followed as
    far as the true loss allows, and goes on by predictions from there. They go no higher than ROOM below the target, or
    than the loss that is there already: what they do not see must not make all of a stretch useless.

    Args:
      losses: losses of candidate sets.
      kept: (items,) 1 for the items to start from; its loss should be at most `target`.
      target: in the unit of the losses.
      predict: what predicts losses of parts of a set, and the costs that order the first sweeps.
      progress: called with what is left, (items,), whenever something is gone.

    Returns:
      (items,) of 0 and 1, of which single items may still go.
    """
    kept = np.array(kept, np.float32)
    before = np.inf
    while kept.any() and kept.sum() <= (1 - WORTH_PREDICTING) * before:
        before, order = kept.sum(), None
        while order is None or len(order):
            bound = max(losses(kept[None, :])[0], (1 - ROOM) * target)
            guess, costs = predict(kept, bound)
            order = _cheapest_first(costs, kept) if order is None else order
            nested = [kept]
            for left, rest in _removals(guess, kept, order, bound, PATIENCE):
                nested.append(left)
                if left.sum() <= (1 - STRETCH) * kept.sum():
                    order = rest
                    break
            else:
                order = order[:0]
            at = _last_within(losses, nested, target)
            if not at:
                break
            kept = nested[at]
            progress(kept)
    return kept


def _many_at_once(losses: Losses, kept: np.ndarray, target: float, costs: Costs, progress: Progress) -> None:
    """Removes REMOVALS times the items of the smallest estimates, either way (a large estimate below zero is no better
    known than one above), as many as cost at most SHARE of the slack below the target, before anything is tried alone:
    most of a large circuit goes like this, and what is left is worth trying. Tells `progress` alone."""
    length = int(LARGEST_FRONT * kept.sum())
    for _ in range(REMOVALS):
        order = _cheapest_first(lambda kept: np.abs(costs(kept)), kept)
        loss = losses(kept[None, :])[0]
        bound = loss + SHARE * (target - loss)
        while length and losses(_without(kept, [order[:length]]))[0] > bound:
            length //= 2
        if length < SMALLEST_FRONT * len(order):
            break
        kept = _without(kept, [order[:length]])[0]
        progress(kept)
        length = min(2 * length, int(LARGEST_FRONT * kept.sum()))


def try_doubtful(
    losses: Losses,
    kept: np.ndarray,
    target: float,
    predict: Predict,
    progress: Progress = lambda kept: None,
) -> np.ndarray:
    """Removes items until none can be removed alone, as far as predictions tell: an item whose predicted rise is more
    than DOUBT times the slack, what is left up to the target, is taken to be needed, and of more than FEW items those
    that are not among the PROSPECTS of the smallest costs; all others are tried, once.

    Arguments and result are those of `thin`, whose result this takes.
    """
    kept = np.array(kept, np.float32)
    refused = np.zeros(len(kept))
    while len(items := np.flatnonzero(kept * (1 - refused))):
        loss = losses(kept[None, :])[0]
        bound = loss + DOUBT * (target - loss)
        guess, costs = predict(kept, bound)
        if len(items) > FEW:
            items = items[np.argsort(costs(kept)[items], kind="stable")[:PROSPECTS]]
        roughly = guess(_without(kept, [items[i : i + 1] for i in range(len(items))]))
        order = items[np.argsort(roughly, kind="stable")][: int(np.sum(roughly <= bound))]
        left = _sweep(losses, kept, order, target, progress)
        refused[order] = left[order]  # the slack only shrinks
        if left.sum() == kept.sum():
            break
        kept = left
    return kept


def _last_within(losses: Losses, nested: list[np.ndarray], target: float) -> int:
    """Index of a set among nested ones whose loss is at most `target` and that of the next one is not, by bisection; of
    the last one if it has such a loss, and 0 if none is found."""
    good, bad = 0, len(nested)
    middle = bad - 1
    while bad - good > 1:
        if losses(nested[middle][None, :])[0] <= target:
            good = middle
        else:
            bad = middle
        middle = (good + bad) // 2
    return good


def _predicted(
    margin: np.ndarray, slopes: np.ndarray, foil_share: np.ndarray | None, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Items (n,) in order of what each is predicted to cost alone; losses (n,) after removal of the first 1 .. n."""

    def mean_loss(margins: np.ndarray) -> np.ndarray:  # of (B, n)
        return np.asarray(np.mean(objective.losses(margins.T, foil_share), axis=1))

    order = items[np.argsort(mean_loss(margin[:, None] - slopes[:, items]), kind="stable")]
    return order, mean_loss(margin[:, None] - np.cumsum(slopes[:, order], axis=1))


def _sweep(losses: Losses, kept: np.ndarray, order: np.ndarray, target: float, progress: Progress) -> np.ndarray:
    """`kept` after one pass over `order`, see `_removals`."""
    left = kept
    for left, _ in _removals(losses, kept, order, target):
        progress(left)
    return left


def _removals(
    losses: Losses, kept: np.ndarray, order: np.ndarray, target: float, patience: float = np.inf
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass over `order`, in blocks from its front, as long as of `patience` items in a row one can go: whenever
    something is gone, what is left, and the rest of the order.

    A harmless block goes whole, and the next one is twice as long; a harmful one is halved. Of at most WIDTH items,
    each is tried alone, and of those that are harmless alone as many go together as can.
    """
    length, in_vain = WIDTH, 0
    while len(order) and in_vain < patience:
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
                in_vain += len(block)
                continue
        kept, in_vain = _without(kept, [gone])[0], 0
        yield kept, order


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
