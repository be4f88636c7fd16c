"""The two optimizer recipes, each as one pure update (paper, section 2 and appendix; reference train.py).

paper:             gradients clipped to an RMS of 1 -> AdamW (decay inside) -> projection
openai_reference:  gradients divided by (RMS + 1e-5) -> Adam -> projection -> w -= decay * lr * w

The RMS is one number over all parameters together. Moments and gradients stay dense.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_gpt.config import Config, OptimizerConfig
from sparse_gpt.parameters import BIGRAM, ParameterSpec, Params, Path, flatten, parameter_table, unflatten

Project = Callable[[Params], Params]


def gradient_rms(gradients: Params) -> jax.Array:
    """Root mean square over every entry of every gradient, a float32 scalar."""
    leaves = jax.tree.leaves(gradients)
    total = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
    return jnp.sqrt(total / sum(leaf.size for leaf in leaves))


def adam(o: OptimizerConfig) -> optax.GradientTransformation:
    """Adam's direction, without learning rate or decay."""
    return optax.scale_by_adam(b1=o.beta1, b2=o.beta2, eps=o.eps)


def decayed(table: Mapping[Path, ParameterSpec]) -> Params:
    """Tree of bools: tensors with more than one dimension, except the bigram table."""
    return unflatten({path: len(spec.shape) > 1 and spec.kind != BIGRAM for path, spec in table.items()})


def _trained(gradients: Params) -> Params:
    """Gradients of what the reference trains: its final logits bias is a constant."""
    return {name: leaf for name, leaf in gradients.items() if name != "final_logits_bias"}


def _reference_gradients(gradients: Params) -> Params:
    """As the reference's autograd leaves them: no gradient for the final bias, nor for the bigram row of the last
    vocabulary entry (its table is looked up with padding_idx=-1)."""
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in gradients.items() if name == "final_logits_bias"}
    if "bigram" in gradients:
        zeros["bigram"] = gradients["bigram"].at[-1].set(0.0)
    return {**gradients, **zeros}


def update(
    config: Config,
    params: Params,
    state: Any,
    gradients: Params,
    learning_rate: jax.Array,
    project: Project,
    table: Mapping[Path, ParameterSpec] | None = None,
) -> tuple[Params, Any, jax.Array]:
    """One optimizer step.

    Args:
      config: recipe and its numbers.
      params: float32 parameters.
      state: optax state of `adam`.
      gradients: float32, like params.
      learning_rate: float32 scalar.
      project: the projection at this step's density.
      table: rows of the tensors in params; default: those of the configured model.

    Returns:
      (new params, new state, gradient RMS before it was controlled).
    """
    o = config.optimizer
    reference = o.recipe == "openai_reference"
    gradients = _reference_gradients(gradients) if reference else gradients
    rms = gradient_rms(_trained(gradients) if reference else gradients)
    scale = 1.0 / (rms + 1e-5) if reference else 1.0 / jnp.maximum(rms / o.grad_rms, 1.0)
    gradients = jax.tree.map(lambda g: g * scale, gradients)
    direction, state = adam(o).update(gradients, state)
    shrink = 1.0 - learning_rate * o.weight_decay

    def decay(tree: Params) -> Params:
        mask = flatten(decayed(parameter_table(config.model) if table is None else table))
        return unflatten({path: w * shrink if mask[path] else w for path, w in flatten(tree).items()})

    if reference:
        params = jax.tree.map(lambda w, d: w - learning_rate * d, params, direction)
        return decay(project(params)), state, rms
    params = jax.tree.map(lambda w, d: w - learning_rate * d, decay(params), direction)
    return project(params), state, rms
