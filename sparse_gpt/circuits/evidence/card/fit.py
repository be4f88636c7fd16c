"""Rows about what the circuit answers: losses, agreement, calibration, words, necessity."""

import numpy as np

from sparse_gpt.circuits.evidence.card.subject import Measurement, Samples, Subject, losses, measured, not_applicable
from sparse_gpt.circuits.run import statistics

SHOWN_WORDS = 5


def task_loss(subject: Subject, samples: Samples) -> Measurement:
    """Mean task loss, calibrated; the model's own and the uncalibrated one beside it."""
    found = statistics.nonnegative_mean(losses(subject.circuit(samples)), samples.words)
    excess = statistics.mean(losses(subject.circuit(samples)) - losses(subject.model(samples)), samples.words)
    return measured(
        found,
        uncalibrated=float(np.mean(losses(subject.plain(samples)))),
        model=float(np.mean(losses(subject.model(samples)))),
        above_model=excess.value,
        above_model_interval=excess.interval and list(excess.interval),
    )


def accuracy(subject: Subject, samples: Samples) -> Measurement:
    """Share of samples whose answer beats its foil; of pairs whose two answers do."""
    right, model = _right(subject.circuit(samples)), _right(subject.model(samples))
    pairs = {} if samples.role == "wild" else {"pairs": float(np.mean(right[0::2] & right[1::2]))}
    return measured(statistics.share(right, samples.words), "", model=float(np.mean(model)), **pairs)


def agreement(subject: Subject, samples: Samples) -> Measurement:
    """Share of samples on which circuit and model prefer the same one of the two, right or wrong."""
    same = _right(subject.circuit(samples)) == _right(subject.model(samples))
    return measured(statistics.share(same, samples.words))


def binary_kl(subject: Subject, samples: Samples) -> Measurement:
    """Mean divergence of the circuit's two-way answer from the model's, in nats."""
    model, circuit = subject.model(samples), subject.circuit(samples)
    total = np.zeros(len(model))
    for swap in (slice(None), slice(None, None, -1)):
        of_model, of_circuit = losses(model[:, swap]), losses(circuit[:, swap])
        total += np.exp(-of_model) * (of_circuit - of_model)
    return measured(statistics.nonnegative_mean(total, samples.words))


def worst_word(subject: Subject, samples: Samples) -> Measurement:
    """The largest mean loss over the prompts of one final free word."""
    if samples.role == "wild":
        return not_applicable("natural text has no free words: each place is one of its own")
    ordered = statistics.by_cluster(losses(subject.circuit(samples)), samples.words)
    shown = [{"word": word, "task_loss": loss, "samples": count} for word, loss, count in ordered[:SHOWN_WORDS]]
    above = sum(loss > np.log(2) for _, loss, _ in ordered)
    return Measurement(ordered[0][1], None, len(ordered), {"words": shown, "words_worse_than_a_coin": above})


def necessity(subject: Subject, samples: Samples) -> Measurement:
    """Task loss of the model with the circuit's nodes ablated."""
    return measured(statistics.nonnegative_mean(losses(subject.ablated(samples)), samples.words))


def calibration_scale(subject: Subject, samples: Samples) -> Measurement:
    """The factor of all logits."""
    scale = float(np.asarray(subject.candidate.calibration.scale))
    return Measurement(scale, note="at its upper bound" if scale > 0.999 * samples.evaluator.largest_scale else "")


def _right(logits: np.ndarray) -> np.ndarray:
    return logits[:, 0] > logits[:, 1]
