"""Two nested circuits: the complete one holds on every template family that was searched, the minimal one inside it on
one family alone, as circuits of the paper do.

What the complete one has and the minimal one lacks is what the other families need, such as telling a finished string
from an open one, and what it takes to be as loud, and as sure of every word, as the complete one must be.
"""

from collections.abc import Callable

from sparse_gpt.circuits.problem import Candidate, Problem, Support
from sparse_gpt.circuits.search.minimize import keep_support, minimize_edges, minimize_nodes
from sparse_gpt.circuits.search.select import calibrate
from sparse_gpt.circuits.stages import Stages

MAIN = "main"


def first_family(problem: Problem) -> str:
    """The family that a minimal circuit is for: main, or the first one that was searched."""
    families = list(problem.samples.families)
    return MAIN if MAIN in families else families[0]


def minimize_within(
    problem: Problem, complete: Support, stages: Stages, report: Callable[[str], None] = lambda line: None
) -> Candidate:
    """The complete support without every node, and every edge, that the problem's own family does not need.

    Args:
        problem: of one family, see `Problem.on_family`.
        complete: nodes and edges to choose among; its loss on the family is at most the selection target.
        stages: where the result is kept.
        report: for a progress line.
    """
    graph, target = problem.graph, problem.selection_target
    evaluator = problem.selection.within_support(complete.gates)

    def minimal() -> Support:
        smallest = minimize_edges if problem.settings.edges else minimize_nodes
        return smallest(complete, evaluator, graph, target, report)

    (family,) = problem.samples.families
    return calibrate(problem, keep_support(f"minimal, {family}", complete, minimal, stages))
