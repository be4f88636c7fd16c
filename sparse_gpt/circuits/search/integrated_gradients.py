"""Integrated gradients of the task loss with respect to gates: a ranking of nodes, and where a path search can start.

The gradient is averaged along the straight path from all nodes ablated to all open (Sundararajan et al., 2017). Where
the loss is smooth along it, the sum over nodes is the change of the loss from end to end, up to what PATH_POINTS miss.
"""

import dataclasses
from typing import Any

import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, from_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.stages import Stages

PATH_POINTS = 32  # of the integral, Gauss-Legendre
FIRST_SIZE = 32  # where the bisection of the ranking's size begins
ROOM, LEAST, STEEPNESS, HIGHEST = 16, 300, 0.2, 0.3  # of the start of a search, see `start`


def scores(evaluator: Evaluator) -> np.ndarray:
    """(nodes,) the larger, the more a node helps."""
    points, shares = np.polynomial.legendre.leggauss(PATH_POINTS)
    return -path_gradient(of_all_lengths(evaluator), (1 + points) / 2, shares / 2)


def path_gradient(evaluator: Evaluator, levels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(nodes,) gradient of the uncalibrated task loss with respect to the gates, summed over a path.

    Args:
      evaluator: with at most ROWS samples.
      levels: (P,) what all gates are at the points of the path: 0 with all nodes ablated, 1 for the full model.
      shares: (P,) weights of the points in the sum.
    """
    gates = (Candidates(np.full((1, evaluator.nodes), level)) for level in levels)
    return np.sum(
        [share * evaluator.uncalibrated_slopes(each) for each, share in zip(gates, shares, strict=True)], axis=0
    )


def of_all_lengths(evaluator: Evaluator) -> Evaluator:
    """The evaluator on at most ROWS samples, in pairs, of a batch in order of length."""
    batch: TaskBatch = evaluator.batch
    count = len(batch.positions) // 2
    pairs = np.linspace(0, count - 1, min(ROWS // 2, count)).astype(int)
    some = rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))
    return dataclasses.replace(evaluator, batch=some)


def stored_scores(problem: Problem, stages: Stages) -> np.ndarray:
    """`scores` on selection samples, computed once."""
    found: np.ndarray = stages.run("integrated gradients", None, lambda: scores(problem.selection))
    return found


def start(problem: Problem, stages: Stages) -> GateArrays:
    """tau (n_layer, width) per site of a search that starts from this ranking.

    Open are ROOM times as many nodes as the ranking needs for the selection target, at least LEAST; the earlier in the
    ranking, the longer it takes a penalty to close them: clip(STEEPNESS * log4(open / (rank + 1)), -HIGHEST, HIGHEST).
    """
    graph = problem.graph
    together = graph.sum_over_gates(stored_scores(problem, stages))[graph.gate_of]
    order = ranking.rank(together, np.zeros(len(together)), problem.searchable_nodes, graph.tied)

    def size() -> dict[str, Any]:
        def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
            gates = ranking.truncate([order] * len(which), sizes, graph.tied)
            return problem.selection.within(Candidates(gates), bounds)

        sizes, reached = ranking.smallest_sizes(
            losses, np.array([FIRST_SIZE]), np.array([len(order)]), problem.selection_target
        )
        return {"size": int(sizes[0]) if reached[0] else len(order)}

    opened = max(LEAST, ROOM * stages.run("integrated gradients size", None, size)["size"])
    tau = np.full(len(together), -HIGHEST)
    tau[order] = np.clip(STEEPNESS * np.log(opened / (1 + np.arange(len(order)))) / np.log(4), -HIGHEST, HIGHEST)
    return from_vector(tau, graph.config)
