"""From S finished searches to one minimal circuit: cut every ranking at the target, refine the smallest, keep the best.

Everything here looks at selection samples only.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.struct
import numpy as np

from sparse_gpt.circuits.circuit import Edge, count_edges, edges_between
from sparse_gpt.circuits.nodes import from_vector, partners, to_vector
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.evaluator import Candidates, Evaluator, Scores
from sparse_gpt.circuits.search import minimise, ranking
from sparse_gpt.circuits.search.mask_search import Found
from sparse_gpt.config import ModelConfig, PruneConfig
from sparse_gpt.parameters import Params

Report = Callable[[str], None]  # told what was reached, for a progress line


@dataclasses.dataclass(frozen=True)
class Weights:
    """The model as given: sizes and weights, for counting edges; and whether q and k share their gates."""

    config: ModelConfig
    params: Params
    tie_qk: bool = False

    @functools.cached_property
    def partners(self) -> np.ndarray:
        """(nodes,) see `gates.partners`."""
        return partners(self.config, self.tie_qk)

    @functools.cached_property
    def gate_of(self) -> np.ndarray:
        """(nodes,) of two partners the first: it stands for their gate."""
        return np.minimum(self.partners, np.arange(len(self.partners)))

    def per_gate(self, values: np.ndarray) -> np.ndarray:
        """(nodes,) sums over the nodes of each gate, at the node that stands for it; zeros elsewhere."""
        return np.bincount(self.gate_of, values, minlength=len(self.gate_of))

    def own_gates(self, gates: np.ndarray) -> np.ndarray:
        """A gate vector without the second ones of partners; index it by `gate_of` to have them back."""
        return gates * (self.gate_of == np.arange(len(self.gate_of)))

    def edges(self, gates: np.ndarray) -> tuple[Edge, ...]:
        """Every edge between the open nodes of a gate vector."""
        return edges_between(self.config, self.params, from_vector(gates, self.config))

    def count(self, gates: np.ndarray) -> int:
        """len(edges(gates))."""
        return count_edges(self.config, self.params, from_vector(gates, self.config))


@flax.struct.dataclass
class Trials:
    """S discretised searches; every array has the leading axis S.

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


@dataclasses.dataclass(frozen=True)
class Support:
    """What a circuit keeps: a gate vector (nodes,) and, when edges were pruned, those that are left (None: all)."""

    gates: np.ndarray
    edges: tuple[Edge, ...] | None = None

    def kept_edges(self, weights: Weights) -> tuple[Edge, ...]:
        """The edges of the circuit."""
        return weights.edges(self.gates) if self.edges is None else self.edges

    def candidates(self, weights: Weights) -> Candidates:
        """This support as one candidate."""
        if self.edges is None:
            return Candidates(self.gates[None, :])
        every, kept = weights.edges(self.gates), set(self.edges)
        mask = np.array([[edge in kept for edge in every]], np.float32)
        return Candidates(self.gates[None, :], edge_places(weights.config, every), mask)


def discretised(found: Found, may_open: np.ndarray, selection: Evaluator, weights: Weights, target: float) -> Trials:
    """Every trial cut at the smallest number of nodes whose calibrated selection loss is at most `target`."""
    pairs = zip(to_vector(found.tau), to_vector(found.attribution), strict=True)
    orders = np.stack([ranking.ranking(t, a, may_open, weights.partners) for t, a in pairs])

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        return selection.within(Candidates(ranking.cut(orders[which], sizes, weights.partners)), bounds)

    opened = np.sum((to_vector(found.tau) > 0) & (may_open > 0), axis=1)
    limit = np.full(len(orders), int(np.sum(may_open > 0)))
    sizes, reached = ranking.smallest_sizes(losses, opened, limit, target)
    gates = ranking.cut(orders, sizes, weights.partners)
    edges = np.array([weights.count(g) for g in gates])
    return Trials(orders, gates.sum(axis=1).astype(int), edges, gates, reached, selection(Candidates(gates)))


def refined_nodes(gates: np.ndarray, on: Evaluator, weights: Weights, target: float, report: Report) -> np.ndarray:
    """The gate vector without every node (or pair of partners) that can go, see `refine.minimal`."""
    left = minimise.minimal(
        lambda sets: on.within(Candidates(sets[:, weights.gate_of]), target),
        weights.own_gates(gates),
        target,
        lambda kept: weights.per_gate(-on.slopes(Candidates(kept[None, weights.gate_of]))[0]),
        lambda left: report(f"{left} nodes left"),
    )
    return left[weights.gate_of]


