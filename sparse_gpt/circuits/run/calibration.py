"""Calibration: a scale and a shift of the final logits, fitted with L-BFGS (paper, appendix on pruning).

Pruning shrinks what reaches the final norm, so a circuit can be right and yet over- or underconfident. Two logits enter
the binary loss; the shift is fitted for the tokens that occur as answer or foil, when they are few.

The scale is between 0 and MAX_SCALE. Without bounds anything that tells the answers apart at all would be a circuit, be
it by a ten-thousandth of a logit, or the wrong way round.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_gpt.circuits.run.gated_model import TaskBatch, binary_loss

STEPS = 16
NEWTON_STEPS = 12
MAX_SCALE = 16.0
MAX_SHIFTED = 16  # distinct answers; with more, only the scale is fitted


class Calibration(NamedTuple):
    """logits -> scale * logits + shift; `shift` (K,) belongs to K tokens kept beside it."""

    scale: jax.Array
    shift: jax.Array


def shifted_tokens(train: TaskBatch) -> np.ndarray:
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


def fit_many(logits: np.ndarray, index: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrations of N candidates at once, by damped Newton steps in numpy: for choosing among candidates.

    The problem is a logistic regression, so Newton and L-BFGS find the same optimum where there is one.

    Args:
      logits: (N, B, 2).
      index: (B, 2), `choice_index`.
      tokens: K.

    Returns:
      scale (N,) within bounds, shift (N, K), calibrated task loss (N,), which is never above the uncalibrated one.
    """
    n, batch = logits.shape[:2]
    one_hot = np.eye(tokens + 1)[index][..., :tokens]
    shifts = np.broadcast_to(one_hot[:, 0] - one_hot[:, 1], (n, batch, tokens))
    design = np.concatenate([(logits[..., :1] - logits[..., 1:]).astype(np.float64), shifts], axis=2)
    identity = np.eye(1 + tokens)[0]
    uncalibrated = np.mean(np.logaddexp(0, -design[..., 0]), axis=1)
    # Newton converges from small margins; from large ones it oversteps. So it starts at margins of size one.
    start = identity / np.maximum(1.0, np.sqrt(np.mean(design[..., 0] ** 2, axis=1)))[:, None]
    weights, loss = _newton(design, start, np.ones(1 + tokens))
    # A convex problem: where the best scale is out of bounds, the best one within them is a bound.
    outside = np.flatnonzero((weights[:, 0] < 0) | (weights[:, 0] > MAX_SCALE))
    if len(outside):
        beyond = weights[outside]
        start = beyond * np.clip(beyond[:, :1], 0, MAX_SCALE) / beyond[:, :1]  # shifts shrink as the scale does
        weights[outside], loss[outside] = _newton(design[outside], start, 1 - identity)
    worse = ~(loss <= uncalibrated)
    weights = np.where(worse[:, None], identity, weights)
    return weights[:, 0], weights[:, 1:], np.where(worse, uncalibrated, loss)


def _newton(design: np.ndarray, weights: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton steps on the mean logistic loss of margins design (N, B, W) @ weights (N, W), from those given.

    Weights whose `free` (W,) is 0 stay. Returns weights and losses (N,).
    """
    margin, damping = np.einsum("nbk,nk->nb", design, weights), np.full(len(weights), 1e-3)
    loss, moving = np.mean(np.logaddexp(0, -margin), axis=1), design * free
    for _ in range(NEWTON_STEPS):
        wrong = 1 / (1 + np.exp(np.clip(margin, -60, 60)))
        gradient = -np.einsum("nbk,nb->nk", moving, wrong) / design.shape[1]
        curvature = np.einsum("nbk,nb,nbj->nkj", moving, wrong * (1 - wrong), moving) / design.shape[1]
        diagonal = np.einsum("nkk->nk", curvature) * damping[:, None] + 1e-9
        step = np.linalg.solve(curvature + diagonal[:, :, None] * np.eye(len(free)), gradient[:, :, None])[..., 0]
        tried = np.einsum("nbk,nk->nb", design, weights - step)
        tried_loss = np.mean(np.logaddexp(0, -tried), axis=1)
        better = tried_loss < loss  # False for NaN
        weights = np.where(better[:, None], weights - step, weights)
        margin, loss = np.where(better[:, None], tried, margin), np.where(better, tried_loss, loss)
        damping = np.where(better, damping / 10, damping * 10)
    return weights, loss


def fitted(logits: np.ndarray, index: np.ndarray, tokens: int) -> Calibration:
    """`fit` from where Newton's steps end, with the answer on the host.

    From the identity L-BFGS would need far more steps where a circuit leaves little of what told the answers apart:
    scale and shift must then grow together, each to many times its size.
    """
    scale, shift, _ = fit_many(logits[None], index, tokens)
    start = Calibration(jnp.float32(scale[0]), jnp.asarray(shift[0], jnp.float32))
    own: Calibration = jax.device_get(_fit(logits, index, start))
    return own


def fit(logits: jax.Array, index: jax.Array, start: Calibration, steps: int = STEPS) -> Calibration:
    """The calibration that minimises the binary loss, by `steps` L-BFGS steps from `start`, within bounds; pure.

    Returns `start` where L-BFGS ended higher or not finite.
    """

    def bounded(calibration: Calibration) -> Calibration:
        return calibration._replace(scale=jnp.clip(calibration.scale, 0, MAX_SCALE))

    def loss(calibration: Calibration) -> jax.Array:
        return binary_loss(apply(bounded(calibration), logits, index))

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Calibration, optax.OptState], _: None) -> tuple[tuple[Calibration, optax.OptState], None]:
        calibration, state = carry
        value, gradient = value_and_grad(calibration, state=state)
        updates, state = solver.update(gradient, state, calibration, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(calibration, updates), state), None

    (end, _), _ = jax.lax.scan(step, (start, solver.init(start)), None, length=steps)
    better = loss(end) <= loss(start)  # False for NaN
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), bounded(end), start)


_fit = jax.jit(fit)
