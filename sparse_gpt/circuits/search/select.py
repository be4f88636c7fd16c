"""From S searches to one minimal circuit: truncate every ranking, minimize the smallest, keep the best.

Everything here looks at selection samples only.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import from_vector, to_vector
from sparse_gpt.circuits.problem import Candidate, Problem, Support
from sparse_gpt.circuits.run import calibration
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.evaluator import Evaluator, Scores, largest_loss
from sparse_gpt.circuits.search import minimize, ranking
from sparse_gpt.circuits.search.mask_search import SearchResult
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.records import Node

Report = Callable[[str], None]  # takes a line about the progress


@flax.struct.dataclass
class Trials:
    """S searches, each ranking truncated at the target; every array has the leading axis S.

    Attributes:
        orders: (S, searched nodes) node indices, from the most to the least important.
        sizes: (S,) nodes kept.
        edges: (S,) edges between them.
        gates: (S, nodes).
        reached: (S,) whether the target was reached.
        scores: on selection samples.
    """

    orders: np.ndarray
    sizes: np.ndarray
    edges: np.ndarray
    gates: np.ndarray
    reached: np.ndarray
    scores: Scores


class Selected(NamedTuple):
    """The smallest circuit that minimization made of the smallest supports at hand.

    Attributes:
        best_trial: index of the best trial.
        start: the support that was minimized to the fewest edges: "trial 3", or the name of a baseline.
        supports: by stage: "search", "nodes" (minimal in nodes), "edges" (minimal in nodes and edges, if asked for).
            Only "search" when nothing reached the target, which leaves the trial with the lowest loss, or when every
            support is too large to be minimized, which leaves the one with the fewest edges.
    """

    best_trial: int
    start: str
    supports: dict[str, Support]

    @property
    def support(self) -> Support:
        """That of the last stage."""
        return list(self.supports.values())[-1]


def rank_and_truncate(problem: Problem, found: SearchResult) -> Trials:
    """Every search's ranking truncated to the smallest number of nodes whose calibrated selection loss is at most the
    selection target.

    Path searches have two rankings, by tau and, of what is open, by the averaged slope; that with fewer edges counts.
    """
    may_open, graph = problem.searchable_nodes, problem.graph
    taus, slopes = to_vector(found.tau), to_vector(found.attribution)
    pairs = list(zip(taus, slopes, strict=True))
    by_tau = _truncated(problem, [ranking.rank(tau, slope, may_open, graph.tied) for tau, slope in pairs], taus)
    if problem.settings.search == "paper":
        return by_tau
    by_slope = _truncated(problem, [ranking.rank_open(*pair, may_open, graph.tied) for pair in pairs], taus)
    better = (by_slope.reached & ~by_tau.reached) | (
        (by_slope.reached == by_tau.reached) & (by_slope.edges < by_tau.edges)
    )

    def chosen(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(better.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(chosen, by_slope, by_tau)


def _truncated(problem: Problem, rankings: list[np.ndarray], taus: np.ndarray) -> Trials:
    """One ranking per search, truncated; the bisection begins at the nodes with positive tau (S, nodes).

    What has only such nodes is evaluated within them, where that is faster.
    """
    may_open, selection, graph = problem.searchable_nodes, problem.selection, problem.graph
    orders, is_open = np.stack(rankings), (taus > 0) & (may_open > 0)
    opened = np.sum(is_open, axis=1)
    within_open = selection.within_support(np.any(is_open, axis=0).astype(np.float32)) if opened.all() else selection

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        evaluator = within_open if (sizes <= opened[which]).all() else selection
        return evaluator.within(Candidates(ranking.truncate(orders[which], sizes, graph.tied)), bounds)

    limit = np.full(len(orders), int(np.sum(may_open > 0)))
    sizes, reached = ranking.smallest_sizes(losses, opened, limit, problem.selection_target)
    gates = ranking.truncate(orders, sizes, graph.tied)
    edges = np.array([graph.count_edges(g) for g in gates])
    return Trials(orders, gates.sum(axis=1).astype(int), edges, gates, reached, selection(Candidates(gates)))


def select(
    problem: Problem,
    trials: Trials,
    others: Mapping[str, np.ndarray],
    stages: Stages | None = None,
    report: Report = lambda line: None,
) -> Selected:
    """Minimizes the smallest supports that reach the target, and takes the result with the fewest edges.

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
    lowest = int(np.argmin(trials.scores.calibrated))
    starts = {name: trials.gates[i] for name, i in indices.items()} | dict(others)
    if not starts:
        return Selected(lowest, f"trial {lowest}", {"search": Support(trials.gates[lowest])})
    best = next(iter(indices.values()), lowest)
    by_size = sorted(starts, key=lambda name: graph.count_edges(starts[name]))
    first = [name for name in by_size if starts[name].sum() <= settings.refine_most][: settings.refine_trials]
    if not first:
        name = by_size[0]
        return Selected(indices.get(name, best), name, {"search": Support(starts[name])})
    evaluator = problem.selection.within_support(np.max([starts[name] for name in first], axis=0))
    results: dict[str, dict[str, Support]] = {}
    for name in first:

        def report_of(line: str, name: str = name) -> None:
            report(f"{name}: {line}")

        # All of them together may be too many for a support of their own.
        within = evaluator.within_support(starts[name]).hardest_first(Candidates(starts[name][None, :]))
        results[name] = _minimize(problem, Support(starts[name]), within, stages, report_of)
    smallest = min(results, key=lambda name: len(list(results[name].values())[-1].kept_edges(graph)))
    return Selected(indices.get(smallest, best), smallest, results[smallest])


