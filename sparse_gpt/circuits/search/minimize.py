"""Circuits without what the task does not need: nodes and edges are dropped, checking the loss each time, until no
single one can go (of large models, as far as predicted losses tell, see `removal.try_doubtful`).

The search keeps nodes that no longer affect the loss (the paper calls them leftovers), and nodes bring every weight
between them. The circuit's loss stays at or below the target.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import from_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.edge_ablation import edge_places
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.thresholds import Predictor, predictor
from sparse_gpt.circuits.search import removal
from sparse_gpt.circuits.search.removal import Costs, Losses
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.io import Json, Tree
from sparse_gpt.records import Node

Report = Callable[[str], None]  # takes a line about the progress


def _for_each_edge(rises: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(items,) costs of removing items, for every edge that goes along: the aim is few edges."""
    return np.where(rises > 0, rises / np.maximum(1, edges), rises)


def _ends(graph: ModelGraph, gates: np.ndarray, edges: Sequence[Edge]) -> np.ndarray:
    """(2, E) where the gates of edges' sources and targets stand among `gates`, indices of a gate vector."""
    nodes = np.arange(len(graph.gate_of))
    number, place = from_vector(nodes, graph.config), np.zeros(len(nodes), int)
    place[gates] = np.arange(len(gates))
    both = [[number[end.site][end.layer, end.channel] for end in (edge.source, edge.target)] for edge in edges]
    return place[graph.gate_of[np.array(both, int).reshape(-1, 2).T]]