def refined_edges(support: Support, on: Evaluator, weights: Weights, target: float, report: Report) -> Support:
    """The circuit without every node (or pair of partners) and every single edge that can go."""
    on = on.within_support(support.gates)
    open_nodes, present = np.flatnonzero(weights.own_gates(support.gates)), set(support.kept_edges(weights))
    every = weights.edges(support.gates)
    free = removable(weights.config, every, from_vector(support.gates, weights.config))
    gone = [edge for edge in every if edge not in present]
    items = [edge for edge, may_go in zip(every, free, strict=True) if may_go and edge in present]
    places = edge_places(weights.config, items + gone)

    def expand(sets: np.ndarray) -> Candidates:
        """Candidates from sets (N, open gates + items); edges that are gone stay so."""
        gates = np.zeros((len(sets), len(support.gates)), np.float32)
        gates[:, open_nodes] = sets[:, : len(open_nodes)]
        kept = np.concatenate([sets[:, len(open_nodes) :], np.zeros((len(sets), len(gone)), np.float32)], axis=1)
        return Candidates(gates[:, weights.gate_of], places, kept)

    def costs(kept: np.ndarray) -> np.ndarray:
        nodes, edges = on.slopes(expand(kept[None, :]))
        return -np.concatenate([weights.per_gate(nodes)[open_nodes], edges[: len(items)]])

    start = np.ones(len(open_nodes) + len(items), np.float32)
    left = minimise.minimal(
        lambda sets: on.within(expand(sets), target),
        start,
        target,
        costs,
        lambda n: report(f"{n} nodes and edges left"),
    )
    candidate = expand(left[None, :])
    dropped = {edge for edge, keep in zip(items, left[len(open_nodes) :], strict=True) if not keep}.union(gone)
    gates = candidate.gates[0]
    return Support(gates, tuple(edge for edge in weights.edges(gates) if edge not in dropped))


def smallest(
    trials: Trials,
    others: Mapping[str, np.ndarray],
    selection: Evaluator,
    weights: Weights,
    target: float,
    prune: PruneConfig,
    report: Report,
) -> tuple[int, str, dict[str, Support]]:
    """The best trial, and the smallest circuit that refinement makes of the smallest supports at hand.

    Args:
      trials: discretised searches.
      others: name -> gate vector (nodes,) of further supports that reach the target, such as those of the baselines:
        what is minimal is minimal, wherever the search for it began.
      selection: where losses are measured.
      weights: of the model.
      target: task loss in nats.
      prune: how many of the supports with the fewest edges are refined, of how many nodes at most, and whether single
        edges are removed too.
      report: told of the progress.

    Returns:
      the index of the best trial, the name of the support that was refined to the fewest edges ("trial 3", or one of
      `others`), and its supports by stage: "search", "nodes" (minimal in nodes) and, if asked for, "edges" (minimal in
      nodes and edges). Only "search" when nothing reached the target, which leaves the trial with the lowest loss, or
      when everything is too large to be refined, which leaves the support with the fewest edges.
    """
    names = {f"trial {i}": i for i in np.argsort(trials.edges, kind="stable").tolist() if trials.reached[i]}
    lowest = int(np.argmin(trials.scores.calibrated))
    starts = {name: trials.gates[i] for name, i in names.items()} | dict(others)
    if not starts:
        return lowest, f"trial {lowest}", {"search": Support(trials.gates[lowest])}
    by_size = sorted(starts, key=lambda name: weights.count(starts[name]))
    first = [name for name in by_size if starts[name].sum() <= prune.refine_most][: prune.refine_trials]
    if not first:
        chosen = by_size[0]
        return names.get(chosen, next(iter(names.values()), lowest)), chosen, {"search": Support(starts[chosen])}
    on = selection.within_support(np.max([starts[name] for name in first], axis=0))
    results: dict[str, dict[str, Support]] = {}
    known: dict[bytes, Support] = {}
    for name in first:

        def told(text: str, name: str = name) -> None:
            report(f"{name}: {text}")

        own = on.within_support(starts[name])  # all of them together may be too many
        results[name] = refined(starts[name], own, weights, target, prune.edges, told, known)
    chosen = min(results, key=lambda name: len(list(results[name].values())[-1].kept_edges(weights)))
    return names.get(chosen, next(iter(names.values()), lowest)), chosen, results[chosen]


def refined(
    gates: np.ndarray,
    on: Evaluator,
    weights: Weights,
    target: float,
    edges: bool,
    report: Report,
    known: dict[bytes, Support],
) -> dict[str, Support]:
    """Supports by stage, see `smallest`. Searches often end at the same nodes: `known` keeps what became of them."""
    stages = {"search": Support(gates), "nodes": Support(refined_nodes(gates, on, weights, target, report))}
    if edges:
        key = stages["nodes"].gates.tobytes()
        if key not in known:
            known[key] = refined_edges(stages["nodes"], on, weights, target, report)
        stages["edges"] = known[key]
    return stages
