"""What each node and each edge of a circuit is worth: the task loss without it, all else and the calibration as is."""

import numpy as np

from sparse_gpt.circuits.circuit import nodes_of
from sparse_gpt.circuits.nodes import from_vector
from sparse_gpt.circuits.problem import Candidate, Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.records.search import EdgeLoss, Importance, NodeLoss

MOST = 512  # nodes and edges together; larger circuits are not taken apart


def leave_one_out(problem: Problem, candidate: Candidate) -> Importance:
    """Task losses in nats, on at most ROWS held-out samples, of the circuit without each one of its nodes and edges;
    calibration unchanged.

    Returns:
        A loss per node and per edge. Edges from v that cannot be removed alone (see `edge_ablation.removable`) are left
        out. Both are empty when there are more than MOST items.
    """
    support, graph, calibration = candidate.support, problem.graph, candidate.calibration
    every, nodes = graph.edges(support.gates), np.flatnonzero(support.gates)
    present = set(support.kept_edges(graph))
    free = removable(graph.config, every, from_vector(support.gates, graph.config))
    edges = np.array([i for i, edge in enumerate(every) if free[i] and edge in present], int)
    count = len(nodes) + len(edges)
    if not 0 < count <= MOST:
        return Importance()
    gates = np.repeat(support.gates[None, :], count, axis=0)
    kept = np.repeat(np.array([[edge in present for edge in every]], np.float32), count, axis=0)
    gates[np.arange(len(nodes)), nodes] = 0
    kept[np.arange(len(nodes), count), edges] = 0
    losses = problem.heldout.on_few().losses(
        Candidates(gates, edge_places(graph.config, every), kept),
        np.repeat(np.asarray(calibration.scale)[None], count),
        np.repeat(np.asarray(calibration.shift)[None, :], count, axis=0),
    )
    names = nodes_of(from_vector(support.gates, graph.config))
    of_nodes, of_edges = np.split(losses, [len(nodes)])
    return Importance(
        nodes=tuple(NodeLoss(**n._asdict(), task_loss=float(loss)) for n, loss in zip(names, of_nodes, strict=True)),
        edges=tuple(
            EdgeLoss(source=every[i].source, target=every[i].target, task_loss=float(loss))
            for i, loss in zip(edges, of_edges, strict=True)
        ),
    )
