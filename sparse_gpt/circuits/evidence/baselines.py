"""Rankings of nodes that no search has learned, cut at the same target by the same bisection.

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
from typing import Any

import numpy as np

from sparse_gpt.circuits.circuit import SOURCES, matrix
from sparse_gpt.circuits.evidence import record
from sparse_gpt.circuits.nodes import GateArrays, empty, to_vector
from sparse_gpt.circuits.run.evaluator import ROWS, Candidates, Evaluator
from sparse_gpt.circuits.run.gated_model import TaskBatch, rows
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.search.select import Weights

PATH_POINTS = 32  # of the integral, Gauss-Legendre
CURVE_POINTS = 8  # sizes at which a ranking is tried before the bisection


def baselines(
    selection: Evaluator, heldout: Evaluator, weights: Weights, may_open: np.ndarray, target: float, seed: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One entry per ranking: its smallest size at `target`, the held-out loss there, its loss versus size.

    Beside them, the gate vectors (nodes,) of the rankings that reached the target, by name.

    Args:
      selection: where gradients are taken and the target has to be reached, each circuit with its own calibration.
      heldout: where losses are reported.
      weights: of the model.
      may_open: (nodes,) which nodes are ranked, the same as in the search.
      target: task loss in nats.
      seed: of the random ranking.
    """
    ranked = rankings(selection, weights, may_open, seed)
    orders = list(ranked.values())
    curves = [record.loss_versus_size(order, selection, heldout, weights, CURVE_POINTS) for order in orders]
    low, high = np.array([record.bracket(curve, target) for curve in curves]).T

    def cut(which: np.ndarray, sizes: np.ndarray) -> Candidates:
        return Candidates(ranking.cut([orders[i] for i in which], sizes, weights.partners))

    def losses_at(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return selection.within(cut(which, sizes), bounds)

    limit = np.array([len(order) for order in orders])
    sizes, reached = ranking.smallest_sizes(losses_at, high, limit, target, low)
    found = cut(np.arange(len(orders)), sizes)
    fitted = selection(found)
    losses = heldout.losses(found, fitted.scale, fitted.shift)
    records = [
        {
            "ranking": name,
            "nodes": int(k),
            "edges": weights.count(gates),
            "task_loss": float(loss),
            "reached": bool(r),
            "loss_versus_size": curve,
        }
        for name, k, gates, loss, r, curve in zip(ranked, sizes, found.gates, losses, reached, curves, strict=True)
    ]
    return records, {name: gates for name, gates, r in zip(ranked, found.gates, reached, strict=True) if r}


def at_targets(
    selection: Evaluator, heldout: Evaluator, weights: Weights, may_open: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """One entry per ranking: its name, and its `record.size_versus_target`. Arguments as of `baselines`."""
    found = []
    for name, order in rankings(selection, weights, may_open, seed).items():
        curve = record.loss_versus_size(order, selection, heldout, weights)
        found.append({"ranking": name, **record.size_versus_target(order, curve, selection, heldout, weights)})
    return found


def rankings(on: Evaluator, weights: Weights, may_open: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Name -> node indices, most important first, of those that may open. Partners stand at the sum of their two."""
    zeros, found = np.zeros(len(may_open)), {}
    for name, score in importances(on, weights, seed).items():
        together = weights.per_gate(score)[weights.gate_of]
        found[name] = ranking.ranking(together, zeros, may_open, weights.partners)
    return found


def importances(on: Evaluator, weights: Weights, seed: int) -> dict[str, np.ndarray]:
    """Ranking -> (nodes,), the larger the more important."""
    few = dataclasses.replace(on, batch=_pairs_of_all_lengths(on.batch))
    points, shares = np.polynomial.legendre.leggauss(PATH_POINTS)
    return {
        "attribution": -path_gradient(few, np.ones(1), np.ones(1)),
        "integrated_gradients": -path_gradient(few, (1 + points) / 2, shares / 2),
        "weight_magnitude": to_vector(weight_magnitudes(weights)),
        "random": np.random.default_rng(seed).random(on.nodes),
    }


def path_gradient(on: Evaluator, levels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(nodes,) gradient of the uncalibrated task loss with respect to the gates, summed over a path.

    Args:
      on: with at most ROWS samples.
      levels: (P,) what all gates are at the points of the path: 0 with all nodes ablated, 1 for the full model.
      shares: (P,) weights of the points in the sum.
    """
    gates = (Candidates(np.full((1, on.nodes), level)) for level in levels)
    return np.sum([share * on.uncalibrated_slopes(each) for each, share in zip(gates, shares, strict=True)], axis=0)


def _pairs_of_all_lengths(batch: TaskBatch) -> TaskBatch:
    """At most ROWS samples of a batch in order of length."""
    count = len(batch.positions) // 2
    pairs = np.linspace(0, count - 1, min(ROWS // 2, count)).astype(int)
    return rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))


def weight_magnitudes(weights: Weights) -> GateArrays:
    """site -> (n_layer, width): Euclidean norm of a node's block weights, those that lead to it and those it feeds."""
    squares = empty(weights.config)
    for site, (source, _) in SOURCES.items():
        for layer in range(weights.config.n_layer):
            square = np.square(matrix(weights.config, weights.params, site, layer))
            squares[source][layer] += square.sum(axis=1)
            squares[site][layer] += square.sum(axis=0)
    return {site: np.sqrt(value) for site, value in squares.items()}
