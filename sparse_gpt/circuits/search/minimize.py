"""Circuits without what the task does not need: nodes and edges are dropped, checking the loss each time, until no
single one can go (of large models, as far as predicted losses tell, see `removal.try_doubtful`).

The search keeps nodes that no longer affect the loss (the paper calls them leftovers), and nodes bring every weight
between them. The circuit's loss stays at or below the target.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import from_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.edge_ablation import edge_places
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.thresholds import Predictor, predictor
from sparse_gpt.circuits.search import removal
from sparse_gpt.circuits.search.removal import Costs, Losses, Predict
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.io import Json, Tree
from sparse_gpt.records import Node

Report = Callable[[str], None]  # takes a line about the progress


class Items(Protocol):
    """Items of a support; a set of them is a vector (items,) of 0 and 1."""

    def masks(self, sets: np.ndarray) -> Masks:
        """The N circuits that sets (N, items) leave."""
        ...

    def of_items(self, of_nodes: np.ndarray, of_edges: np.ndarray) -> np.ndarray:
        """(items,) from a value for each node (nodes,) and for each edge of `masks` (E,)."""
        ...

    def edges_along(self, kept: np.ndarray) -> np.ndarray:
        """(items,) how many of a set's edges go when an item goes."""
        ...

    def support(self, kept: np.ndarray) -> Support:
        """What a set leaves."""
        ...


@dataclasses.dataclass(frozen=True)
class Nodes:
    """All nodes of a model, with every edge between them. An item is a gate: a node, or a tied pair."""

    graph: ModelGraph

    def masks(self, sets: np.ndarray) -> Masks:
        """See `Items`."""
        return Masks(sets[:, self.graph.gate_of])

    def of_items(self, of_nodes: np.ndarray, of_edges: np.ndarray) -> np.ndarray:
        """See `Items`."""
        del of_edges
        return self.graph.sum_over_gates(of_nodes)

    def edges_along(self, kept: np.ndarray) -> np.ndarray:
        """See `Items`."""
        return self.graph.sum_over_gates(self.graph.edges_of_each(kept[self.graph.gate_of]))

    def support(self, kept: np.ndarray) -> Support:
        """See `Items`."""
        return Support(self.graph, kept[self.graph.gate_of])


@dataclasses.dataclass(frozen=True)
class NodesAndEdges:
    """The gates that are open in a support, then those of its edges that can go. Edges that it has lost stay lost."""

    start: Support

    def masks(self, sets: np.ndarray) -> Masks:
        """See `Items`."""
        opened = np.zeros((len(sets), len(self.start.gates)), np.float32)
        opened[:, self._gates] = sets[:, : len(self._gates)]
        kept = np.concatenate([sets[:, len(self._gates) :], np.zeros((len(sets), len(self._lost)), np.float32)], axis=1)
        return Masks(opened[:, self.start.graph.gate_of], self._places, kept)

    def of_items(self, of_nodes: np.ndarray, of_edges: np.ndarray) -> np.ndarray:
        """See `Items`."""
        of_gates = self.start.graph.sum_over_gates(of_nodes)[self._gates]
        return np.concatenate([of_gates, of_edges[: len(self._edges)]])

    def edges_along(self, kept: np.ndarray) -> np.ndarray:
        """See `Items`."""
        count, ends = len(self._gates), self._ends
        there = kept[count:] * kept[ends[0]] * kept[ends[1]]
        of_gates = np.bincount(np.concatenate(ends), np.concatenate([there, there]), minlength=count)
        return np.concatenate([of_gates, there])

    def support(self, kept: np.ndarray) -> Support:
        """See `Items`."""
        graph, opened = self.start.graph, self.masks(kept[None, :]).gates[0]
        of_edges = zip(self._edges, kept[len(self._gates) :], strict=True)
        dropped = {edge for edge, keep in of_edges if not keep}.union(self._lost)
        return Support(graph, opened, tuple(edge for edge in graph.edges(opened) if edge not in dropped))

    @property
    def everything(self) -> np.ndarray:
        """(items,) the support itself."""
        return np.ones(len(self._gates) + len(self._edges), np.float32)

    @functools.cached_property
    def _gates(self) -> np.ndarray:
        return np.flatnonzero(self.start.graph.one_per_gate(self.start.gates))

    @functools.cached_property
    def _edges(self) -> list[Edge]:
        return [edge for edge, can_go in zip(self.start.every, self.start.can_go, strict=True) if can_go]

    @functools.cached_property
    def _lost(self) -> list[Edge]:
        return [edge for edge, kept in zip(self.start.every, self.start.kept, strict=True) if not kept]

    @functools.cached_property
    def _places(self) -> np.ndarray:
        return edge_places(self.start.graph.config, self._edges + self._lost)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """(2, edges) where the gates of the edges' sources and targets stand among the items."""
        graph = self.start.graph
        number = from_vector(np.arange(len(graph.gate_of)), graph.config)
        place = np.zeros(len(graph.gate_of), int)
        place[self._gates] = np.arange(len(self._gates))
        ends = [[number[end.site][end.layer, end.channel] for end in (e.source, e.target)] for e in self._edges]
        return place[graph.gate_of[np.array(ends, int).reshape(-1, 2).T]]


