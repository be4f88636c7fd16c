"""From a gated model and a circuit's gates to a `StandaloneCircuit`, which needs the model no more.

Everything that is closed is folded into constants here, in float64: ablation values through the weight matrices into
biases, whole heads into a table over positions, residual channels that nothing open touches into tables over tokens.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.run.edge_ablation import without_pruned_edges
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.standalone.model import (
    Attention,
    Mlp,
    NodeSite,
    ReadSite,
    SlotLayout,
    StandaloneCircuit,
    Sublayer,
    TopKGate,
)
from sparse_gpt.config import READS, RESIDUAL_SITES, WRITES
from sparse_gpt.errors import InputError
from sparse_gpt.model.activations import ACTIVATIONS
from sparse_gpt.model.taps import site_widths
from sparse_gpt.model.transformer import LAYER_EPS, RMS_EPS, sinusoids
from sparse_gpt.parameters import Params

Array = np.ndarray
WORTH_RANKING = 12  # comparisons for each channel of a site that take as long as selecting from all of them


def extract(gated: GatedModel, circuit: Circuit) -> StandaloneCircuit:
    """The circuit on its own.

    Args:
      gated: the model, with the circuit's ablation values, all its edges in place.
      circuit: whose nodes are open and whose pruned edges are removed.

    Returns:
      a pytree whose `logits` and `answer_logits` are those of the gated model up to rounding, before calibration.

    Raises:
      InputError: the circuit runs with frozen norms, which only the full model can give.
    """
    if gated.frozen:
        raise InputError("a circuit with norm=frozen needs the full model's norms; it cannot run on its own")
    rewired = without_pruned_edges(gated, circuit)
    return build_from_nodes(rewired, circuit.gates(gated.model.config))


def build_from_nodes(gated: GatedModel, gates: GateArrays) -> StandaloneCircuit:
    """The open nodes of `gates` and every weight between them, on their own; norms must be live."""
    return _Builder(gated, gates).run()


def active_heads(q: Array, k: Array, v: Array) -> tuple[Array, int]:
    """Heads with an open node, from what is open (n_head, d_head) of each site: those with an open q first, and how
    many these are."""
    asking = q.any(axis=1)
    others = (k | v).any(axis=1) & ~asking
    return np.concatenate([np.flatnonzero(asking), np.flatnonzero(others)]), int(asking.sum())


class _Builder:
    """One extraction; `carried` lists the residual channels that are computed at every position."""

    def __init__(self, gated: GatedModel, gates: GateArrays) -> None:
        self.model, self.m = gated.model, gated.model.config
        self.params: Params = jax.tree.map(lambda x: np.asarray(x, np.float64), dict(gated.params))
        self.values = {site: np.asarray(value, np.float64) for site, value in gated.ablation.items()}
        self.opened = {site: np.asarray(value) > 0 for site, value in gates.items()}
        self.widths = site_widths(self.m)
        self.carried = self._carried()
        self.others = np.setdiff1d(np.arange(self.m.d_model), self.carried)
        self.rest = self.params["wte"][:, self.others]  # (V, D - C), followed through the layers

    def run(self) -> StandaloneCircuit:
        m, p = self.m, self.params
        sublayers = []
        for layer in range(m.n_layer):
            sublayers.append(self._sublayer(layer, "attn_out", "resid_post_attn", self._attention))
            sublayers.append(self._sublayer(layer, "mlp_out", "resid_post_mlp", self._mlp))
        order = np.concatenate([self.carried, self.others])
        additive = np.zeros((m.context, len(self.carried)))
        if m.position == "additive":
            additive = p["wpe"][: m.context, self.carried]
        scale, shift = self._norm(p["ln_f"])
        found = StandaloneCircuit(
            embedding=p["wte"][:, self.carried],
            additive=additive,
            sublayers=tuple(sublayers),
            rest=self.rest,
            squares=np.sum(self.rest**2, axis=1),
            scale=scale[order],
            shift=shift[order],
            head=ModelGraph(m, p).unembedding[order],
            bias=p["final_logits_bias"] if m.final_bias else np.zeros(m.vocab_size),
            bigram=p["bigram"] if m.bigram else np.zeros((1, 1)),
            layer_norm=m.norm != "rms",
        )
        return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x.astype(np.int32), found)

    def _carried(self) -> Array:
        """All channels where a norm or AbsTopK needs each of them by itself; else those read or written."""
        m, sites = self.m, self.model.activation_sites if self.model.activation_fraction else ()
        whole = m.norm != "rms" or m.position == "additive"
        whole |= bool({*READS, *RESIDUAL_SITES} & set(sites))
        used = np.full(m.d_model, whole)
        for site in READS + WRITES:
            used |= self.opened[site][:, : m.d_model].any(axis=0)
        return np.flatnonzero(used)

    def _keep(self, site: str, width: int) -> int | None:
        fraction = self.model.activation_fraction
        return int(fraction * width) if fraction and site in self.model.activation_sites else None

    def _norm(self, norm: Mapping[str, Array]) -> tuple[Array, Array]:
        return norm["scale"], norm.get("bias", np.zeros_like(norm["scale"]))

    def _sublayer(self, layer: int, site: str, residual: str, make: Callable[[int], Attention | Mlp]) -> Sublayer:
        """One sublayer; also takes `rest` through it."""
        opened, values = self.opened[site][layer], np.where(self.opened[site][layer], 0, self.values[site][layer])
        part = make(layer) if opened.any() else None
        nodes = np.flatnonzero(opened)
        places = (nodes[:, None] == self.carried[None, :]).astype(float)
        relu = self.m.residual_activation == "relu"
        self.rest = self.rest + values[None, self.others]
        self.rest = np.maximum(self.rest, 0) if relu else self.rest
        return Sublayer(part, SlotLayout(places, values[self.carried]), self._keep(residual, self.m.d_model), relu)

    def _read(self, layer: int, site: str, norm: str, own: str) -> ReadSite:
        m, block = self.m, self.params[f"h_{layer}"]
        scale, shift = self._norm(block[norm])
        positions = np.zeros((m.context, 0))
        if m.d_position:
            positions = self._positions(block[own])
        channels = np.concatenate([self.carried, m.d_model + np.arange(m.d_position)])
        opened = np.flatnonzero(self.opened[site][layer])
        keep = self._keep(site, self.widths[site]) if len(opened) else None
        ranked = len(opened) <= WORTH_RANKING
        place = np.searchsorted(channels, opened)
        top_k = TopKGate(channels, np.zeros(0), np.zeros(0, int), place, keep=keep, ranked=ranked)
        squares = np.sum(self.rest**2, axis=1)
        return ReadSite(scale[self.carried], shift[self.carried], squares, positions, top_k, m.d_model, m.norm != "rms")

    def _positions(self, norm: Mapping[str, Array]) -> Array:
        """Concatenated position channels (context, d_position) as a sublayer reads them."""
        m = self.m
        table = self.params["wpe"] if m.position == "concat" else sinusoids(m.context, m.d_position)
        table, layer_norm = np.asarray(table, np.float64)[: m.context], m.norm != "rms"
        table = table - table.mean(axis=1, keepdims=True) if layer_norm else table
        variance = np.mean(table**2, axis=1, keepdims=True)
        scale, shift = self._norm(norm)
        return table / np.sqrt(variance + (LAYER_EPS if layer_norm else RMS_EPS)) * scale + shift

    def _site(
        self, layer: int, site: str, weights: Array, bias: Array, activation: Callable[[Array], Array] = lambda x: x
    ) -> NodeSite:
        """A site from `weights` (open sources, width) and `bias` (1 or context, width), which holds all constants."""
        opened = np.flatnonzero(self.opened[site][layer])
        keep = self._keep(site, self.widths[site]) if len(opened) else None
        if keep is None:
            none = opened[:0]
            return NodeSite(weights[:, opened], bias[:, opened], TopKGate(opened, none, none, np.arange(len(opened))))
        varies = np.any(weights != 0, axis=0) | np.any(bias != bias[:1], axis=0) | self.opened[site][layer]
        fixed = np.flatnonzero(~varies)
        constants = activation(bias[0, fixed])
        # What comes after the `keep` strongest constants decides nothing.
        strongest = np.lexsort((fixed, -np.abs(constants.astype(np.float32))))[:keep]
        ranked = len(opened) * (varies.sum() + len(strongest)) <= WORTH_RANKING * len(varies)
        live = np.flatnonzero(varies | (not ranked))
        fixed, constants = (each[strongest if ranked else []] for each in (fixed, constants))
        top_k = TopKGate(live, constants, fixed, np.searchsorted(live, opened), keep=keep, ranked=bool(ranked))
        return NodeSite(weights[:, live], bias[:, live], top_k)

    def _from(self, layer: int, source: str, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Rows of open sources, and the bias (1, width) with what the closed ones add."""
        opened = self.opened[source][layer]
        return kernel[opened], (bias + self.values[source][layer][~opened] @ kernel[~opened])[None]

    def _mlp(self, layer: int) -> Mlp:
        block = self.params[f"h_{layer}"]["mlp"]
        neuron = self._from(layer, "mlp_in", block["c_fc"]["kernel"], block["c_fc"]["bias"])
        out = self._from(layer, "mlp_neuron", block["c_proj"]["kernel"], block["c_proj"]["bias"])
        return Mlp(
            self._read(layer, "mlp_in", "ln_2", "ln_p2"),
            self._site(layer, "mlp_neuron", *neuron, ACTIVATIONS[self.m.activation].constants),
            self._site(layer, "mlp_out", *out),
            self.m.activation,
        )

    def _attention(self, layer: int) -> Attention:
        m, block = self.m, self.params[f"h_{layer}"]["attn"]
        kernels, biases = np.split(block["c_attn"]["kernel"], 3, axis=1), np.split(block["c_attn"]["bias"], 3)
        q, k, v = (
            self._site(layer, site, *self._from(layer, "attn_in", kernel, bias))
            for site, kernel, bias in zip(("attn_q", "attn_k", "attn_v"), kernels, biases, strict=True)
        )
        opened = {s: self.opened[f"attn_{s}"][layer].reshape(m.n_head, m.d_head) for s in "qkv"}
        active, asking = active_heads(**opened)
        places_v, weights, constants = self._values(layer, opened["v"], active)
        sink = block["sink"] if m.attention_sink else np.full(m.n_head, -np.inf)
        bias = block["c_proj"]["bias"] + self._shares(layer, sink, opened, active) @ constants
        return Attention(
            self._read(layer, "attn_in", "ln_1", "ln_p1"),
            q,
            k,
            v,
            (*self._queries_and_keys(layer, opened["q"], opened["k"], active[:asking]), places_v),
            self._scores(layer, opened["k"], active[asking:]),
            sink[active],
            self._site(layer, "attn_out", weights, bias),
        )

    def _queries_and_keys(
        self, layer: int, open_q: Array, open_k: Array, active: Array
    ) -> tuple[SlotLayout, SlotLayout]:
        """Slots of heads: channels where q or k is open, then one in which all others are one product."""
        m = self.m
        q, k = (self.values[site][layer].reshape(m.n_head, m.d_head) for site in ("attn_q", "attn_k"))
        varies = open_q | open_k
        slots = int(varies[active].sum(axis=1).max(initial=0)) + 1
        scale = np.sqrt(slots / m.d_head)  # attention divides by the square root of the number of slots
        place_q, place_k = np.zeros((*open_q.shape, len(active), slots)), np.zeros((*open_k.shape, len(active), slots))
        base_q, base_k = np.zeros((len(active), slots)), np.zeros((len(active), slots))
        for i, head in enumerate(active):
            for slot, channel in enumerate(np.flatnonzero(varies[head])):
                place_q[head, channel, i, slot], place_k[head, channel, i, slot] = scale, 1
                base_q[i, slot] = 0 if open_q[head, channel] else scale * q[head, channel]
                base_k[i, slot] = 0 if open_k[head, channel] else k[head, channel]
            base_q[i, -1], base_k[i, -1] = scale * np.sum((q * k)[head, ~varies[head]]), 1
        size = len(active) * slots
        return (
            SlotLayout(place_q[open_q].reshape(int(open_q.sum()), size), base_q.reshape(-1)),
            SlotLayout(place_k[open_k].reshape(int(open_k.sum()), size), base_k.reshape(-1)),
        )

    def _scores(self, layer: int, open_k: Array, heads: Array) -> SlotLayout:
        """From open k to the scores of heads whose q is constant."""
        m = self.m
        q, k = (self.values[site][layer].reshape(m.n_head, m.d_head) for site in ("attn_q", "attn_k"))
        q = q / np.sqrt(m.d_head)
        places = np.zeros((*open_k.shape, len(heads)))
        for i, head in enumerate(heads):
            places[head, :, i] = q[head]
        return SlotLayout(places[open_k], np.sum(q * np.where(open_k, 0, k), axis=1)[heads])

    def _values(self, layer: int, open_v: Array, active: Array) -> tuple[SlotLayout, Array, Array]:
        """Slots of the active heads' v (the last one is 1), the output weights (A * slots, D) of these slots, and what
        the closed channels of every head write (H, D) per unit of attention."""
        m = self.m
        kernel = self.params[f"h_{layer}"]["attn"]["c_proj"]["kernel"].reshape(m.n_head, m.d_head, -1)
        closed = np.where(open_v, 0, self.values["attn_v"][layer].reshape(m.n_head, m.d_head))
        constants = np.einsum("hk,hkd->hd", closed, kernel)
        slots = int(open_v[active].sum(axis=1).max(initial=0)) + 1
        place, base = np.zeros((*open_v.shape, len(active), slots)), np.zeros((len(active), slots))
        weights = np.zeros((len(active), slots, m.d_model))
        for i, head in enumerate(active):
            for slot, channel in enumerate(np.flatnonzero(open_v[head])):
                place[head, channel, i, slot] = 1
                weights[i, slot] = kernel[head, channel]
            base[i, -1], weights[i, -1] = 1, constants[head]
        size = len(active) * slots
        placed = SlotLayout(place[open_v].reshape(int(open_v.sum()), size), base.reshape(-1))
        return placed, weights.reshape(size, m.d_model), constants

    def _shares(self, layer: int, sink: Array, opened: dict[str, Array], active: Array) -> Array:
        """(context, H): attention that a head without open nodes gives to all keys together; 0 for active heads."""
        m = self.m
        q, k = (self.values[site][layer].reshape(m.n_head, m.d_head) for site in ("attn_q", "attn_k"))
        score = np.sum(q * k, axis=1) / np.sqrt(m.d_head)
        with np.errstate(over="ignore"):
            left = np.exp(sink - score)[None, :] / (1 + np.arange(m.context))[:, None]
        shares = 1 / (1 + left)
        shares[:, active] = 0
        return shares
