"""Gates: one trainable number tau per node, open when positive (paper, section 3 and appendix on pruning).

A set of gates is a dict site -> (n_layer, width) over the eight node sites. The forward pass sees the step function;
the backward pass sees the derivative of a sigmoid, so that closed gates still hear whether opening them would help.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.model.taps import site_widths
from sparse_gpt.parameters import Leaf, PyTree

Gates = Mapping[str, Leaf]  # site -> array (n_layer, width), on a device or the host
GateArrays = dict[str, np.ndarray]  # the same on the host

# Which weight matrix leads to a site: site it reads, path of the kernel in its block.
SOURCES: dict[str, tuple[str, tuple[str, str]]] = {
    "attn_q": ("attn_in", ("attn", "c_attn")),
    "attn_k": ("attn_in", ("attn", "c_attn")),
    "attn_v": ("attn_in", ("attn", "c_attn")),
    "attn_out": ("attn_v", ("attn", "c_proj")),
    "mlp_neuron": ("mlp_in", ("mlp", "c_fc")),
    "mlp_out": ("mlp_neuron", ("mlp", "c_proj")),
}

LIMIT = 1.0  # tau stays within [-LIMIT, LIMIT]
CONCRETE_BETA, STRETCH = 2 / 3, (-0.1, 1.1)  # of hard concrete gates: temperature, and what the sigmoid is stretched to


@jax.custom_vjp
def heaviside(tau: jax.Array, temperature: jax.Array) -> jax.Array:
    """1 where tau > 0, else 0; differentiated as sigmoid(tau / temperature)."""
    del temperature
    return (tau > 0).astype(tau.dtype)


def _heaviside_forward(tau: jax.Array, temperature: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return heaviside(tau, temperature), (tau, temperature)


def _heaviside_backward(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    tau, temperature = saved
    rising = jax.nn.sigmoid(tau / temperature)
    return cotangent * rising * (1 - rising) / temperature, jnp.zeros_like(temperature)


heaviside.defvjp(_heaviside_forward, _heaviside_backward)


def finite(slopes: PyTree) -> PyTree:
    """Slopes with 0 for what is not finite: what overflowed tells nothing, and running means and moments would keep it
    for good."""
    return jax.tree.map(lambda d: jnp.where(jnp.isfinite(d), d, 0.0), slopes)


def hard_concrete(log_alpha: jax.Array, uniform: jax.Array) -> jax.Array:
    """Gates in [0, 1] drawn from the hard concrete distribution (Louizos et al., 2018): exactly 0 or 1 often, and
    differentiable in between.

    Args:
      log_alpha: any shape; above 0 the gate is rather open.
      uniform: numbers in (0, 1), same shape.
    """
    low, high = STRETCH
    noise = jnp.log(uniform) - jnp.log1p(-uniform)
    return jnp.clip(jax.nn.sigmoid((noise + log_alpha) / CONCRETE_BETA) * (high - low) + low, 0, 1)


def open_probability(log_alpha: jax.Array) -> jax.Array:
    """Probability that `hard_concrete` is not exactly 0."""
    low, high = STRETCH
    return jax.nn.sigmoid(log_alpha - CONCRETE_BETA * math.log(-low / high))


def clamp(tau: Gates) -> dict[str, jax.Array]:
    """tau within [-1, 1]."""
    return {site: jnp.clip(value, -LIMIT, LIMIT) for site, value in tau.items()}


def empty(model: ModelConfig) -> GateArrays:
    """All gates closed: site -> zeros (n_layer, width), float32."""
    return {site: np.zeros((model.n_layer, width), np.float32) for site, width in site_widths(model).items()}


def to_vector(gates: Mapping[str, np.ndarray]) -> np.ndarray:
    """All nodes in the fixed order site, layer, channel; leading axes (parallel searches) are kept."""
    return np.concatenate([np.asarray(gates[s]).reshape(*gates[s].shape[:-2], -1) for s in NODE_SITES], axis=-1)


def from_vector(vector: np.ndarray, model: ModelConfig) -> GateArrays:
    """Inverse of `to_vector`."""
    widths = site_widths(model)
    ends = np.cumsum([model.n_layer * widths[site] for site in NODE_SITES])[:-1]
    parts = np.split(np.asarray(vector), ends, axis=-1)
    return {
        site: part.reshape(*part.shape[:-1], model.n_layer, widths[site])
        for site, part in zip(NODE_SITES, parts, strict=True)
    }


def tied_nodes(model: ModelConfig, tie_qk: bool) -> np.ndarray:
    """(nodes,) the node that opens and closes together with each one: with tied gates the q and the k channel of the
    same index name each other; every other node names itself."""
    layered = from_vector(np.arange(to_vector(empty(model)).size), model)
    if tie_qk:
        layered |= {"attn_q": layered["attn_k"], "attn_k": layered["attn_q"]}
    return to_vector(layered)
