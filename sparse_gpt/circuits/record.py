"""What a search tells about itself: the parts of search.json ("sparse_gpt.search/1"). Losses are on held-out samples,
each after a calibration fitted on selection samples, unless said otherwise."""

from typing import Any

import numpy as np

from sparse_gpt.circuits import discretise
from sparse_gpt.circuits.evaluate import Candidates, Evaluator, random_gates, task_loss
from sparse_gpt.circuits.search import Found, Hyperparameters
from sparse_gpt.circuits.trials import Support, Trials, Weights

HISTORY_POINTS = 100


def trial_records(h: Hyperparameters, trials: Trials, heldout: Evaluator) -> list[dict[str, Any]]:
    """One entry per search: hyperparameters, size at the target before refinement, loss."""
    losses = heldout.losses(Candidates(trials.gates), trials.scores.scale, trials.scores.shift)
    return [
        {
            "trial": i,
            **{name: np.asarray(values)[i].item() for name, values in h._asdict().items()},
            "nodes": int(trials.sizes[i]),
            "edges": int(trials.edges[i]),
            "task_loss": float(losses[i]),
            "reached": bool(trials.reached[i]),
        }
        for i in range(len(trials.orders))
    ]


def history(found: Found) -> list[dict[str, Any]]:
    """At most HISTORY_POINTS steps of all searches: loss of the step's training batch, open gates."""
    steps = found.loss.shape[1]
    at = np.unique(np.linspace(0, steps - 1, min(steps, HISTORY_POINTS)).round().astype(int))
    return [
        {"step": int(s), "loss": found.loss[:, s].tolist(), "open_nodes": found.open_nodes[:, s].astype(int).tolist()}
        for s in at
    ]


def loss_versus_size(
    order: np.ndarray, selection: Evaluator, heldout: Evaluator, weights: Weights
) -> list[dict[str, float]]:
    """Loss of the first k nodes of a ranking, over geometrically growing k."""
    sizes = discretise.size_grid(len(order))
    gates = np.stack([discretise.first_k(order, int(k), heldout.nodes) for k in sizes])
    fitted = selection(Candidates(gates))
    losses = heldout.losses(Candidates(gates), fitted.scale, fitted.shift)
    return [
        {"nodes": int(k), "edges": weights.count(g), "task_loss": float(loss)}
        for k, g, loss in zip(sizes, gates, losses, strict=True)
    ]


def random_circuits(
    gates: np.ndarray, selection: Evaluator, heldout: Evaluator, draws: int, seed: int
) -> dict[str, Any]:
    """Losses of random circuits with as many nodes at every site and layer: as they are, and each calibrated."""
    drawn = random_gates(gates, heldout.gated.model.config, draws, seed)
    fitted = selection(Candidates(drawn))
    return {
        "draws": draws,
        "task_loss": [task_loss(logits) for logits in heldout.logits(Candidates(drawn))],
        "task_loss_calibrated": heldout.losses(Candidates(drawn), fitted.scale, fitted.shift).tolist(),
    }


def stages(
    supports: dict[str, Support], selection: Evaluator, heldout: Evaluator, weights: Weights
) -> list[dict[str, Any]]:
    """Size and loss of the best trial after the search and after each refinement."""
    entries = []
    for name, support in supports.items():
        candidate = support.candidates(weights)
        fitted = selection(candidate)
        loss = float(heldout.losses(candidate, fitted.scale, fitted.shift)[0])
        size = {"nodes": int(support.gates.sum()), "edges": len(support.kept_edges(weights))}
        entries.append({"stage": name, **size, "task_loss": loss})
    return entries
