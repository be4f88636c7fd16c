"""From S finished searches to one minimal circuit: cut every ranking at the target, refine the smallest, keep the best.

Everything here looks at validation samples only.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from sparse_gpt.circuits import discretise, refine
from sparse_gpt.circuits.circuit import Edge, count_edges, edges_between
from sparse_gpt.circuits.evaluate import Evaluator, Scores
from sparse_gpt.circuits.gates import from_vector, to_vector
from sparse_gpt.circuits.rewire import edge_places, removable
from sparse_gpt.circuits.search import Found
from sparse_gpt.config import ModelConfig
from sparse_gpt.model.parameters import Params

Report = Callable[[str], None]  # told what was reached, for a progress line


@dataclasses.dataclass(frozen=True)
class Weights:
    """The model as given: sizes and weights, for counting edges."""

    config: ModelConfig
    params: Params

    def edges(self, gates: np.ndarray) -> tuple[Edge, ...]:
        """Every edge between the open nodes of a gate vector."""
        return edges_between(self.config, self.params, from_vector(gates, self.config))

    def count(self, gates: np.ndarray) -> int:
        """len(edges(gates))."""
        return count_edges(self.config, self.params, from_vector(gates, self.config))


@dataclasses.dataclass(frozen=True)
class Trials:
    """S discretised searches.

    Attributes:
      orders: per trial, node indices from the most to the least important.
      sizes: (S,) nodes kept.
      edges: (S,) edges between them.
      gates: (S, nodes).
      reached: (S,) whether the target was reached.
      scores: on validation samples.
    """

    orders: list[np.ndarray]
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

    def logits(self, evaluator: Evaluator, weights: Weights) -> np.ndarray:
        """(B, 2) answer and foil logits on the evaluator's batch."""
        if self.edges is None:
            return evaluator.logits(self.gates[None, :])[0]
        every, kept = weights.edges(self.gates), set(self.edges)
        mask = np.array([[edge in kept for edge in every]], np.float32)
        return evaluator.logits(self.gates[None, :], edge_places(weights.config, every), mask)[0]


def discretised(found: Found, may_open: np.ndarray, validation: Evaluator, weights: Weights, target: float) -> Trials:
    """Every trial cut at the smallest number of nodes whose calibrated validation loss is at most `target`."""
    tau, attribution, nodes = to_vector(found.tau), to_vector(found.attribution), may_open.size
    orders = [discretise.ranking(t, a, may_open) for t, a in zip(tau, attribution, strict=True)]

    def cut(sizes: np.ndarray) -> np.ndarray:
        return np.stack([discretise.first_k(order, k, nodes) for order, k in zip(orders, sizes, strict=True)])

    opened = np.sum((tau > 0) & (may_open > 0), axis=1)
    limit = np.full(len(orders), int(np.sum(may_open > 0)))
    sizes, reached = discretise.smallest_sizes(lambda k: validation(cut(k)).calibrated, opened, limit, target)
    gates = cut(sizes)
    return Trials(orders, sizes, np.array([weights.count(g) for g in gates]), gates, reached, validation(gates))


def refined_nodes(gates: np.ndarray, validation: Evaluator, target: float, report: Report) -> np.ndarray:
    """The gate vector without every node that can go, see `refine.minimal`."""
    return refine.minimal(
        lambda sets: validation(sets).calibrated, gates, target, lambda left: report(f"{left} nodes left")
    )


def refined_edges(gates: np.ndarray, validation: Evaluator, weights: Weights, target: float, report: Report) -> Support:
    """The circuit without every node and every single edge that can go."""
    layered, open_nodes = from_vector(gates, weights.config), np.flatnonzero(gates)
    every = weights.edges(gates)
    free = removable(weights.config, every, layered)
    candidates = [edge for edge, may_go in zip(every, free, strict=True) if may_go]
    places = edge_places(weights.config, candidates)

    def expand(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidate sets (N, open nodes + candidate edges) as gate vectors and edge vectors."""
        vectors = np.zeros((len(items), len(gates)), np.float32)
        vectors[:, open_nodes] = items[:, : len(open_nodes)]
        return vectors, items[:, len(open_nodes) :]

    def losses(items: np.ndarray) -> np.ndarray:
        vectors, kept = expand(items)
        return validation(vectors, places, kept).calibrated

    start = np.ones(len(open_nodes) + len(candidates), np.float32)
    items = refine.minimal(losses, start, target, lambda left: report(f"{left} nodes and edges left"))
    (vector,), (kept,) = expand(items[None, :])
    dropped = {edge for edge, keep in zip(candidates, kept, strict=True) if not keep}
    return Support(vector, tuple(edge for edge in weights.edges(vector) if edge not in dropped))


def smallest(
    trials: Trials,
    validation: Evaluator,
    weights: Weights,
    target: float,
    refine_trials: int,
    edges: bool,
    report: Report,
) -> tuple[int, dict[str, Support]]:
    """The best trial and what refinement made of it.

    Args:
      trials: discretised searches.
      validation: where losses are measured.
      weights: of the model.
      target: task loss in nats.
      refine_trials: how many of the smallest trials are refined.
      edges: whether single edges are removed too.
      report: told of the progress.

    Returns:
      the trial's index and its supports by stage: "search", "nodes" (minimal in nodes) and, if asked for, "edges"
      (minimal in nodes and edges). When no trial reached the target, the one with the lowest loss as it is.
    """
    if not trials.reached.any():
        best = int(np.argmin(trials.scores.calibrated))
        return best, {"search": Support(trials.gates[best])}
    results: list[tuple[int, dict[str, Support]]] = []
    for trial in [int(i) for i in np.argsort(trials.edges, kind="stable") if trials.reached[i]][:refine_trials]:

        def told(text: str, trial: int = trial) -> None:
            report(f"trial {trial}: {text}")

        nodes = refined_nodes(trials.gates[trial], validation, target, told)
        stages = {"search": Support(trials.gates[trial]), "nodes": Support(nodes)}
        if edges:
            stages["edges"] = refined_edges(nodes, validation, weights, target, told)
        results.append((trial, stages))
    return min(results, key=lambda result: len(list(result[1].values())[-1].kept_edges(weights)))
