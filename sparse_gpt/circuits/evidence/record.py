"""What a search tells about itself: the parts of search.json ("sparse_gpt.search/1"). Losses are on held-out samples,
each after a calibration fitted on selection samples, unless said otherwise."""

import dataclasses
from typing import Any

import numpy as np

from sparse_gpt.circuits.circuit import matrix
from sparse_gpt.circuits.nodes import GateArrays, from_vector
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.evaluator import (
    LARGEST,
    Candidates,
    Evaluator,
    calibrated,
    random_gates,
    task_loss,
)
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.search.mask_search import Found, Hyperparameters
from sparse_gpt.circuits.search.select import Support, Trials, Weights

HISTORY_POINTS, CURVE_POINTS = 100, 24
QUANTILES = (0.05, 0.5, 0.95)
TARGETS = (0.5, 0.3, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005)  # task losses in nats: as many as are evaluated at a time


def trial_records(h: Hyperparameters, trials: Trials, heldout: Evaluator) -> list[dict[str, Any]]:
    """One entry per search: hyperparameters, size at the target before refinement, loss."""
    losses = heldout.losses(Candidates(trials.gates), trials.scores.scale, trials.scores.shift)
    return [
        {
            "trial": i,
            **{name: np.asarray(values)[i].item() for name, values in h._asdict().items()},
            "nodes": int(trials.sizes[i]),
            "edges": int(trials.edges[i]),
            "task_loss": float(losses[i]),
            "reached": bool(trials.reached[i]),
        }
        for i in range(len(trials.orders))
    ]


def history(found: Found) -> list[dict[str, Any]]:
    """At most HISTORY_POINTS steps of all searches: loss of the step's training batch (LARGEST where it is not finite),
    open gates."""
    steps, loss = found.loss.shape[1], np.nan_to_num(found.loss, nan=LARGEST, posinf=LARGEST)
    at = np.unique(np.linspace(0, steps - 1, min(steps, HISTORY_POINTS)).round().astype(int))
    return [
        {"step": int(s), "loss": loss[:, s].tolist(), "open_nodes": found.open_nodes[:, s].astype(int).tolist()}
        for s in at
    ]


def loss_versus_size(
    order: np.ndarray, selection: Evaluator, heldout: Evaluator, weights: Weights, points: int = CURVE_POINTS
) -> list[dict[str, float]]:
    """Loss of the first k nodes of a ranking, over at most `points` geometrically growing k; on selection samples
    too. And what is left without them: `ablated_task_loss` of the model with these k ablated, uncalibrated."""
    sizes = ranking.size_grid(len(order), points)
    gates = ranking.cut([order] * len(sizes), sizes, weights.partners)
    fitted = selection(Candidates(gates))
    losses = heldout.losses(Candidates(gates), fitted.scale, fitted.shift)
    without = [task_loss(each) for each in heldout.logits(Candidates(1 - gates))]
    return [
        {
            "nodes": int(g.sum()),
            "edges": weights.count(g),
            "task_loss": float(loss),
            "selection_task_loss": float(chosen),
            "ablated_task_loss": ablated,
        }
        for g, loss, chosen, ablated in zip(gates, losses, fitted.calibrated, without, strict=True)
    ]


def size_versus_target(
    order: np.ndarray, curve: list[dict[str, float]], selection: Evaluator, heldout: Evaluator, weights: Weights
) -> dict[str, Any]:
    """The smallest first part of a ranking at each of TARGETS, and the area under the curve.

    Args:
      order: the ranking.
      curve: its `loss_versus_size`, between whose points the sizes are searched.
      selection: where the loss has to reach the target.
      heldout: where it is reported.
      weights: for counting edges; no refinement has removed any of them.
    """
    targets = np.array(TARGETS)
    low, high = np.array([bracket(curve, target) for target in TARGETS]).T

    def cut(sizes: np.ndarray) -> Candidates:
        return Candidates(ranking.cut([order] * len(sizes), sizes, weights.partners))

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Each size once, whichever targets ask for it."""
        del which
        different, place = np.unique(sizes, return_inverse=True)
        highest = np.full(len(different), -np.inf)
        np.maximum.at(highest, place, bounds)
        return selection.within(cut(different), highest)[place]

    sizes, reached = ranking.smallest_sizes(losses, high, np.full(len(targets), len(order)), targets, low)
    fitted = selection(cut(sizes))
    found = heldout.losses(cut(sizes), fitted.scale, fitted.shift)
    points = [
        {
            "target_loss": float(t),
            "nodes": int(k),
            "edges": weights.count(g),
            "task_loss": float(loss),
            "reached": bool(r),
        }
        for t, k, g, loss, r in zip(targets, sizes, cut(sizes).gates, found, reached, strict=True)
    ]
    return {"points": points, **area(points)}


def bracket(curve: list[dict[str, float]], target: float) -> tuple[int, int]:
    """The points of a `loss_versus_size` between which the selection loss first comes down to `target`: nodes of the
    last one before (0: none) and of the first one there (the last of all if none is)."""
    known = [int(point["nodes"]) for point in curve]
    at = next((i for i, p in enumerate(curve) if p["selection_task_loss"] <= target), len(curve) - 1)
    return known[at - 1] if at else 0, known[at]


def area(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Integral of log10(edges) over log10(target loss), by trapezoids, over the targets that were reached.

    Divided by its extent it is the logarithm of a mean size: comparable only where `lowest_target` is the same. None
    with fewer than two targets reached.
    """
    reached = sorted((p["target_loss"], max(1, p["edges"])) for p in points if p["reached"])
    if len(reached) < 2:
        return {"area": None, "mean_edges": None, "lowest_target": reached[0][0] if reached else None}
    x, y = np.log10(np.array(reached, np.float64)).T
    total = float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))
    return {"area": total, "mean_edges": float(10 ** (total / (x[-1] - x[0]))), "lowest_target": reached[0][0]}


