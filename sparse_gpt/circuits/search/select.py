"""From S truncated rankings to one minimal circuit: minimize the smallest, keep the best, calibrate it.

Everything here looks at selection samples only, and of a path search at training samples that are not among them.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.circuits.search.fresh import Held, minimized_until_it_holds
from sparse_gpt.circuits.search.minimize import Report, keep_support, minimize_nodes, minimized
from sparse_gpt.circuits.search.ranking import Trials
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.records.search import FreshCheck

MANY = 700  # edges of a support, for which trying each of them alone would take long


class Selected(NamedTuple):
    """The smallest circuit that minimization made of the smallest supports at hand.

    Attributes:
        best_trial: index of the best trial.
        start: the support that was minimized to the fewest edges: "trial 3", or the name of a baseline.
        supports: by stage: "search", "nodes" (minimal in nodes), "edges" (minimal in nodes and edges, if asked for); in
            a path search, where fresh samples refused that, "given back 1", "edges 1" and so on.
            Only "search" when nothing reached the target, which leaves the trial with the lowest loss, or when every
            support is too large to be minimized, which leaves the one with the fewest edges.
        joined: fresh samples that have joined the selection, see fresh.py; None: none.
        checks: on fresh samples; empty where nothing was minimized, and in the paper's search.
    """

    best_trial: int
    start: str
    supports: dict[str, Support]
    joined: TaskBatch | None = None
    checks: tuple[FreshCheck, ...] = ()

    @property
    def support(self) -> Support:
        """That of the last stage."""
        return list(self.supports.values())[-1]


def select(
    problem: Problem,
    trials: Trials,
    others: Mapping[str, np.ndarray],
    stages: Stages | None = None,
    report: Report = lambda line: None,
) -> Selected:
    """Minimizes the smallest supports that reach the target, and takes the result with the fewest edges; of a path
    search, of those that fresh samples accept if there are any.

    Args:
        problem: its settings say how many supports are minimized, of how many nodes at most, and whether single edges
            are removed too.
        trials: of the searches.
        others: name -> gate vector (nodes,) of further supports that reach the target, such as those of the baselines:
            what is minimal is minimal, wherever the search for it began.
        stages: where minimized supports are kept.
        report: for a progress line.
    """
    stages, graph, settings = stages or Stages(), problem.graph, problem.settings
    indices = {f"trial {i}": i for i in np.argsort(trials.edges, kind="stable").tolist() if trials.reached[i]}
    lowest = int(np.argmin(trials.scores.loss))
    starts = {name: trials.gates[i] for name, i in indices.items()} | dict(others)
    if not starts:
        return Selected(lowest, f"trial {lowest}", {"search": Support(graph, trials.gates[lowest])})
    best = next(iter(indices.values()), lowest)
    by_size = sorted(starts, key=lambda name: graph.count_edges(starts[name]))
    first = [name for name in by_size if starts[name].sum() <= settings.refine_most][: settings.refine_trials]
    if not first:
        name = by_size[0]
        return Selected(indices.get(name, best), name, {"search": Support(graph, starts[name])})
    evaluator = problem.selection.within_support(np.max([starts[name] for name in first], axis=0))
    results: dict[str, Held] = {}
    for name in first:

        def report_of(line: str, name: str = name) -> None:
            report(f"{name}: {line}")

        # All of them together may be too many for a support of their own.
        within = evaluator.within_support(starts[name]).hardest_first(Masks(starts[name][None, :]))
        minimize = functools.partial(_minimize, problem, stages, report_of)
        results[name] = minimized_until_it_holds(problem, Support(graph, starts[name]), within, minimize, report_of)
    smallest = min(results, key=lambda name: (results[name].refused, len(results[name].support.edges)))
    held = results[smallest]
    supports = {"search": Support(graph, starts[smallest]), **held.supports}
    return Selected(indices.get(smallest, best), smallest, supports, held.joined, held.checks)


def _minimize(
    problem: Problem, stages: Stages, report: Report, start: Support, evaluator: Evaluator, failed: int
) -> dict[str, Support]:
    """Supports "nodes" and "edges", see `Selected`; `failed` tells apart what began at the same nodes and had other
    samples. Searches often end at the same nodes, which are minimized once.

    Nodes alone first leaves fewer edges than both together, and nothing of the slack for edges: each is then tried
    alone. So of more than MANY edges, and where some are pruned already, nodes and edges are removed together, and
    there is no "nodes".
    """
    suffix = f" {failed}" if failed else ""
    many = problem.settings.edges and problem.graph.count_edges(start.gates) > MANY
    together = many or start.pruned_to is not None
    supports: dict[str, Support] = {}

    def nodes() -> Support:
        return minimize_nodes(start, evaluator, problem.selection_target, report)

    if not together:
        supports["nodes"] = start = keep_support(f"nodes{suffix}", start, nodes, stages)
    if problem.settings.edges:

        def edges() -> Support:
            return minimized(problem, start, evaluator, report)

        supports["edges"] = keep_support(f"edges{suffix}", start, edges, stages)
    return supports
