"""From trained taus to a circuit: rank the nodes, keep the smallest number that still does the task.

Many taus end at the clamp, where they tie; the tie is broken by the attribution that the search averaged (how much
opening the gate lowers the task loss) and then by the fixed order of nodes, so the ranking is deterministic.
"""

from collections.abc import Callable, Iterable

import flax.struct
import jax
import numpy as np

from sparse_gpt.circuits.nodes import LIMIT, GateArrays, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.evaluator import Scores
from sparse_gpt.circuits.run.masks import Masks

STEP = 1.1  # by which a size grows that was found on few samples and is too small for all

Losses = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(which of the rankings (N,), their sizes (N,), bounds (N,)) -> (N,) task losses of these rankings, truncated to these
sizes; where a loss is above its bound, any number above it will do."""


def rank(tau: np.ndarray, attribution: np.ndarray, searchable: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """Node indices, most important first; only nodes that are searched. Tied nodes, equal in all, are neighbors.

    Args:
      tau: (nodes,) final values in [-1, 1].
      attribution: (nodes,) mean gradient of the task loss with respect to the gate; the more negative, the better.
      searchable: (nodes,) whether the node was searched.
      tied: (nodes,) from `nodes.tied_nodes`.
    """
    nodes = np.arange(len(tau))
    order = np.lexsort((nodes, np.minimum(nodes, tied), attribution, -tau))  # the last key is the first criterion
    return order[searchable[order] > 0]


def rank_open(tau: np.ndarray, slope: np.ndarray, searchable: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """As `rank`, but open nodes (tau above 0) stand in order of their slope (nodes,), before the closed ones."""
    opened = tau > 0
    return rank(np.where(opened, 2 * LIMIT, tau), np.where(opened, slope, 0), searchable, tied)


def first_k(order: np.ndarray, k: int, tied: np.ndarray) -> np.ndarray:
    """Gates (nodes,) with the first k nodes of a ranking open, but the last one closed if its tied node comes next."""
    gates = np.zeros(len(tied), np.float32)
    gates[order[:k]] = 1
    return gates * gates[tied]


def truncate(orders: Iterable[np.ndarray], sizes: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """(S, nodes): `first_k` of S rankings, each at its own size."""
    return np.stack([first_k(order, int(k), tied) for order, k in zip(orders, sizes, strict=True)])


def smallest_sizes(
    losses: Losses,
    opened: np.ndarray,
    limit: np.ndarray,
    target: float | np.ndarray,
    low: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bisects, for S rankings side by side, the smallest k whose loss is at most `target`.

    The upper end starts at the number of open gates and doubles until it reaches the target. Losses are nearly, not
    exactly, monotone in k; what is guaranteed is loss(k) <= target and, for k > 0, loss(k - 1) > target.

    Args:
      losses: evaluates the rankings that are not settled yet, one size each.
      opened: (S,) number of open gates, where to start.
      limit: (S,) length of each ranking.
      target: task loss in nats, one for all or (S,).
      low: (S,) sizes below `opened` that are known not to reach the target.

    Returns:
      sizes (S,) and whether the target was reached (S,); where it was not, the size is the one that came closest.
    """
    high = np.clip(opened, 1, limit)
    targets = np.broadcast_to(target, high.shape)
    # Size 0 is never tried: a circuit without nodes answers by the constants alone.
    low = np.zeros_like(high) if low is None else low.copy()
    best, best_loss, reached = high.copy(), np.full(len(high), np.inf), np.zeros(len(high), bool)
    left = np.arange(len(high))
    while len(left):
        found = losses(left, high[left], np.full(len(left), np.inf))  # exact, to know which came closest
        closer = found < best_loss[left]
        best[left[closer]], best_loss[left[closer]] = high[left[closer]], found[closer]
        reached[left] = found <= targets[left]
        left = left[~reached[left] & (high[left] < limit[left])]
        low[left], high[left] = high[left], np.minimum(2 * high[left], limit[left])
    while len(left := np.flatnonzero(reached & (best - low > 1))):
        middle = (low[left] + best[left]) // 2
        enough = losses(left, middle, targets[left]) <= targets[left]
        best[left[enough]], low[left[~enough]] = middle[enough], middle[~enough]
    return best, reached