def _edges_along(kept: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(gates + E,) how many of E edges go when an item of `kept`, gates and edges, does: `ends` is of these edges."""
    count = len(kept) - ends.shape[1]
    there = kept[count:] * kept[ends[0]] * kept[ends[1]]
    of_gates = np.bincount(np.concatenate(ends), np.concatenate([there, there]), minlength=count)
    return np.concatenate([of_gates, there])


def minimized(problem: Problem, start: Support, evaluator: Evaluator, report: Report) -> Support:
    """A support without what can go at the selection target: nodes and edges together, or if the settings ask for no
    edges, nodes."""
    smallest = minimize_edges if problem.settings.edges else minimize_nodes
    return smallest(start, evaluator, problem.selection_target, report)


def minimize_nodes(start: Support, evaluator: Evaluator, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) that can go, see removal.py."""
    graph = start.graph

    def margins(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        margin, slopes, foil_share = evaluator.margins(kept[graph.gate_of])
        return margin, np.stack([graph.sum_over_gates(each) for each in slopes]), foil_share

    def progress(kept: np.ndarray) -> None:
        nonlocal evaluator
        report(f"{int(kept.sum())} nodes left")
        evaluator = evaluator.within_support(kept[graph.gate_of])  # what is gone stays gone

    def losses(sets: np.ndarray) -> np.ndarray:
        return evaluator.losses_up_to(Candidates(sets[:, graph.gate_of]), target)

    def rises(of: Evaluator, kept: np.ndarray) -> np.ndarray:
        return graph.sum_over_gates(-of.slopes(Candidates(kept[None, graph.gate_of]))[0])

    left = removal.screen(losses, graph.one_per_gate(start.gates), target, margins, progress)
    near = predictor(evaluator, left[graph.gate_of])
    if near is None:
        left = removal.minimize(losses, left, target, lambda kept: rises(evaluator, kept), progress)
        return Support(graph, left[graph.gate_of])

    def predict(kept: np.ndarray, bound: float) -> tuple[Losses, Costs]:
        held = near.near(Candidates(kept[None, graph.gate_of]))

        def costs(kept: np.ndarray) -> np.ndarray:
            edges = graph.sum_over_gates(graph.edges_of_each(kept[graph.gate_of]))
            return _for_each_edge(rises(held, kept), edges)

        return lambda sets: held.losses_up_to(Candidates(sets[:, graph.gate_of]), bound), costs

    for remove in (removal.remove_many, removal.thin, removal.try_doubtful):
        left = remove(losses, left, target, predict, progress)
    return Support(graph, left[graph.gate_of])


def minimize_edges(start: Support, evaluator: Evaluator, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) and every single edge that can go."""
    graph, evaluator = start.graph, evaluator.within_support(start.gates)
    gates = np.flatnonzero(graph.one_per_gate(start.gates))
    gone = [edge for edge, kept in zip(start.every, start.kept, strict=True) if not kept]
    items = [edge for edge, can_go in zip(start.every, start.can_go, strict=True) if can_go]
    places, ends = edge_places(graph.config, items + gone), _ends(graph, gates, items)

    def expand(sets: np.ndarray) -> Candidates:
        """Candidates from sets (N, open gates + items); edges that are gone stay so."""
        opened = np.zeros((len(sets), len(start.gates)), np.float32)
        opened[:, gates] = sets[:, : len(gates)]
        kept = np.concatenate([sets[:, len(gates) :], np.zeros((len(sets), len(gone)), np.float32)], axis=1)
        return Candidates(opened[:, graph.gate_of], places, kept)

    def support_of(kept: np.ndarray) -> Support:
        opened = expand(kept[None, :]).gates[0]
        dropped = {edge for edge, keep in zip(items, kept[len(gates) :], strict=True) if not keep}.union(gone)
        return Support(graph, opened, tuple(edge for edge in graph.edges(opened) if edge not in dropped))

    def losses_by(of: Evaluator, bound: float) -> Losses:
        return lambda sets: of.losses_up_to(expand(sets), bound)

    def costs_by(of: Evaluator) -> Costs:
        def costs(kept: np.ndarray) -> np.ndarray:
            of_nodes, of_edges = of.slopes(expand(kept[None, :]))
            rises = -np.concatenate([graph.sum_over_gates(of_nodes)[gates], of_edges[: len(items)]])
            return rises if near is None else _for_each_edge(rises, _edges_along(kept, ends))

        return costs

    def progress(kept: np.ndarray) -> None:
        report(f"{int(kept.sum())} nodes and edges left")

    losses, left = losses_by(evaluator, target), np.ones(len(gates) + len(items), np.float32)
    near = predictor(evaluator, start.gates)
    if near is None:
        left = removal.minimize(losses, left, target, costs_by(evaluator), progress)
    else:

        def predict(kept: np.ndarray, bound: float, near: Predictor = near) -> tuple[Losses, Costs]:
            held = near.near(expand(kept[None, :]))
            return losses_by(held, bound), costs_by(held)

        left = removal.remove_many(losses, left, target, predict, progress)
        if (smaller := support_of(left)).size <= start.size / 2:  # in a model restricted to it all is faster
            return minimize_edges(smaller, evaluator, target, report)
        for remove in (removal.thin, removal.try_doubtful):
            left = remove(losses, left, target, predict, progress)
    return support_of(left)


def keep_support(what: str, start: Support, stage: Callable[[], Support], stages: Stages) -> Support:
    """A minimized support, of an earlier call if it began at the same nodes (and edges, where some were pruned)."""
    begun: list[Json] = np.flatnonzero(start.gates).tolist()
    if start.pruned_to is not None:
        begun += [[*edge.source, *edge.target] for edge in start.pruned_to]
    name = f"{what} {hashlib.sha256(str(begun).encode()).hexdigest()[:16]}"
    return _from_tree(start.graph, stages.run(name, begun, lambda: _to_tree(stage())))


def _to_tree(support: Support) -> Tree:
    edges = support.pruned_to
    return {
        "gates": support.gates,
        "edges": None if edges is None else [[*e.source, *e.target, e.weight] for e in edges],
    }


def _from_tree(graph: ModelGraph, tree: Tree) -> Support:
    edges = tree["edges"]
    if edges is None:
        return Support(graph, tree["gates"])
    return Support(graph, tree["gates"], tuple(Edge(Node(*row[:3]), Node(*row[3:6]), row[6]) for row in edges))
