"""Rows about what is closed: other values for it, some of it open again, some of the circuit closed too."""

import dataclasses

import numpy as np

from sparse_gpt.circuits.evidence.card.connected import random_connected_circuits
from sparse_gpt.circuits.evidence.card.inside import run_within
from sparse_gpt.circuits.evidence.card.subject import (
    Measurement,
    Samples,
    Subject,
    fewer,
    losses,
    measured,
    not_applicable,
    probabilities,
)
from sparse_gpt.circuits.nodes import empty
from sparse_gpt.circuits.run import statistics
from sparse_gpt.circuits.run.calibration import Calibration, calibrate, choice_index, fit_many
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.task_batch import TaskBatch

SHARES = (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of closed nodes and edges that are restored
RESTORATIONS = 3  # draws per share
PARTS = 32  # random parts K of the circuit
CONNECTED = 24  # random connected circuits


def restoration(subject: Subject, samples: Samples) -> Measurement:
    """Task loss with a random share of closed nodes and removed edges left as they are in the model, one draw for all
    samples; the worst share counts."""
    rng, gates, own = np.random.default_rng(subject.seed), subject.gates, subject.edges[1]
    samples, _ = fewer(samples)
    shares = np.repeat(SHARES, RESTORATIONS)
    opened = [np.maximum(gates, rng.random(len(gates)) < share) for share in shares]
    kept = [np.maximum(own, rng.random(len(own)) < share) for share in shares]
    logits = samples.evaluator.logits(subject.masks(np.array(opened, np.float32), np.array(kept, np.float32)))
    each = losses(subject.calibrated(logits, samples)).reshape(len(SHARES), RESTORATIONS, -1)
    means = each.mean(axis=(1, 2))
    worst = int(np.argmax(means))
    found = statistics.nonnegative_mean(each[worst].mean(axis=0), samples.words)
    table = [
        {"share": share, "task_loss": float(mean), "worst_draw": float(worst_draw)}
        for share, mean, worst_draw in zip(SHARES, means, each.mean(axis=2).max(axis=1), strict=True)
    ]
    return measured(found, worst_share=SHARES[worst], shares=table)


def completeness(subject: Subject, samples: Samples) -> Measurement:
    """For random parts K of the circuit: the circuit without K against the model without K (Wang et al., 2022)."""
    nodes = np.flatnonzero(subject.gates)
    if len(nodes) < 2:
        return not_applicable("it takes two nodes to have parts")
    rng = np.random.default_rng(subject.seed)
    without = np.ones((PARTS, len(subject.gates)), np.float32)
    for row in without:
        row[rng.choice(nodes, int(rng.integers(1, max(2, len(nodes) // 2 + 1))), replace=False)] = 0
    circuit = subject.calibrated(samples.evaluator.logits(subject.masks(subject.gates * without)), samples)
    difference = np.abs(probabilities(circuit) - probabilities(samples.evaluator.logits(Masks(without))))
    found = statistics.nonnegative_mean(difference.mean(axis=0), samples.words)
    return measured(found, parts=PARTS, worst_part=float(difference.mean(axis=1).max()))


def random_connected(subject: Subject, samples: Samples) -> Measurement:
    """Rank of the circuit's loss among those of random connected circuits with as many nodes: 1/(1 + draws) when none
    is as good."""
    drawn = random_connected_circuits(subject.problem, subject.gates, CONNECTED, subject.seed)
    if drawn is None:
        return not_applicable("the model has no connected pieces of this size")
    fewer_samples, index = fewer(samples)
    evaluator = fewer_samples.evaluator
    logits = evaluator.logits(Masks(drawn))
    _, _, calibrated = fit_many(
        logits, evaluator.index, len(evaluator.shift_tokens), largest_scale=evaluator.largest_scale
    )
    own = float(losses(subject.circuit(samples)[index]).mean())
    rank = (1 + int(np.sum(calibrated <= own))) / (1 + CONNECTED)
    quantiles = {name: float(np.quantile(calibrated, q)) for name, q in (("lowest", 0), ("median", 0.5))}
    return Measurement(rank, details={"draws": CONNECTED, **quantiles, "circuit": own})


def ablation_values(subject: Subject, samples: Samples) -> Measurement:
    """Task loss with other values for what is closed, all else and the calibration unchanged; the worst counts.

    Zero and the mean over these prompts; and "resample": each sample takes the values of all closed nodes from the
    end of another sample's prompt.
    """
    problem, inner = subject.problem, run_within(subject, samples)
    config, own, evaluator = problem.graph.config, problem.settings.ablation, samples.evaluator
    values = {} if own == "zero" else {"zero": empty(config)}
    if own != "task_mean":
        values["task_mean"] = inner.means()
    found = {"its own": losses(subject.circuit(samples))}
    for name, other in values.items():
        gated = dataclasses.replace(evaluator.gated, ablation=other)
        logits = evaluator.of(gated).logits(subject.circuit_masks)[0]
        found[name] = losses(subject.calibrated(logits, samples))
    means = {name: float(each.mean()) for name, each in found.items()}
    means["resample"] = float(losses(inner.resampled(np.random.default_rng(subject.seed))).mean())
    worst = max(means, key=means.__getitem__)
    if worst == "resample":
        return Measurement(means[worst], details={"losses": means, "worst": worst})
    return measured(statistics.nonnegative_mean(found[worst], samples.words), losses=means, worst=worst)


def recalibrated(logits: np.ndarray, batch: TaskBatch, samples: Samples) -> np.ndarray:
    """Logits (B, 2) under the calibration that suits this batch best: what they could say at most."""
    tokens = samples.evaluator.shift_tokens
    index = choice_index(batch, tokens)
    scale, shift, _ = fit_many(logits[None], index, len(tokens))
    return calibrate(logits, Calibration(scale[0], shift[0]), index)
