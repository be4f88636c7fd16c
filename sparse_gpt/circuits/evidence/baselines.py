"""Rankings of nodes that no search has learned, truncated at the same target by the same bisection.

* attribution: gradient of the task loss x (activation - ablation value) at the full model, summed over tokens (paper);
  that is the gradient with respect to the gate.
* integrated_gradients: the same, averaged along the straight path from all nodes ablated to all open (Sundararajan et
  al., 2017). Where the loss is smooth along it, the sum over nodes is the change of the loss from end to end, up to
  what PATH_POINTS miss: attention can turn within a hundredth of the path. With AbsTopK the loss jumps where the kept
  entries change, and gradients do not see the jumps.
* weight_magnitude: norm of the weights into and out of the node.
* random: chance.
"""

import dataclasses
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sparse_gpt.circuits.circuit import SOURCES, matrix
from sparse_gpt.circuits.evidence import curves
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, empty, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.records import converted
from sparse_gpt.records.search import Baseline, RankingSizes

PATH_POINTS = 32  # of the integral, Gauss-Legendre
CURVE_POINTS = 8  # sizes at which a ranking is tried before the bisection


class Baselines(NamedTuple):
    """Rankings truncated at the selection target.

    Attributes:
        records: one entry per ranking: its smallest size at the target, the held-out loss there, its loss versus size.
        gates: name -> gate vector (nodes,) of the rankings that reached the target.
    """

    records: list[Baseline]
    gates: dict[str, np.ndarray]


def truncate_baselines(problem: Problem) -> Baselines:
    """Every ranking, truncated to its smallest size at the selection target, each circuit with its own calibration."""
    selection, graph, target = problem.selection, problem.graph, problem.selection_target
    ranked = rankings(problem)
    orders = list(ranked.values())
    loss_curves = [curves.loss_versus_size(problem, order, CURVE_POINTS) for order in orders]
    low, high = np.array([curves.bracket(curve, target) for curve in loss_curves]).T

    def first(which: np.ndarray, sizes: np.ndarray) -> Candidates:
        return Candidates(ranking.truncate([orders[i] for i in which], sizes, graph.tied))

    def losses_at(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return selection.within(first(which, sizes), bounds)

    limit = np.array([len(order) for order in orders])
    sizes, reached = ranking.smallest_sizes(losses_at, high, limit, target, low)
    candidates = first(np.arange(len(orders)), sizes)
    scores = selection(candidates)
    losses = problem.heldout.losses(candidates, scores.scale, scores.shift)
    rows = zip(ranked, sizes, candidates.gates, losses, reached, loss_curves, strict=True)
    records = [
        Baseline(
            ranking=name,
            nodes=int(size),
            edges=graph.count_edges(gates),
            task_loss=float(loss),
            reached=bool(enough),
            loss_versus_size=tuple(curve),
        )
        for name, size, gates, loss, enough, curve in rows
    ]
    at_target = {name: gates for name, gates, enough in zip(ranked, candidates.gates, reached, strict=True) if enough}
    return Baselines(records, at_target)


def keep_baselines(problem: Problem, stages: Stages) -> Baselines:
    """`truncate_baselines` as a stage."""

    def stage() -> dict[str, Any]:
        found = truncate_baselines(problem)
        return {"records": msgspec.to_builtins(found.records), "gates": found.gates}

    kept = stages.run("baselines", None, stage)
    return Baselines(converted(kept["records"], list[Baseline]), kept["gates"])


def at_targets(problem: Problem) -> list[RankingSizes]:
    """One entry per ranking: its name, and its `curves.size_versus_target`."""
    found = []
    for name, order in rankings(problem).items():
        curve = curves.loss_versus_size(problem, order)
        sizes = curves.size_versus_target(problem, order, curve)
        found.append(RankingSizes(ranking=name, **msgspec.structs.asdict(sizes)))
    return found


def rankings(problem: Problem) -> dict[str, np.ndarray]:
    """Name -> node indices, most important first, of those that may open. Tied nodes have the sum of their scores."""
    graph, may_open = problem.graph, problem.searchable_nodes
    zeros, found = np.zeros(len(may_open)), {}
    for name, score in importances(problem.selection, graph, problem.settings.seed).items():
        together = graph.sum_over_gates(score)[graph.gate_of]
        found[name] = ranking.rank(together, zeros, may_open, graph.tied)
    return found


def importances(evaluator: Evaluator, graph: ModelGraph, seed: int) -> dict[str, np.ndarray]:
    """Ranking -> (nodes,), the larger the more important."""
    few = dataclasses.replace(evaluator, batch=_pairs_of_all_lengths(evaluator.batch))
    points, shares = np.polynomial.legendre.leggauss(PATH_POINTS)
    return {
        "attribution": -path_gradient(few, np.ones(1), np.ones(1)),
        "integrated_gradients": -path_gradient(few, (1 + points) / 2, shares / 2),
        "weight_magnitude": to_vector(weight_magnitudes(graph)),
        "random": np.random.default_rng(seed).random(evaluator.nodes),
    }


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


def _pairs_of_all_lengths(batch: TaskBatch) -> TaskBatch:
    """At most ROWS samples of a batch in order of length."""
    count = len(batch.positions) // 2
    pairs = np.linspace(0, count - 1, min(ROWS // 2, count)).astype(int)
    return rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))


def weight_magnitudes(graph: ModelGraph) -> GateArrays:
    """site -> (n_layer, width): Euclidean norm of a node's block weights, those that lead to it and those it feeds."""
    squares = empty(graph.config)
    for site, (source, _) in SOURCES.items():
        for layer in range(graph.config.n_layer):
            square = np.square(matrix(graph.config, graph.params, site, layer))
            squares[source][layer] += square.sum(axis=1)
            squares[site][layer] += square.sum(axis=0)
    return {site: np.sqrt(value) for site, value in squares.items()}