def random_circuits(
    gates: np.ndarray, selection: Evaluator, heldout: Evaluator, weights: Weights, draws: int, seed: int
) -> dict[str, Any]:
    """Losses of random circuits with as many nodes at every site and layer: as they are, and each calibrated."""
    drawn = random_gates(gates, weights.config, draws, seed, weights.tie_qk)
    return _control(Candidates(drawn), selection, heldout)


def redrawn_circuits(
    support: Support, selection: Evaluator, heldout: Evaluator, weights: Weights, draws: int, seed: int
) -> dict[str, Any]:
    """Losses of the circuit with other values at its edges: as they are, and each calibrated."""
    return _control(redrawn(support, weights, draws, seed), selection, heldout)


def redrawn(support: Support, weights: Weights, draws: int, seed: int) -> Candidates:
    """The circuit `draws` times, its edges where they are, their values drawn from all nonzero values of the same
    matrix without repetition.

    A new value multiplies what the source differs from its ablation value by; the constant beneath stays, or the
    constants alone would move every draw away from the model. The v -> attn_out edges of heads without a closed channel
    keep their values (see `rewire.removable`).
    """
    config, every, present = weights.config, weights.edges(support.gates), set(support.kept_edges(weights))
    free = removable(config, every, from_vector(support.gates, config))
    factors = np.repeat(np.array([[edge in present for edge in every]], np.float32), draws, axis=0)
    matrices: dict[tuple[str, int], list[int]] = {}
    for i, edge in enumerate(every):
        if free[i] and edge in present:
            matrices.setdefault((edge.target.site, edge.target.layer), []).append(i)
    rng = np.random.default_rng(seed)
    for (site, layer), index in matrices.items():
        entries = matrix(config, weights.params, site, layer)
        own = np.array([every[i].weight for i in index])
        for draw in range(draws):
            factors[draw, index] = rng.choice(entries[entries != 0], len(index), replace=False) / own
    return Candidates(np.repeat(support.gates[None, :], draws, axis=0), edge_places(config, every), factors)


def resampled(
    support: Support, own: Calibration, heldout: Evaluator, weights: Weights, draws: GateArrays
) -> dict[str, Any]:
    """Losses of the circuit with other draws (draws, n_layer, width) of the ablation values, calibration as is."""
    candidate, losses = support.candidates(weights), []
    turning = dataclasses.replace(heldout.gated, draws=draws)
    for turn in range(len(draws["attn_in"])):
        other = dataclasses.replace(heldout, gated=turning.drawn(turn))
        losses.append(task_loss(calibrated(other.logits(candidate)[0], own, heldout.index)))
    quantiles = {"levels": list(QUANTILES), "task_loss": np.quantile(losses, QUANTILES).tolist()}
    return {"draws": len(losses), "task_loss": losses, "quantiles": quantiles}


def _control(drawn: Candidates, selection: Evaluator, heldout: Evaluator) -> dict[str, Any]:
    """Held-out losses of drawn circuits, their QUANTILES beside them."""
    fitted, logits = selection(drawn), heldout.logits(drawn)
    pairs = zip(logits, map(Calibration, fitted.scale, fitted.shift), strict=True)
    losses = {
        "task_loss": [task_loss(each) for each in logits],
        "task_loss_calibrated": [task_loss(calibrated(each, own, heldout.index)) for each, own in pairs],
    }
    quantiles = {name: np.quantile(values, QUANTILES).tolist() for name, values in losses.items()}
    return {"draws": len(drawn.gates), **losses, "quantiles": {"levels": list(QUANTILES), **quantiles}}


def stages(
    supports: dict[str, Support], selection: Evaluator, heldout: Evaluator, weights: Weights
) -> list[dict[str, Any]]:
    """Size and loss of the best trial after the search and after each refinement."""
    entries = []
    for name, support in supports.items():
        candidate = support.candidates(weights)
        fitted = selection(candidate)
        loss = float(heldout.losses(candidate, fitted.scale, fitted.shift)[0])
        size = {"nodes": int(support.gates.sum()), "edges": len(support.kept_edges(weights))}
        entries.append({"stage": name, **size, "task_loss": loss})
    return entries
