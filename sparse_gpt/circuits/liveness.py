"""Which nodes can matter, from the weights alone: the others need not be searched."""

import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, empty
from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.parameters import Params


def searchable(model: ModelConfig, params: Params) -> GateArrays:
    """Which nodes can matter, from the weights alone: site -> bool (n_layer, width).

    A node is left out (counts as closed, never searched) when it is zero on every input, so that its ablation value is
    zero as well, or when no chain of nonzero weights leads from it to a logit. What remains of such a node is its share
    in the norms' denominators and in AbsTopK's selection. A q channel matters only if the k channel with the same index
    does, and vice versa.
    """
    nonzero, useful = _can_be_nonzero(model, params), _reaches_logits(model, params)
    return {site: nonzero[site] & useful[site] for site in NODE_SITES}


def embedded(model: ModelConfig, params: Params) -> np.ndarray:
    """(d_model,) bool: which channels of the residual stream the embedding writes."""
    written = np.any(np.asarray(params["wte"]) != 0, axis=0)
    if model.position == "additive":
        written |= np.any(np.asarray(params["wpe"]) != 0, axis=0)
    return written


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
    stream = embedded(model, params)
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
