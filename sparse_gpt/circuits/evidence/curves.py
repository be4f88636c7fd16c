"""Sizes and losses along a ranking of nodes. Losses are on held-out samples, each after a calibration fitted on
selection samples, unless said otherwise."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.circuits.search import ranking
from sparse_gpt.records.search import CurvePoint, SizeVersusTarget, TargetPoint

CURVE_POINTS = 16
TARGETS = (0.5, 0.3, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005)  # task losses in nats: as many as are evaluated at a time


def loss_versus_size(problem: Problem, order: np.ndarray, points: int = CURVE_POINTS) -> tuple[CurvePoint, ...]:
    """Loss of the first k nodes of a ranking, over at most `points` geometrically growing k; on selection samples too.
    And the necessity of these k: `ablated_task_loss` of the model with them ablated, uncalibrated. At most ROWS samples
    of each kind are enough for a curve."""
    sizes, graph, heldout = ranking.size_grid(len(order), points), problem.graph, problem.heldout.on_few()
    gates = ranking.truncate([order] * len(sizes), sizes, graph.tied)
    scores = problem.selection.on_few()(Masks(gates))
    losses = heldout.losses(Masks(gates), scores.calibration)
    ablated_losses = [task_loss(logits) for logits in heldout.logits(Masks(1 - gates))]
    return tuple(
        CurvePoint(
            nodes=int(g.sum()),
            edges=graph.count_edges(g),
            task_loss=float(loss),
            selection_task_loss=float(chosen),
            ablated_task_loss=ablated,
        )
        for g, loss, chosen, ablated in zip(gates, losses, scores.loss, ablated_losses, strict=True)
    )


def size_versus_target(problem: Problem, order: np.ndarray, curve: Sequence[CurvePoint]) -> SizeVersusTarget:
    """The smallest first part of a ranking at each of TARGETS, and the area under the curve.

    Args:
        problem: at most ROWS selection samples decide whether the target is reached; no edge is removed.
        order: the ranking.
        curve: its `loss_versus_size`, between whose points the sizes are searched.
    """
    targets, graph = np.array(TARGETS), problem.graph
    low, high = np.array([bracket(curve, target) for target in TARGETS]).T
    selection = problem.selection.on_few()
    if any(selection.allowance):  # the curve's losses are less that; these targets are reached without it
        selection, low = dataclasses.replace(selection, allowance=()), np.zeros_like(low)

    def first(sizes: np.ndarray) -> Masks:
        return Masks(ranking.truncate([order] * len(sizes), sizes, graph.tied))

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Each size once, whichever targets ask for it."""
        del which
        different, place = np.unique(sizes, return_inverse=True)
        highest = np.full(len(different), -np.inf)
        np.maximum.at(highest, place, bounds)
        return selection.losses_up_to(first(different), highest)[place]

    sizes, reached = ranking.smallest_sizes(losses, high, np.full(len(targets), len(order)), targets, low)
    scores = selection(first(sizes))
    reported = problem.heldout.on_few().losses(first(sizes), scores.calibration)
    points = [
        TargetPoint(
            target_loss=float(target),
            nodes=int(size),
            edges=graph.count_edges(gates),
            task_loss=float(loss),
            reached=bool(enough),
        )
        for target, size, gates, loss, enough in zip(targets, sizes, first(sizes).gates, reported, reached, strict=True)
    ]
    return area(points)


def bracket(curve: Sequence[CurvePoint], target: float) -> tuple[int, int]:
    """The points of a `loss_versus_size` between which the selection loss first comes down to `target`: nodes of the
    last one before (0: none) and of the first one there (the last of all if none is)."""
    known = [point.nodes for point in curve]
    losses = (math.inf if point.selection_task_loss is None else point.selection_task_loss for point in curve)
    at = next((i for i, loss in enumerate(losses) if loss <= target), len(curve) - 1)
    return known[at - 1] if at else 0, known[at]


def area(points: Sequence[TargetPoint]) -> SizeVersusTarget:
    """The points, and the integral of log10(edges) over log10(target loss), by trapezoids, over the targets reached.

    Divided by its extent it is the logarithm of a mean size: comparable only where `lowest_target` is the same. None
    with fewer than two targets reached.
    """
    reached = sorted((p.target_loss, max(1, p.edges)) for p in points if p.reached)
    lowest = reached[0][0] if reached else None
    if len(reached) < 2:
        return SizeVersusTarget(points=tuple(points), lowest_target=lowest)
    x, y = np.log10(np.array(reached, np.float64)).T
    total = float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))
    mean_edges = float(10 ** (total / (x[-1] - x[0])))
    return SizeVersusTarget(points=tuple(points), area=total, mean_edges=mean_edges, lowest_target=lowest)