def calibrate(problem: Problem, support: Support) -> Candidate:
    """A support with the calibration fitted on selection samples."""
    selection = problem.selection
    logits = selection.logits(support.candidates(problem.graph))[0]
    fitted = selection.fit(logits)
    loss = largest_loss(calibration.calibrate(logits, fitted, selection.index), selection.batch)
    return Candidate(support, fitted, loss <= problem.settings.target_loss)


def _minimize(
    problem: Problem, start: Support, evaluator: Evaluator, stages: Stages, report: Report
) -> dict[str, Support]:
    """Supports by stage, see `Selected`. Searches often end at the same nodes, which are minimized once."""
    graph, target = problem.graph, problem.selection_target

    def nodes() -> Support:
        return minimize_nodes(start, evaluator, graph, target, report)

    supports = {"search": start, "nodes": keep_support("nodes", start, nodes, stages)}
    if problem.settings.edges:

        def edges() -> Support:
            return minimize_edges(supports["nodes"], evaluator, graph, target, report)

        supports["edges"] = keep_support("edges", supports["nodes"], edges, stages)
    return supports


def keep_support(what: str, start: Support, stage: Callable[[], Support], stages: Stages) -> Support:
    """A minimized support, of an earlier call if it began at the same nodes (and edges, where some were pruned)."""
    begun: list[Any] = np.flatnonzero(start.gates).tolist()
    if start.edges is not None:
        begun += [[*edge.source, *edge.target] for edge in start.edges]
    name = f"{what} {hashlib.sha256(str(begun).encode()).hexdigest()[:16]}"
    return _from_tree(stages.run(name, begun, lambda: _to_tree(stage())))


def _to_tree(support: Support) -> dict[str, Any]:
    edges = support.edges
    return {
        "gates": support.gates,
        "edges": None if edges is None else [[*e.source, *e.target, e.weight] for e in edges],
    }


def _from_tree(tree: Mapping[str, Any]) -> Support:
    edges = tree["edges"]
    if edges is None:
        return Support(tree["gates"])
    return Support(tree["gates"], tuple(Edge(Node(*row[:3]), Node(*row[3:6]), row[6]) for row in edges))


def minimize_nodes(start: Support, evaluator: Evaluator, graph: ModelGraph, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) that can go, see `minimize.screen` and `minimize.minimize`."""

    def losses(sets: np.ndarray) -> np.ndarray:
        return evaluator.within(Candidates(sets[:, graph.gate_of]), target)

    def margins(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        margin, slopes, foil_share = evaluator.margins(kept[graph.gate_of])
        return margin, np.stack([graph.sum_over_gates(each) for each in slopes]), foil_share

    def progress(left: int) -> None:
        report(f"{left} nodes left")

    def costs(kept: np.ndarray) -> np.ndarray:
        return graph.sum_over_gates(-evaluator.slopes(Candidates(kept[None, graph.gate_of]))[0])

    left = minimize.screen(losses, graph.one_per_gate(start.gates), target, margins, progress)
    left = minimize.minimize(losses, left, target, costs, progress)
    return Support(left[graph.gate_of])


def minimize_edges(start: Support, evaluator: Evaluator, graph: ModelGraph, target: float, report: Report) -> Support:
    """A support without every node (or tied pair) and every single edge that can go."""
    evaluator = evaluator.within_support(start.gates)
    gates, every = np.flatnonzero(graph.one_per_gate(start.gates)), graph.edges(start.gates)
    present, layered = set(start.kept_edges(graph)), from_vector(start.gates, graph.config)
    free = removable(graph.config, every, layered)
    gone = [edge for edge in every if edge not in present]
    items = [edge for edge, may_go in zip(every, free, strict=True) if may_go and edge in present]
    places = edge_places(graph.config, items + gone)

    def expand(sets: np.ndarray) -> Candidates:
        """Candidates from sets (N, open gates + items); edges that are gone stay so."""
        opened = np.zeros((len(sets), len(start.gates)), np.float32)
        opened[:, gates] = sets[:, : len(gates)]
        kept = np.concatenate([sets[:, len(gates) :], np.zeros((len(sets), len(gone)), np.float32)], axis=1)
        return Candidates(opened[:, graph.gate_of], places, kept)

    def costs(kept: np.ndarray) -> np.ndarray:
        of_nodes, of_edges = evaluator.slopes(expand(kept[None, :]))
        return -np.concatenate([graph.sum_over_gates(of_nodes)[gates], of_edges[: len(items)]])

    left = minimize.minimize(
        lambda sets: evaluator.within(expand(sets), target),
        np.ones(len(gates) + len(items), np.float32),
        target,
        costs,
        lambda n: report(f"{n} nodes and edges left"),
    )
    opened = expand(left[None, :]).gates[0]
    dropped = {edge for edge, keep in zip(items, left[len(gates) :], strict=True) if not keep}.union(gone)
    return Support(opened, tuple(edge for edge in graph.edges(opened) if edge not in dropped))
