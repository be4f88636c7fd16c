"""Integrated gradients of the task loss with respect to gates: a ranking of nodes, and where a path search can start.

The gradient is averaged along the straight path from all nodes ablated to all open (Sundararajan et al., 2017). Where
the loss is smooth along it, the sum over nodes is the change of the loss from end to end, up to what PATH_POINTS miss.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, from_vector, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator
from sparse_gpt.circuits.run.masks import PER_CALL, Masks
from sparse_gpt.circuits.run.objective import LARGEST
from sparse_gpt.circuits.run.packed_batch import together
from sparse_gpt.circuits.run.programs import gate_slopes
from sparse_gpt.circuits.run.task_batch import few, rows
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.stages import Stages

PATH_POINTS = 16  # of the integral, Gauss-Legendre
SAMPLES = 64  # at each of them
FIRST_SIZE = 32  # where the bisection of the ranking's size begins
LARGEST_SHARE = 0.1  # of all nodes that a search starts from
STEEPNESS, LOWEST, FLAT, HIGHEST = 0.2, 1e-3, 0.1, 0.3  # of the start of a search, see `start`


class Start(NamedTuple):
    """Where searches start from a ranking."""

    tau: GateArrays  # (n_layer, width) per site
    searched: GateArrays  # the same, 1 where a node may be open: the ranking's first ones


def scores(evaluator: Evaluator) -> np.ndarray:
    """(nodes,) the larger, the more a node helps."""
    points, shares = np.polynomial.legendre.leggauss(PATH_POINTS)
    return -path_gradient(evaluator.on_few(SAMPLES), (1 + points) / 2, shares / 2)


def path_gradient(
    evaluator: Evaluator, levels: np.ndarray, shares: np.ndarray, ends: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """(nodes,) gradient of the uncalibrated task loss, or of the divergence that the evaluator's samples are to match,
    with respect to the gates, summed over a straight path; where it is not a number, 0.

    Args:
      evaluator: of its samples at most ROWS, of its sets of ablation values the first.
      levels: (P,) where the points are: 0 at the first end of the path, 1 at the last.
      shares: (P,) weights of the points in the sum.
      ends: gates (nodes,) there; None: all nodes ablated, and the full model.
    """
    first, last = ends or (np.zeros(evaluator.nodes), np.ones(evaluator.nodes))
    model, config = evaluator.gated.with_ablation_set(evaluator.first_set), evaluator.gated.model.config
    some = rows(evaluator.batch, few(evaluator.batch, ROWS))
    batch, foil_share = together(some, config.context), some.foil_share
    found = []
    for level, share in zip(levels, shares, strict=True):
        gates = from_vector((first + level * (last - first)).astype(np.float32), config)
        slopes = to_vector(jax.device_get(gate_slopes(model, jax.tree.map(jnp.asarray, gates), batch, foil_share)))
        found.append(share * np.nan_to_num(slopes, posinf=LARGEST, neginf=-LARGEST))
    return np.sum(found, axis=0)


def stored_scores(problem: Problem, stages: Stages) -> np.ndarray:
    """`scores` on selection samples, computed once."""
    found: np.ndarray = stages.run("integrated gradients", None, lambda: scores(problem.selection))
    return found


def start(problem: Problem, stages: Stages) -> Start:
    """Where searches start from this ranking: with the most of its first nodes, at most LARGEST_SHARE of all, whose
    loss is still at the selection target.

    More nodes need not do better: what comes late in the ranking can undo the task in a model half ablated. The nodes
    after them are not searched. The earlier in the ranking, the longer it takes a penalty to close a node:
    tau = clip(STEEPNESS * log4(searched / (rank + 1)), LOWEST, HIGHEST); where no size up to the largest reaches the
    target, all nodes are searched, none nearer to closing than FLAT.
    """
    graph = problem.graph
    together = graph.shared(stored_scores(problem, stages))
    order = ranking.rank(together, np.zeros(len(together)), problem.searchable_nodes, graph.tied)
    size = stages.run("integrated gradients size", None, lambda: {"size": _start_size(problem, order)})["size"]
    opened = ranking.first_k(order, size, graph.tied)
    rank = np.full(len(together), len(order))
    rank[order] = np.arange(len(order))
    lowest = LOWEST if size < len(order) else FLAT
    tau = np.where(opened > 0, np.clip(STEEPNESS * np.log(size / (1 + rank)) / np.log(4), lowest, HIGHEST), -HIGHEST)
    return Start(from_vector(tau, graph.config), from_vector(opened, graph.config))


def _start_size(problem: Problem, order: np.ndarray) -> int:
    """See `start`; where no size up to the largest reaches the target on at most ROWS samples, all."""
    tied, target, limit = problem.graph.tied, problem.selection_target, problem.searchable_nodes.size
    largest = min(len(order), max(FIRST_SIZE, int(LARGEST_SHARE * limit)))
    sizes = np.unique(np.geomspace(min(FIRST_SIZE, largest), largest, PER_CALL).astype(int))
    first = Masks(ranking.truncate([order] * len(sizes), sizes, tied))
    enough = np.flatnonzero(problem.selection.on_few().losses_up_to(first, target) <= target)
    return int(sizes[enough[-1]]) if len(enough) else len(order)
