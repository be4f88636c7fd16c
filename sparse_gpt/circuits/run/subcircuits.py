"""Many circuits within one support: its stand-alone form, with gates and edges as arguments.

Minimization asks for the losses of thousands of masks that are all parts of one support. Whatever is outside of it
is the same constant in all of them, so they run much faster in this form than in the whole model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import SOURCES, GateArrays, Gates, to_vector
from sparse_gpt.circuits.run.edge_ablation import matrix_offsets
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.circuits.run.standalone.build import active_heads, build_from_nodes
from sparse_gpt.circuits.run.standalone.model import Attention, NodeSite, ReadSite, StandaloneCircuit, TopKGate
from sparse_gpt.model.taps import site_widths
from sparse_gpt.parameters import Leaf

Site = TypeVar("Site", NodeSite, ReadSite)
CONSTANT = -1  # the place of a weight that is no edge


@flax.struct.dataclass
class Subcircuits:
    """A gated model of which no node outside a support can be open.

    The weights of its sites are laid end to end, in the order of `_sites` and row by row.

    Attributes:
      whole: the support with all its nodes and edges.
      ablation: site -> (n_layer, width), what a closed node is.
      places: (weights,) flat place of each weight, see `edge_ablation.edge_places`, in ascending order.
      order: (weights,) which weight stands at each of these places.
      sources: for each site, (rows,) what the row's source is when it is closed; 0 where it is no node.
      support: (nodes,) 1 at its nodes.
      nodes: how many the support has.
    """

    whole: StandaloneCircuit
    ablation: Gates
    places: Leaf
    order: Leaf
    sources: tuple[Leaf, ...]
    support: Leaf
    nodes: int = flax.struct.field(pytree_node=False)

    def holds(self, gates: np.ndarray) -> np.ndarray:
        """(N,) which of the masks (N, nodes) have no node open outside the support."""
        return ~np.any(gates[:, np.asarray(self.support) == 0], axis=1)

    def masked_logits(
        self, gates: Gates, places: jax.Array, kept: jax.Array, batch: AnyBatch, *, differentiable: bool
    ) -> jax.Array:
        """See `masks.MaskedModel`; nodes outside the support count as closed, and have no gradients."""
        del differentiable
        at = jnp.minimum(jnp.searchsorted(self.places, places), len(self.places) - 1)
        weight = jnp.where(self.places[at] == places, self.order[at], len(self.places))
        removed = jnp.zeros(len(self.places)).at[weight].set(1 - kept, mode="drop")
        sites, start = {}, 0
        for (name, layer, site, heads), source in zip(_sites(self.whole), self.sources, strict=True):
            part = removed[start : start + site.weights.size].reshape(site.weights.shape)
            into = gates[name][layer][site.top_k.index][None, :]
            shut = site.weights * part * into  # what leads to a closed node stays
            moved = _without(site, shut, source[:, None] * shut, heads)
            sites[name, layer] = replace(moved, top_k=self._gated(site.top_k, gates, name, layer))
            start += site.weights.size
        return self._with_sites(gates, sites).answer_logits(batch)

    def answer_logits(self, gates: Gates, batch: AnyBatch) -> jax.Array:
        """(B, 2) logits of answer and foil with every edge, as `GatedModel.answer_logits` gives them."""
        sites = {
            (name, layer): replace(site, top_k=self._gated(site.top_k, gates, name, layer))
            for name, layer, site, _ in _sites(self.whole)
        }
        return self._with_sites(gates, sites).answer_logits(batch)

    def with_ablation_set(self, index: jax.Array | int) -> "Subcircuits":
        """Itself: there is one set."""
        del index
        return self

    def _with_sites(self, gates: Gates, sites: Mapping[tuple[str, int], NodeSite]) -> StandaloneCircuit:
        """The support with other sites, and gates where the stream is read."""

        def changed(name: str, layer: int, site: Site) -> Site:
            if isinstance(site, NodeSite):
                return sites[name, layer]
            return replace(site, top_k=self._gated(site.top_k, gates, name, layer))

        return with_sites(self.whole, changed)

    def _gated(self, top_k: TopKGate, gates: Gates, site: str, layer: int) -> TopKGate:
        channels = top_k.index[top_k.opened]
        return replace(top_k, gate=gates[site][layer][channels], value=self.ablation[site][layer][channels])


class Change(Protocol):
    """What makes a site of (name, layer, site)."""

    def __call__(self, name: str, layer: int, site: Site, /) -> Site: ...


def with_sites(whole: StandaloneCircuit, change: Change) -> StandaloneCircuit:
    """A circuit on its own with what `change` makes of every site, from its name, layer and itself."""
    sublayers = []
    for i, sublayer in enumerate(whole.sublayers):
        part, layer = sublayer.part, i // 2
        if isinstance(part, Attention):
            q, k, v = (change(f"attn_{x}", layer, getattr(part, x)) for x in "qkv")
            read, out = change("attn_in", layer, part.read), change("attn_out", layer, part.out)
            part = replace(part, read=read, q=q, k=k, v=v, out=out)
        elif part is not None:
            neuron, out = change("mlp_neuron", layer, part.neuron), change("mlp_out", layer, part.out)
            part = replace(part, read=change("mlp_in", layer, part.read), neuron=neuron, out=out)
        sublayers.append(replace(sublayer, part=part))
    return replace(whole, sublayers=tuple(sublayers))


def _sites(whole: StandaloneCircuit) -> Iterator[tuple[str, int, NodeSite, int]]:
    """(name, layer, site, heads) of every site with weights that lead to it; heads whose slots it reads, or 0."""
    for i, sublayer in enumerate(whole.sublayers):
        part = sublayer.part
        if isinstance(part, Attention):
            yield from ((f"attn_{x}", i // 2, getattr(part, x), 0) for x in ("q", "k", "v"))
            yield "attn_out", i // 2, part.out, len(part.sink)
        elif part is not None:
            yield from (("mlp_neuron", i // 2, part.neuron, 0), ("mlp_out", i // 2, part.out, 0))


def _without(site: NodeSite, shut: jax.Array, constants: jax.Array, heads: int) -> NodeSite:
    """A site without the weights `shut`; what they carry of closed sources, `constants` of the same shape, stays.

    After attention it moves to the last slot of its head, which measures what the sink leaves.
    """
    weights = site.weights - shut
    if not heads:
        return replace(site, weights=weights, bias=site.bias + jnp.sum(constants, axis=0, keepdims=True))
    slots = weights.reshape(heads, -1, weights.shape[1])
    per_head = jnp.sum(constants.reshape(slots.shape), axis=1)
    return replace(site, weights=slots.at[:, -1].add(per_head).reshape(weights.shape))


def build_subcircuits(gated: GatedModel, gates: GateArrays) -> Subcircuits:
    """The model restricted to the open nodes of `gates`. Its norms must be live and its ablation values one set."""
    m, ablation = gated.model.config, {site: np.asarray(value) for site, value in gated.ablation.items()}
    whole, offsets, widths = build_from_nodes(gated, gates), matrix_offsets(m), site_widths(m)
    places, sources = [np.zeros(0, int)], []
    for name, layer, site, heads in _sites(whole):
        source = SOURCES[name][0]
        rows = _slots(gates, layer, m.n_head) if heads else np.flatnonzero(gates[source][layer] > 0)
        entries = offsets[name, layer] + rows[:, None] * widths[name] + np.asarray(site.top_k.index)[None, :]
        places.append(np.where(rows[:, None] >= 0, entries, CONSTANT).reshape(-1))
        sources.append(np.where(rows >= 0, ablation[source][layer][rows], 0).astype(np.float32))
    flat = np.append(np.concatenate(places), CONSTANT)  # so that there is at least one
    order = np.argsort(flat, kind="stable")
    return Subcircuits(
        whole=whole,
        ablation=gated.ablation,
        places=flat[order].astype(np.int32),
        order=order.astype(np.int32),
        sources=tuple(sources),
        support=to_vector({site: (np.asarray(value) > 0).astype(np.float32) for site, value in gates.items()}),
        nodes=int(sum(np.sum(value > 0) for value in gates.values())),
    )


def _slots(gates: GateArrays, layer: int, n_head: int) -> np.ndarray:
    """(heads with an open node x slots,) the v channel in each slot, CONSTANT in those without."""
    q, k, v = (gates[f"attn_{x}"][layer].reshape(n_head, -1) > 0 for x in "qkv")
    active, _ = active_heads(q, k, v)
    slots = np.full((len(active), int(v[active].sum(axis=1).max(initial=0)) + 1), CONSTANT)
    for row, head in zip(slots, active, strict=True):
        channels = head * v.shape[1] + np.flatnonzero(v[head])
        row[: len(channels)] = channels
    return slots.reshape(-1)
