"""The circuit of a task in a model whose weights are near those of a known circuit, such as the checkpoint before.

No masks are searched. What is minimized is the first of these that reaches the target:
  1. the known circuit, with the edges that it has here, and those that are new;
  2. its nodes with all edges between them;
  3. its nodes and as many others as it takes, in the order of integrated gradients.
"""

from typing import NamedTuple

import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.search import integrated_gradients, ranking
from sparse_gpt.circuits.search.minimize import Report, minimize_nodes, minimized
from sparse_gpt.records import Node

Ends = tuple[Node, Node]


class Known(NamedTuple):
    """What of a circuit has a meaning in a model with other weights.

    Attributes:
        gates: (nodes,) 1 at its nodes.
        removed: edges between them that its own model has, and it has not.
    """

    gates: np.ndarray
    removed: frozenset[Ends]

    @classmethod
    def of(cls, support: Support) -> "Known":
        """That of a support in its own model."""
        kept = {ends(edge) for edge in support.edges}
        return cls(support.gates, frozenset(ends(edge) for edge in support.every) - kept)

    def support(self, problem: Problem) -> Support:
        """The circuit in the model of a problem: nodes that lead anywhere there, and edges that were not removed."""
        graph, gates = problem.graph, self.gates * problem.searchable_nodes
        if not problem.settings.edges:
            return Support(graph, gates)
        return Support(graph, gates, tuple(edge for edge in graph.edges(gates) if ends(edge) not in self.removed))


def search_from(problem: Problem, known: Known, report: Report = lambda line: None) -> Candidate | None:
    """A circuit that no node and no edge can leave; None where no number of nodes reaches the target.

    Args:
        problem: its settings say whether edges are removed, and of how many nodes at most a circuit is minimized.
        known: where to start.
        report: for a progress line.
    """
    start = known.support(problem)
    if not _reaches(problem, start):
        start = Support(start.graph, start.gates)
        if not _reaches(problem, start):
            start = grown(problem, start.gates)
            if not _reaches(problem, start):
                return None
    candidate = problem.candidate(_minimal(problem, start, report))
    return candidate if candidate.reached else None


def grown(problem: Problem, gates: np.ndarray) -> Support:
    """Open nodes of gates (nodes,) and as few others as reach the target, or come nearest to it, in the order of
    integrated gradients."""
    graph, selection = problem.graph, problem.selection
    scores = graph.shared(integrated_gradients.scores(selection))
    order = ranking.rank(gates, -scores, problem.searchable_nodes, graph.tied)
    opened = int(gates.sum())

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        del which  # there is one ranking
        return selection.losses_up_to(Masks(ranking.truncate([order] * len(sizes), sizes, graph.tied)), bounds)

    first = np.array([max(2 * opened, integrated_gradients.FIRST_SIZE)])
    limit, low = np.array([len(order)]), np.array([opened])
    sizes, _ = ranking.smallest_sizes(losses, np.minimum(first, limit), limit, problem.selection_target, low)
    return Support(graph, ranking.first_k(order, int(sizes[0]), graph.tied))


def _minimal(problem: Problem, start: Support, report: Report) -> Support:
    """`start` without what can go. One that had edges removed already keeps them so."""
    if start.size > problem.settings.refine_most:
        return start
    evaluator = problem.selection.within_support(start.gates)
    if start.pruned_to is None:
        start = minimize_nodes(start, evaluator, problem.selection_target, report)
    return minimized(problem, start, evaluator, report) if problem.settings.edges else start


def _reaches(problem: Problem, support: Support) -> bool:
    target = problem.selection_target
    return bool(support.size) and bool(problem.selection.losses_up_to(support.masks, target)[0] <= target)


def ends(edge: Edge) -> Ends:
    """What an edge joins."""
    return edge.source, edge.target
