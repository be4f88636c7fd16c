"""Faithfulness over the share of edges, as the Mechanistic Interpretability Benchmark measures it (Mueller et al.,
2025), for the ranking that begins with the circuit's own nodes."""

import numpy as np

from sparse_gpt.circuits.evidence.card.subject import Measurement, Samples, Subject, not_applicable
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.search import integrated_gradients, ranking

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of edges


def mib_cmd(subject: Subject, samples: Samples) -> Measurement:
    """CMD: area between faithfulness and 1; beside it CPR, the area under faithfulness.

    f(k) = (m(k) - m(0)) / (m(all) - m(0)) with m the mean logit difference, uncalibrated, of the first nodes of the
    ranking that have a share k of all edges. Nodes of the circuit come first, then the others, each by integrated
    gradients on selection samples.
    """
    graph, may_open = subject.problem.graph, subject.problem.searchable_nodes
    order = _order(subject, may_open)
    total = graph.count_edges(may_open)
    sizes = np.array([_size(subject, order, share * total) for share in SHARES[:-1]] + [len(order)])
    gates = ranking.truncate([order] * len(sizes), sizes, graph.tied)
    closed, full = np.zeros((1, len(may_open)), np.float32), np.ones((1, len(may_open)), np.float32)
    logits = samples.evaluator.logits(Masks(np.concatenate([closed, full, gates])))
    margins = (logits[..., 0] - logits[..., 1]).mean(axis=1, dtype=np.float64)
    nothing, everything, points = margins[0], margins[1], margins[2:]
    if abs(everything - nothing) < 1e-6:
        return not_applicable("the model's logit difference is that of no nodes at all")
    faithfulness = (points - nothing) / (everything - nothing)
    table = [
        {"share": share, "nodes": int(size), "faithfulness": float(f)}
        for share, size, f in zip(SHARES, sizes, faithfulness, strict=True)
    ]
    areas = {
        "cpr": float(np.trapezoid(faithfulness, SHARES)),
        "cmd_log": float(np.trapezoid(np.abs(1 - faithfulness), np.log(SHARES)) / -np.log(SHARES[0])),
    }
    cmd = float(np.trapezoid(np.abs(1 - faithfulness), SHARES))
    return Measurement(cmd, details={**areas, "edges": total, "points": table})


def _order(subject: Subject, may_open: np.ndarray) -> np.ndarray:
    graph, scores = subject.problem.graph, integrated_gradients.scores(subject.problem.selection)
    together = graph.shared(scores)
    first = np.where(subject.gates > 0, together.max() - together.min() + 1, 0.0)
    return ranking.rank(together + first, np.zeros(len(scores)), may_open, graph.tied)


def _size(subject: Subject, order: np.ndarray, wanted: float) -> int:
    """The largest number of first nodes with at most `wanted` edges between them."""
    graph, low, high = subject.problem.graph, 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        enough = graph.count_edges(ranking.first_k(order, middle, graph.tied)) <= wanted
        low, high = (middle, high) if enough else (low, middle)
    return low
