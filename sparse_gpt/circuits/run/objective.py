"""What logits are worth: what a search minimizes, the task loss or the divergence from the model's own answer, and what
is reported beside it.

The divergence is KL(model || circuit) between the two-way answers, answer against foil, of the whole model and of the
circuit. A circuit near it does what the model does, its mistakes and its doubts included, so that the target asks the
same of tasks that the model does well and of tasks that it does not.
"""

import math
from collections.abc import Sequence
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.run import statistics
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.parameters import Leaf

SMALLEST = 1e-6  # share of either side in what is matched
MANY_ANSWERS = 16  # pairs of answers, from which on what a task asks for is a word
SPREAD = 0.3  # of the largest loss: by how much a task's may lie below it and still count for a third of it


def foil_shares(logits: np.ndarray) -> np.ndarray:
    """(B,) probability of the foil, of the two, from (B, 2) logits of answer and foil."""
    margin = (logits[:, 0] - logits[:, 1]).astype(np.float64)
    return np.clip(1 / (1 + np.exp(np.clip(margin, -60, 60))), SMALLEST, 1 - SMALLEST).astype(np.float32)


def losses(margin: np.ndarray, foil_share: np.ndarray | None = None) -> np.ndarray:
    """(..., B) nats from margins (..., B), answer - foil: task losses, or divergences where the model's probability of
    the foil (B,) is given. In float64."""
    return np.asarray(_losses(np.asarray(margin, np.float64), foil_share, np))


def traced_losses(margin: jax.Array, foil_share: jax.Array | None = None) -> jax.Array:
    """`losses` inside a compiled function."""
    return jnp.asarray(_losses(margin, foil_share, jnp))


def _losses(margin: Leaf, foil_share: Leaf, library: ModuleType) -> Leaf:
    surprise = library.logaddexp(0.0, -margin)
    if foil_share is None:
        return surprise
    entropy = -(foil_share * library.log(foil_share) + (1 - foil_share) * library.log1p(-foil_share))
    return surprise + foil_share * margin - entropy


LARGEST = 1e30  # logit; a calibrated one, up to 16 times as large, is still a float32


def bounded(logits: np.ndarray) -> np.ndarray:
    """Answer and foil logits (..., 2) within LARGEST either way, so that every loss is finite. Where one of them is not
    a number, the answer is as wrong as can be: what overflowed tells nothing, and must not pass for a success."""
    unknown = np.isnan(logits).any(axis=-1)
    limited = np.clip(logits, -LARGEST, LARGEST)
    limited[unknown] = (-LARGEST, LARGEST)
    return limited


def task_loss(logits: np.ndarray) -> float:
    """Binary task loss in nats from (B, 2) logits of answer and foil; chance is ln 2."""
    return float(np.mean(losses(logits[:, 0] - logits[:, 1])))


def largest_loss(
    logits: np.ndarray, batch: TaskBatch, upper_share: float = 0.0, allowance: Sequence[float] = ()
) -> float:
    """The largest of `losses_by_task`, each less the task's `allowance`, if there are any."""
    found = losses_by_task(logits, batch, upper_share)
    return max(loss - (allowance[task] if allowance else 0.0) for task, loss in found.items())


def losses_by_task(logits: np.ndarray, batch: TaskBatch, upper_share: float = 0.0) -> dict[int, float]:
    """The loss of each of a batch's tasks, from (B, 2) logits: task losses, or divergences from what the batch is to
    match. A batch of one task is task 0.

    Args:
        logits: of answer and foil.
        batch: the samples; rows 2 i and 2 i + 1 are a pair.
        upper_share: at least this share of the upper end of each task's 95 % interval (statistics.py) counts as its
            loss. A mean lets a circuit fail on one of many words; the interval is wide where it does.
    """
    each = losses(logits[:, 0] - logits[:, 1], batch.foil_share)
    labels = answer_clusters(batch) if upper_share else None
    task = np.zeros(len(each), int) if batch.task is None else batch.task

    def loss(own: np.ndarray) -> float:
        if labels is None:
            return float(np.mean(each[own]))
        found = statistics.mean(each[own], labels[own])
        return max(found.value, upper_share * (found.interval or (0.0, 0.0))[1])

    return {int(i): loss(task == i) for i in np.unique(task)}


def answer_clusters(batch: TaskBatch) -> np.ndarray:
    """(B,) labels of samples whose losses are not independent: of a task that copies words, those whose pair has the
    same two answers; else every pair is its own. Of several tasks each is asked for itself."""
    answers = np.sort(np.stack([batch.answer, batch.foil], axis=1), axis=1)
    task = np.zeros(len(answers), int) if batch.task is None else np.asarray(batch.task)
    label = np.arange(len(answers)) // 2
    for each in np.unique(task):
        own = np.flatnonzero(task == each)
        different, place = np.unique(answers[own], axis=0, return_inverse=True)
        if len(different) >= MANY_ANSWERS:
            label[own] = len(answers) * (1 + each) + place.reshape(-1)
    return label


def weights_of_worst(
    logits: np.ndarray, batch: TaskBatch, upper_share: float = 0.0, allowance: Sequence[float] = ()
) -> np.ndarray:
    """(B,) weights of samples, whose sum is 1, in a mean that stands for `largest_loss`: a task counts less, the
    further its loss lies below the largest one; the samples of one task count alike."""
    found = losses_by_task(logits, batch, upper_share)
    above = {task: loss - (allowance[task] if allowance else 0.0) for task, loss in found.items()}
    worst = max(above.values())
    share = {task: math.exp((loss - worst) / (SPREAD * max(abs(worst), SMALLEST))) for task, loss in above.items()}
    task = np.zeros(len(logits), int) if batch.task is None else batch.task
    weights = np.array([share[int(each)] for each in task]) / np.bincount(task)[task]
    return (weights / weights.sum()).astype(np.float32)


def accuracy(logits: np.ndarray) -> float:
    """Share of samples whose answer has the larger logit."""
    return float(np.mean(logits[:, 0] > logits[:, 1]))


def agreement(logits: np.ndarray, other: np.ndarray) -> float:
    """Share of samples on which two sets of logits (B, 2) prefer the same one of answer and foil, right or wrong."""
    return float(np.mean((logits[:, 0] > logits[:, 1]) == (other[:, 0] > other[:, 1])))
