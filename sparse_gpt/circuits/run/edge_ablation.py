"""Circuits with single edges removed, without touching the model's code.

A removed edge carries its source's ablation value instead of its activation, at every position. That is a constant, so
it can be folded into the weights: W' = W * kept, b' = b + ablation @ (W * removed). Only weights between two open nodes
can be removed edges; a closed source is constant anyway. Weights into closed nodes are kept: they only influence which
channels AbsTopK selects.

For v -> attn_out the constant passes through attention and, with a sink, comes out scaled by the share of attention
that the sink leaves. A closed v channel of the same head takes exactly that path: its row of the output matrix carries
the constants of the whole head beside its own. A head whose channels are all open has no such carrier, so its
v -> attn_out edges cannot be removed (`removable`).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.circuit import Circuit, Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import SOURCES, GateArrays, Gates, to_vector
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.config import ModelConfig
from sparse_gpt.model.taps import site_widths

PADDING = 1024  # the number of edges is padded to a multiple, so that one program serves nearly every circuit
SMALLEST = 1e-12  # ablation value by which a carrier's row is divided
NOWHERE = np.iinfo(np.int32).max  # the place of such padding; writes there are dropped


def matrix_offsets(model: ModelConfig) -> dict[tuple[str, int], int]:
    """Where the matrix (source width, site width) that leads to (site, layer) starts when all are laid end to end."""
    widths, offsets, total = site_widths(model), {}, 0
    for site, (source, _) in SOURCES.items():
        for layer in range(model.n_layer):
            offsets[site, layer] = total
            total += widths[source] * widths[site]
    return offsets


def weight_count(model: ModelConfig) -> int:
    """Entries of all block matrices together."""
    widths = site_widths(model)
    return model.n_layer * sum(widths[source] * widths[site] for site, (source, _) in SOURCES.items())


def edge_places(model: ModelConfig, edges: Sequence[Edge]) -> np.ndarray:
    """(E,) flat places of edges, E padded to a multiple of PADDING."""
    offsets, widths = matrix_offsets(model), site_widths(model)
    places = np.full(-(-max(1, len(edges)) // PADDING) * PADDING, NOWHERE, np.int32)
    for i, edge in enumerate(edges):
        width = widths[edge.target.site]
        places[i] = offsets[edge.target.site, edge.target.layer] + edge.source.channel * width + edge.target.channel
    return places


def removable(model: ModelConfig, edges: Sequence[Edge], gates: GateArrays) -> np.ndarray:
    """(len(edges),) bool: all but the v -> attn_out edges of heads without a closed channel."""
    full = np.all(gates["attn_v"].reshape(model.n_layer, model.n_head, model.d_head) > 0, axis=2)
    return np.array(
        [e.target.site != "attn_out" or not full[e.source.layer, e.source.channel // model.d_head] for e in edges], bool
    )


def ablate_edges(gated: GatedModel, gates: Gates, places: jax.Array, kept: jax.Array) -> GatedModel:
    """The gated model without some edges; pure.

    Args:
      gated: the model with all its edges.
      gates: site -> (n_layer, width) of 0 and 1, the gates it will be run with.
      places: (E,) from `edge_places`.
      kept: (E,) 1 where the edge stays, 0 where it is removed.
    """
    m = gated.model.config
    flat = jnp.ones(weight_count(m)).at[places].set(kept, mode="drop")
    offsets, widths = matrix_offsets(m), site_widths(m)
    ablation = {site: jnp.asarray(value) for site, value in gated.ablation.items()}

    def removed(site: str, layer: int) -> jax.Array:
        """(source width, site width): 1 on removed edges between open nodes."""
        source = SOURCES[site][0]
        shape = (widths[source], widths[site])
        mask = jax.lax.dynamic_slice_in_dim(flat, offsets[site, layer], shape[0] * shape[1]).reshape(shape)
        return (1 - mask) * gates[source][layer][:, None] * gates[site][layer][None, :]

    params = dict(gated.params)
    for layer in range(m.n_layer):
        block = {**params[f"h_{layer}"]}
        qkv = jnp.concatenate([removed(site, layer) for site in ("attn_q", "attn_k", "attn_v")], axis=1)
        attention, mlp = {**block["attn"]}, {**block["mlp"]}
        attention["c_attn"] = _folded(attention["c_attn"], qkv, ablation["attn_in"][layer])
        mlp["c_fc"] = _folded(mlp["c_fc"], removed("mlp_neuron", layer), ablation["mlp_in"][layer])
        mlp["c_proj"] = _folded(mlp["c_proj"], removed("mlp_out", layer), ablation["mlp_neuron"][layer])
        kernel, values = _carried(
            m,
            attention["c_proj"]["kernel"],
            removed("attn_out", layer),
            ablation["attn_v"][layer],
            gates["attn_v"][layer],
        )
        attention["c_proj"] = {**attention["c_proj"], "kernel": kernel}
        ablation["attn_v"] = ablation["attn_v"].at[layer].set(values)
        params[f"h_{layer}"] = {**block, "attn": attention, "mlp": mlp}
    return dataclasses.replace(gated, params=params, ablation=ablation, full=gated.params)


def without_pruned_edges(gated: GatedModel, circuit: Circuit) -> GatedModel:
    """The gated model in which a circuit, run with its own gates, has exactly its edges."""
    if not circuit.edge_pruned:
        return gated
    m = gated.model.config
    gates, kept = circuit.gates(m), {(edge.source, edge.target) for edge in circuit.edges}
    every = ModelGraph(m, gated.params).edges(to_vector(gates))
    places = edge_places(m, every)
    stays = np.zeros(len(places), np.float32)
    stays[: len(every)] = [(edge.source, edge.target) in kept for edge in every]
    return ablate_edges(gated, gates, jnp.asarray(places), jnp.asarray(stays))


def _folded(linear: dict[str, jax.Array], removed: jax.Array, ablation: jax.Array) -> dict[str, jax.Array]:
    """Kernel and bias with removed edges as constants in the bias."""
    kernel = linear["kernel"]
    return {"kernel": kernel * (1 - removed), "bias": linear["bias"] + ablation @ (kernel * removed)}


def _carried(
    m: ModelConfig, kernel: jax.Array, removed: jax.Array, ablation: jax.Array, gates: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Output matrix (channels, d_model) and ablation values (channels,) of v with removed edges carried by one closed
    channel per head. Heads without a closed channel are left as they are.

    The carrier is the one with the largest ablation value, and its row of the matrix gets what the removed edges bring,
    divided by that value. So where none are removed all is as it was, also the slopes of the gates. Only where it is as
    good as zero and others of the head are not (open ones), it is set to 1.
    """
    heads, per_head = gates.reshape(m.n_head, m.d_head), jnp.abs(ablation).reshape(m.n_head, m.d_head)

    def of_each(head: jax.Array) -> jax.Array:
        """(channels, ...) from (heads, ...)."""
        return jnp.repeat(head, m.d_head, axis=0)

    carrier = jnp.argmax(jnp.where(heads == 0, per_head, -1), axis=1)
    is_carrier = (jnp.arange(m.d_head)[None, :] == carrier[:, None]).reshape(-1) & of_each(jnp.any(heads == 0, axis=1))
    tiny = is_carrier & (jnp.abs(ablation) < SMALLEST)
    replaced = tiny & of_each(jnp.any(per_head >= SMALLEST, axis=1))
    constants = (kernel * removed * ablation[:, None]).reshape(m.n_head, m.d_head, -1)
    brought = of_each(jnp.sum(constants, axis=1)) / jnp.where(is_carrier & ~tiny, ablation, 1)[:, None]
    own = jnp.where(replaced[:, None], kernel * ablation[:, None], kernel * (1 - removed))
    carried = own + jnp.where(is_carrier[:, None], brought, 0)
    has_carrier = of_each(jnp.any(heads == 0, axis=1))
    return jnp.where(has_carrier[:, None], carried, kernel), jnp.where(replaced, 1, ablation)
