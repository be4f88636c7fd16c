"""Gates: one trainable number tau per node, open when positive (paper, section 3 and appendix on pruning).

A set of gates is a dict site -> (n_layer, width) over the eight node sites. The forward pass sees the step function;
the backward pass sees the derivative of a sigmoid, so that closed gates still hear whether opening them would help.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.model.taps import site_widths
from sparse_gpt.parameters import Params

Gates = Mapping[str, Any]  # site -> array (n_layer, width), on a device or the host
GateArrays = dict[str, np.ndarray]  # the same on the host

LIMIT = 1.0  # tau stays within [-LIMIT, LIMIT]


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


def partners(model: ModelConfig, tie_qk: bool) -> np.ndarray:
    """(nodes,) the node that opens and closes together with each one: with tied gates the q and the k channel of the
    same index are partners; all other nodes are their own."""
    layered = from_vector(np.arange(to_vector(empty(model)).size), model)
    if tie_qk:
        layered |= {"attn_q": layered["attn_k"], "attn_k": layered["attn_q"]}
    return to_vector(layered)


def searchable(model: ModelConfig, params: Params) -> GateArrays:
    """Which nodes can matter, from the weights alone: site -> bool (n_layer, width).

    A node is left out (counts as closed, never searched) when it is zero on every input, so that its ablation value is
    zero as well, or when no chain of nonzero weights leads from it to a logit. What remains of such a node is its share
    in the norms' denominators and in the AbsTopK contest. The q and the k channel of one index can matter only both.
    """
    nonzero, useful = _can_be_nonzero(model, params), _reaches_logits(model, params)
    return {site: nonzero[site] & useful[site] for site in NODE_SITES}


def _weights(model: ModelConfig, params: Params, layer: int) -> dict[str, np.ndarray]:
    """Nonzero pattern of a block: matrices (in, out) named by where they lead, and biases as "site bias"."""
    block, heads = params[f"h_{layer}"], model.n_head * model.d_head
    c_attn = np.asarray(block["attn"]["c_attn"]["kernel"]) != 0
    pattern = dict(zip(("attn_q", "attn_k", "attn_v"), np.split(c_attn, [heads, 2 * heads], axis=1), strict=True))
    pattern["attn_out"] = np.asarray(block["attn"]["c_proj"]["kernel"]) != 0
    pattern["mlp_neuron"] = np.asarray(block["mlp"]["c_fc"]["kernel"]) != 0
    pattern["mlp_out"] = np.asarray(block["mlp"]["c_proj"]["kernel"]) != 0
    biases = {site: np.zeros(matrix.shape[1], bool) for site, matrix in pattern.items()}
    if model.bias:
        parts = np.split(np.asarray(block["attn"]["c_attn"]["bias"]) != 0, [heads, 2 * heads])
        biases |= dict(zip(("attn_q", "attn_k", "attn_v"), parts, strict=True))
        biases["attn_out"] = np.asarray(block["attn"]["c_proj"]["bias"]) != 0
        biases["mlp_neuron"] = np.asarray(block["mlp"]["c_fc"]["bias"]) != 0
        biases["mlp_out"] = np.asarray(block["mlp"]["c_proj"]["bias"]) != 0
    return pattern | {f"{site} bias": value for site, value in biases.items()}


def _can_be_nonzero(model: ModelConfig, params: Params) -> GateArrays:
    found = {site: value.astype(bool) for site, value in empty(model).items()}
    stream = np.any(np.asarray(params["wte"]) != 0, axis=0)
    if model.position == "additive":
        stream |= np.any(np.asarray(params["wpe"]) != 0, axis=0)
    # LayerNorm subtracts the mean and norms can have biases: then every channel of a read can be nonzero.
    everywhere = model.norm != "rms" or model.norm_bias
    own = np.ones(model.d_position, bool)
    for layer in range(model.n_layer):
        weights = _weights(model, params, layer)

        def written(site: str, source: np.ndarray, weights: dict[str, np.ndarray] = weights) -> np.ndarray:
            return np.any(weights[site] & source[:, None], axis=0) | weights[f"{site} bias"]

        read = np.concatenate([stream | everywhere, own])
        found["attn_in"][layer] = read
        for site in ("attn_q", "attn_k", "attn_v"):
            found[site][layer] = written(site, read)
        found["attn_out"][layer] = written("attn_out", found["attn_v"][layer])
        stream = stream | found["attn_out"][layer]
        read = np.concatenate([stream | everywhere, own])
        found["mlp_in"][layer] = read
        found["mlp_neuron"][layer] = written("mlp_neuron", read)
        found["mlp_out"][layer] = written("mlp_out", found["mlp_neuron"][layer])
        stream = stream | found["mlp_out"][layer]
    return found


def _reaches_logits(model: ModelConfig, params: Params) -> GateArrays:
    found = {site: value.astype(bool) for site, value in empty(model).items()}
    nonzero = _can_be_nonzero(model, params)
    head = np.asarray(params["wte"]).T if model.tied else np.asarray(params["lm_head"])
    # LayerNorm's mean carries every channel of the stream into every other.
    stream = np.any(head != 0, axis=1) | (model.norm != "rms")
    for layer in reversed(range(model.n_layer)):
        weights = _weights(model, params, layer)

        def feeding(site: str, weights: dict[str, np.ndarray] = weights, layer: int = layer) -> np.ndarray:
            return np.any(weights[site] & found[site][layer][None, :], axis=1)

        found["mlp_out"][layer] = stream
        found["mlp_neuron"][layer] = feeding("mlp_out")
        found["mlp_in"][layer] = feeding("mlp_neuron")
        stream = stream | found["mlp_in"][layer][: model.d_model]
        found["attn_out"][layer] = stream
        found["attn_v"][layer] = feeding("attn_out")
        attends = _heads_with(model, found["attn_v"][layer] & nonzero["attn_v"][layer])
        found["attn_q"][layer] = attends & nonzero["attn_k"][layer]
        found["attn_k"][layer] = attends & nonzero["attn_q"][layer]
        found["attn_in"][layer] = feeding("attn_q") | feeding("attn_k") | feeding("attn_v")
        stream = stream | found["attn_in"][layer][: model.d_model]
    return found


def _heads_with(model: ModelConfig, channels: np.ndarray) -> np.ndarray:
    """True on every channel of a head that has one of the given channels."""
    return np.repeat(channels.reshape(model.n_head, model.d_head).any(axis=1), model.d_head)
