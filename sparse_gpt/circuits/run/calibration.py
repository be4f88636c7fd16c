"""Calibration: a scale and a shift of the final logits (paper, appendix on pruning, which fits them with L-BFGS).

Pruning shrinks what reaches the final norm, so a circuit can be right and yet over- or underconfident. Two logits enter
the binary loss; the shift is fitted for the tokens that occur as answer or foil, when they are few.

The scale is between 0 and a bound, MAX_SCALE unless a problem asks for less. Without bounds anything that tells the
answers apart at all would be a circuit, be it by a ten-thousandth of a logit, or the wrong way round.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.run.objective import losses
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.parameters import Leaf

STEPS, MOST_STEPS = 12, 100  # of Newton: to choose among masks; to convergence
MAX_SCALE = 16.0
MAX_SHIFTED = 16  # distinct answers; with more, only the scale is fitted


class Calibration(NamedTuple):
    """logits -> scale * logits + shift; `shift` (K,) belongs to K tokens kept beside it."""

    scale: Leaf
    shift: Leaf


def shift_tokens(train: TaskBatch) -> np.ndarray:
    """Sorted distinct answer and foil tokens (K,) of training samples; empty when they are more than MAX_SHIFTED."""
    tokens = np.unique(np.concatenate([train.answer, train.foil])).astype(np.int32)
    return tokens if len(tokens) <= MAX_SHIFTED else tokens[:0]


def choice_index(batch: TaskBatch, tokens: np.ndarray) -> np.ndarray:
    """(B, 2): where answer and foil stand in `tokens`, K for those that are not there (they are not shifted)."""
    choices = np.stack([batch.answer, batch.foil], axis=1)
    if not len(tokens):
        return np.zeros_like(choices)
    place = np.searchsorted(tokens, choices).clip(max=len(tokens) - 1)
    return np.where(tokens[place] == choices, place, len(tokens)).astype(np.int32)


def apply(calibration: Calibration, logits: jax.Array, index: jax.Array) -> jax.Array:
    """Calibrated logits (B, 2) from logits (B, 2) and `choice_index` (B, 2)."""
    shift = jnp.concatenate([calibration.shift, jnp.zeros(1, calibration.shift.dtype)])
    return calibration.scale * logits + shift[index]


def calibrate(logits: np.ndarray, calibration: Calibration, index: np.ndarray) -> np.ndarray:
    """`apply` in numpy: of logits (..., B, 2), with as many leading axes of scale (...) and shift (..., K)."""
    scale, shift = np.asarray(calibration.scale), np.asarray(calibration.shift)
    shift = np.concatenate([shift, np.zeros((*shift.shape[:-1], 1), np.float32)], axis=-1)
    calibrated: np.ndarray = scale[..., None, None] * logits + shift[..., index]
    return calibrated


def fit(
    logits: np.ndarray,
    index: np.ndarray,
    tokens: int,
    foil_share: np.ndarray | None = None,
    largest_scale: float = MAX_SCALE,
) -> Calibration:
    """The calibration that minimizes the mean loss of (B, 2) logits; see `fit_many`, here to convergence."""
    scale, shift, _ = fit_many(logits[None], index, tokens, foil_share, largest_scale, MOST_STEPS)
    return Calibration(scale[0].astype(np.float32), shift[0].astype(np.float32))


def fit_many(
    logits: np.ndarray,
    index: np.ndarray,
    tokens: int,
    foil_share: np.ndarray | None = None,
    largest_scale: float = MAX_SCALE,
    steps: int = STEPS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrations of N masks at once, by damped Newton steps in float64.

    The problem is a logistic regression, so Newton's method finds the optimum that L-BFGS would find. With STEPS steps
    the loss was within 1e-4 of it on a test's random logits.

    Args:
      logits: (N, B, 2).
      index: (B, 2), `choice_index`.
      tokens: K.
      foil_share: (B,) the model's probability of the foil, which the answers are to match; None: task losses.
      largest_scale: of the calibrations.
      steps: at most.

    Returns:
      scale (N,) within bounds, shift (N, K), calibrated loss (N,), which is never above the uncalibrated one.
    """
    n, batch = logits.shape[:2]
    one_hot = np.eye(tokens + 1)[index][..., :tokens]
    shifts = np.broadcast_to(one_hot[:, 0] - one_hot[:, 1], (n, batch, tokens))
    design = np.concatenate([(logits[..., :1] - logits[..., 1:]).astype(np.float64), shifts], axis=2)
    identity = np.eye(1 + tokens)[0]
    uncalibrated = np.mean(losses(design[..., 0], foil_share), axis=1)
    # Newton converges from small margins; from large ones it oversteps. So it starts at margins of size one.
    start = identity / np.maximum(1.0, np.sqrt(np.mean(design[..., 0] ** 2, axis=1)))[:, None]
    weights, loss = _newton(design, start, np.ones(1 + tokens), foil_share, steps)
    # A convex problem: where the best scale is out of bounds, the best one within them is a bound.
    outside = np.flatnonzero((weights[:, 0] < 0) | (weights[:, 0] > largest_scale))
    if len(outside):
        beyond = weights[outside]
        start = beyond * np.clip(beyond[:, :1], 0, largest_scale) / beyond[:, :1]  # shifts shrink as the scale does
        weights[outside], loss[outside] = _newton(design[outside], start, 1 - identity, foil_share, steps)
    worse = ~(loss <= uncalibrated)
    weights = np.where(worse[:, None], identity, weights)
    return weights[:, 0], weights[:, 1:], np.where(worse, uncalibrated, loss)


def _newton(
    design: np.ndarray, weights: np.ndarray, free: np.ndarray, foil_share: np.ndarray | None, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton steps on the mean loss of margins design (N, B, W) @ weights (N, W), from those given.

    Weights whose `free` (W,) is 0 stay. Returns weights and losses (N,).
    """
    margin, damping = np.einsum("nbk,nk->nb", design, weights), np.full(len(weights), 1e-3)
    loss, moving = np.mean(losses(margin, foil_share), axis=1), design * free
    wanted = np.float64(0) if foil_share is None else foil_share.astype(np.float64)
    for _ in range(steps):
        wrong = 1 / (1 + np.exp(np.clip(margin, -60, 60)))
        gradient = -np.einsum("nbk,nb->nk", moving, wrong - wanted) / design.shape[1]
        curvature = np.einsum("nbk,nb,nbj->nkj", moving, wrong * (1 - wrong), moving) / design.shape[1]
        diagonal = np.einsum("nkk->nk", curvature) * damping[:, None] + 1e-9
        step = np.linalg.solve(curvature + diagonal[:, :, None] * np.eye(len(free)), gradient[:, :, None])[..., 0]
        tried = np.einsum("nbk,nk->nb", design, weights - step)
        tried_loss = np.mean(losses(tried, foil_share), axis=1)
        better = tried_loss < loss  # False for NaN
        weights = np.where(better[:, None], weights - step, weights)
        margin, loss = np.where(better[:, None], tried, margin), np.where(better, tried_loss, loss)
        damping = np.where(better, damping / 10, damping * 10)
    return weights, loss
