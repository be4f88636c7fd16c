"""Calibration: a scale and a shift of the final logits, fitted with L-BFGS (paper, appendix on pruning).

Pruning shrinks what reaches the final norm, so a circuit can be right and yet over- or underconfident. Two logits enter
the binary loss; the shift is fitted for the tokens that occur as answer or foil, when they are few.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_gpt.circuits.gated import TaskBatch, binary_loss

STEPS = 16
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


def fit(logits: jax.Array, index: jax.Array, tokens: int, steps: int = STEPS) -> Calibration:
    """The calibration that minimises the binary loss, by `steps` L-BFGS steps from the identity; pure.

    Returns the identity where L-BFGS ended higher or not finite, so calibration never hurts on the data it saw.
    """
    start = Calibration(jnp.ones(()), jnp.zeros(tokens))

    def loss(calibration: Calibration) -> jax.Array:
        return binary_loss(apply(calibration, logits, index))

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Calibration, optax.OptState], _: None) -> tuple[tuple[Calibration, optax.OptState], None]:
        calibration, state = carry
        value, gradient = value_and_grad(calibration, state=state)
        updates, state = solver.update(gradient, state, calibration, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(calibration, updates), state), None

    (end, _), _ = jax.lax.scan(step, (start, solver.init(start)), None, length=steps)
    better = loss(end) <= loss(start)  # False for NaN
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), end, start)
