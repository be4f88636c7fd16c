"""What each node and each edge of a circuit is worth: the task loss without it, all else and the calibration as is."""

from typing import Any

import numpy as np

from sparse_gpt.circuits.circuit import Edge, nodes_of
from sparse_gpt.circuits.nodes import from_vector
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.evaluator import Candidates, Evaluator
from sparse_gpt.circuits.search.select import Support, Weights

MOST = 512  # nodes and edges together; larger circuits are not taken apart


def single_removals(support: Support, own: Calibration, heldout: Evaluator, weights: Weights) -> dict[str, Any]:
    """Held-out task losses in nats of the circuit without each one of its nodes and edges.

    Args:
      support: the circuit.
      own: its calibration, not fitted anew.
      heldout: where losses are measured.
      weights: of the model.

    Returns:
      {"nodes": [{layer, site, channel, task_loss}], "edges": [{from, to, task_loss}]}. Edges from v that cannot be
      removed alone (see `rewire.removable`) are left out. Both lists are empty when there are more than MOST items.
    """
    every, nodes = weights.edges(support.gates), np.flatnonzero(support.gates)
    edges = _free_edges(support, every, weights)
    count = len(nodes) + len(edges)
    if not 0 < count <= MOST:
        return {"nodes": [], "edges": []}
    present = set(support.kept_edges(weights))
    gates = np.repeat(support.gates[None, :], count, axis=0)
    kept = np.repeat(np.array([[edge in present for edge in every]], np.float32), count, axis=0)
    gates[np.arange(len(nodes)), nodes] = 0
    kept[np.arange(len(nodes), count), edges] = 0
    losses = heldout.losses(
        Candidates(gates, edge_places(weights.config, every), kept),
        np.repeat(np.asarray(own.scale)[None], count),
        np.repeat(np.asarray(own.shift)[None, :], count, axis=0),
    )
    names = nodes_of(from_vector(support.gates, weights.config))
    return {
        "nodes": [
            {**node._asdict(), "task_loss": float(loss)} for node, loss in zip(names, losses[: len(nodes)], strict=True)
        ],
        "edges": [
            {"from": list(every[i].source), "to": list(every[i].target), "task_loss": float(loss)}
            for i, loss in zip(edges, losses[len(nodes) :], strict=True)
        ],
    }


def _free_edges(support: Support, every: tuple[Edge, ...], weights: Weights) -> np.ndarray:
    """Indices of the edges of `every` that are in the circuit and can be removed alone."""
    present = set(support.kept_edges(weights))
    free = removable(weights.config, every, from_vector(support.gates, weights.config))
    return np.array([i for i, edge in enumerate(every) if free[i] and edge in present], int)