def grown(
    enough: Callable[[np.ndarray, np.ndarray], np.ndarray], sizes: np.ndarray, reached: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (S,) that are enough, from such as may be too small: they grow by STEP, up to `limit`, while they are.

    Args:
      enough: (which of the rankings (N,), their sizes (N,)) -> (N,) whether these sizes are.
      sizes: (S,) where to start.
      reached: (S,) which of them may be; the others stay as they are.
      limit: (S,) length of each ranking.

    Returns:
      sizes (S,), and whether they are enough (S,).
    """
    sizes, reached, left = sizes.copy(), reached.copy(), np.flatnonzero(reached)
    while len(left):
        found = enough(left, sizes[left])
        reached[left] = found | (sizes[left] < limit[left])
        left = left[~found & reached[left]]
        sizes[left] = np.minimum(np.ceil(STEP * sizes[left]).astype(int), limit[left])
    return sizes, reached


def size_grid(largest: int, points: int = 24) -> np.ndarray:
    """Sizes from 1 to `largest`, geometrically spaced, distinct."""
    return np.unique(np.geomspace(1, max(1, largest), points).round().astype(int))


@flax.struct.dataclass
class Trials:
    """S searches, each ranking truncated at the target; every array has the leading axis S.

    Attributes:
        orders: (S, searched nodes) node indices, from the most to the least important.
        sizes: (S,) nodes kept.
        edges: (S,) edges between them.
        gates: (S, nodes).
        reached: (S,) whether the target was reached.
        scores: on selection samples.
    """

    orders: np.ndarray
    sizes: np.ndarray
    edges: np.ndarray
    gates: np.ndarray
    reached: np.ndarray
    scores: Scores


def rank_and_truncate(problem: Problem, tau: GateArrays, attribution: GateArrays) -> Trials:
    """Every search's ranking truncated to the smallest number of nodes whose calibrated selection loss is at most the
    selection target.

    Path searches have two rankings, by tau and, of what is open, by the averaged slope; that with fewer edges counts.
    """
    may_open, graph = problem.searchable_nodes, problem.graph
    taus, slopes = to_vector(tau), to_vector(attribution)
    pairs = list(zip(taus, slopes, strict=True))
    by_tau = _truncated(problem, [rank(tau, slope, may_open, graph.tied) for tau, slope in pairs], taus)
    if problem.settings.search == "paper":
        return by_tau
    by_slope = _truncated(problem, [rank_open(*pair, may_open, graph.tied) for pair in pairs], taus)
    better = (by_slope.reached & ~by_tau.reached) | (
        (by_slope.reached == by_tau.reached) & (by_slope.edges < by_tau.edges)
    )

    def chosen(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(chosen, by_slope, by_tau)


def _truncated(problem: Problem, rankings: list[np.ndarray], taus: np.ndarray) -> Trials:
    """One ranking per search, truncated; the bisection begins at the nodes with positive tau (S, nodes).

    At most ROWS samples decide on the way. Where there are more, sizes grow until all of them are at the target, but
    never beyond open nodes that are there.
    """
    may_open, selection, graph = problem.searchable_nodes, problem.selection, problem.graph
    orders, target, few = np.stack(rankings), problem.selection_target, selection.on_few()

    def first(which: np.ndarray, sizes: np.ndarray) -> Masks:
        return Masks(truncate(orders[which], sizes, graph.tied))

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return few.losses_up_to(first(which, sizes), bounds)

    def enough(which: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        found: np.ndarray = selection.losses_up_to(first(which, sizes), target) <= target
        return found

    opened = np.sum((taus > 0) & (may_open > 0), axis=1)
    limit = np.full(len(orders), int(np.sum(may_open > 0)))
    if len(few.batch.positions) < len(selection.batch.positions):
        whole = (opened > 0) & enough(np.arange(len(orders)), opened)
        limit = np.where(whole, opened, limit)
        sizes, reached = smallest_sizes(losses, opened, limit, target)
        # Where a few of the samples are not at the target, all of them can be.
        sizes, reached = np.where(whole & ~reached, opened, sizes), reached | whole
        sizes, reached = grown(enough, sizes, reached, limit)
    else:
        sizes, reached = smallest_sizes(losses, opened, limit, target)
    gates = first(np.arange(len(orders)), sizes).gates
    edges = np.array([graph.count_edges(g) for g in gates])
    return Trials(orders, gates.sum(axis=1).astype(int), edges, gates, reached, selection(Masks(gates)))
