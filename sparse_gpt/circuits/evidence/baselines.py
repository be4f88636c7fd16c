"""Rankings of nodes that no search has learned, truncated at the same target by the same bisection.

* attribution: gradient of the task loss x (activation - ablation value) at the full model, summed over tokens (paper);
  that is the gradient with respect to the gate.
* integrated_gradients: the same, averaged along the straight path from all nodes ablated to all open (Sundararajan et
  al., 2017). Where the loss is smooth along it, the sum over nodes is the change of the loss from end to end, up to
  what the path's points miss: attention can turn within a hundredth of the path. With AbsTopK the loss jumps where the
  kept entries change, and gradients do not see the jumps.
* weight_magnitude: norm of the weights into and out of the node.
* random: chance.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from sparse_gpt.circuits.evidence import curves
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.search import integrated_gradients, ranking
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.io import Tree
from sparse_gpt.records import converted
from sparse_gpt.records.search import Baseline, RankingSizes

CURVE_POINTS = 8  # sizes at which a ranking is tried before the bisection


class Baselines(NamedTuple):
    """Rankings truncated at the selection target.

    Attributes:
        records: one entry per ranking: its smallest size at the target, the held-out loss there, its loss versus size.
        gates: name -> gate vector (nodes,) of the rankings that reached the target on all selection samples.
    """

    records: list[Baseline]
    gates: dict[str, np.ndarray]


def truncate_baselines(problem: Problem, stages: Stages | None = None) -> Baselines:
    """Every ranking, truncated to its smallest size at the selection target, each circuit with its own calibration.

    Most rankings need most of the nodes, which takes long to find out: at most ROWS samples of each kind decide.
    """
    selection, graph, target = problem.selection.on_few(), problem.graph, problem.selection_target
    ranked = rankings(problem, stages)
    orders = list(ranked.values())
    loss_curves = [curves.loss_versus_size(problem, order, CURVE_POINTS) for order in orders]
    low, high = np.array([curves.bracket(curve, target) for curve in loss_curves]).T

    def first(which: np.ndarray, sizes: np.ndarray) -> Masks:
        return Masks(ranking.truncate([orders[i] for i in which], sizes, graph.tied))

    def losses_at(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return selection.losses_up_to(first(which, sizes), bounds)

    limit = np.array([len(order) for order in orders])
    sizes, reached = ranking.smallest_sizes(losses_at, high, limit, target, low)
    masks = first(np.arange(len(orders)), sizes)
    scores = selection(masks)
    losses = problem.heldout.on_few().losses(masks, scores.calibration)
    rows = zip(ranked, sizes, masks.gates, losses, reached, loss_curves, strict=True)
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
    enough = reached & (problem.selection.losses_up_to(masks, target) <= target)
    at_target = {name: gates for name, gates, at in zip(ranked, masks.gates, enough, strict=True) if at}
    return Baselines(records, at_target)


def keep_baselines(problem: Problem, stages: Stages) -> Baselines:
    """`truncate_baselines` as a stage."""

    def stage() -> Tree:
        found = truncate_baselines(problem, stages)
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


def rankings(problem: Problem, stages: Stages | None = None) -> dict[str, np.ndarray]:
    """Name -> node indices, most important first, of those that may open. Tied nodes have the sum of their scores."""
    graph, may_open = problem.graph, problem.searchable_nodes
    zeros = np.zeros(len(may_open))
    return {
        name: ranking.rank(graph.shared(score), zeros, may_open, graph.tied)
        for name, score in importances(problem, stages or Stages()).items()
    }


def importances(problem: Problem, stages: Stages) -> dict[str, np.ndarray]:
    """Ranking -> (nodes,), the larger the more important."""
    evaluator = problem.selection
    return {
        "attribution": -integrated_gradients.path_gradient(
            evaluator.on_few(integrated_gradients.SAMPLES), np.ones(1), np.ones(1)
        ),
        "integrated_gradients": integrated_gradients.stored_scores(problem, stages),
        "weight_magnitude": to_vector(weight_magnitudes(problem.graph)),
        "random": np.random.default_rng(problem.settings.seed).random(evaluator.nodes),
    }


def weight_magnitudes(graph: ModelGraph) -> GateArrays:
    """site -> (n_layer, width): Euclidean norm of a node's block weights, those that lead to it and those it feeds."""
    return {site: np.sqrt(value) for site, value in graph.sums_of_each(np.square).items()}