def minimized(problem: Problem, start: Support, evaluator: Evaluator, report: Report) -> Support:
    """A support without what can go at the selection target: nodes and edges together, or if the settings ask for no
    edges, nodes."""
    smallest = minimize_edges if problem.settings.edges else minimize_nodes
    return smallest(start, evaluator, problem.selection_target, report)


def minimize_nodes(start: Support, evaluator: Evaluator, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) that can go, see removal.py."""
    items = Nodes(start.graph)

    def progress(kept: np.ndarray) -> None:
        nonlocal evaluator
        report(f"{int(kept.sum())} nodes left")
        evaluator = evaluator.within_support(items.support(kept).gates)  # what is gone stays gone

    def losses(sets: np.ndarray) -> np.ndarray:
        return evaluator.losses_up_to(items.masks(sets), target)

    def margins(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        margin, slopes, foil_share = evaluator.margins(items.support(kept).gates)
        return margin, np.stack([start.graph.sum_over_gates(each) for each in slopes]), foil_share

    left = removal.screen(losses, start.graph.one_per_gate(start.gates), target, margins, progress)
    near = predictor(evaluator, items.support(left).gates)
    if near is None:
        left = removal.minimize(losses, left, target, lambda kept: _rises(items, evaluator, kept), progress)
    else:
        for remove in (removal.remove_many, removal.thin, removal.try_doubtful):
            left = remove(losses, left, target, _predict(items, near), progress)
    return items.support(left)


def minimize_edges(start: Support, evaluator: Evaluator, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) and every single edge that can go."""
    items, evaluator = NodesAndEdges(start), evaluator.within_support(start.gates)

    def progress(kept: np.ndarray) -> None:
        report(f"{int(kept.sum())} nodes and edges left")

    def losses(sets: np.ndarray) -> np.ndarray:
        return evaluator.losses_up_to(items.masks(sets), target)

    left, near = items.everything, predictor(evaluator, start.gates)
    if near is None:
        left = removal.minimize(losses, left, target, lambda kept: _rises(items, evaluator, kept), progress)
        return items.support(left)
    left = removal.remove_many(losses, left, target, _predict(items, near), progress)
    if (smaller := items.support(left)).size <= start.size / 2:  # in a model restricted to it all is faster
        return minimize_edges(smaller, evaluator, target, report)
    for remove in (removal.thin, removal.try_doubtful):
        left = remove(losses, left, target, _predict(items, near), progress)
    return items.support(left)


def _rises(items: Items, evaluator: Evaluator, kept: np.ndarray) -> np.ndarray:
    """(items,) what removing each of a set would add to the loss, by its slope."""
    return -items.of_items(*evaluator.slopes(items.masks(kept[None, :])))


def _predict(items: Items, near: Predictor) -> Predict:
    """What predicts losses near a set; costs are rises for every edge that goes along, because the aim is few edges."""

    def predict(kept: np.ndarray, bound: float) -> tuple[Losses, Costs]:
        held = near.near(items.masks(kept[None, :]))

        def costs(kept: np.ndarray) -> np.ndarray:
            rises = _rises(items, held, kept)
            return np.where(rises > 0, rises / np.maximum(1, items.edges_along(kept)), rises)

        return lambda sets: held.losses_up_to(items.masks(sets), bound), costs

    return predict


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
