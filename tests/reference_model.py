"""The project's independent check: the forward pass in plain float64 numpy, written from the method's description.

It shares no code with `sparse_gpt`. Weights and options come under the reference's names (torch layout, matrices are
(out, in); the fields of beeg_config.json), so the same function checks our model, the import, the export and, with
gates, every circuit: a node is kept or takes its ablation value, and when edges are pruned a weight that is not listed
carries its source's ablation value.

Letters: B batch, T position, C channels of a site.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import erf

Array = np.ndarray
Weights = Mapping[str, Array]

RMS_EPS = float(np.finfo(np.float32).eps)  # torch.nn.RMSNorm with eps=None on float32 parameters
LAYER_EPS = 1e-5

# Absent fields of beeg_config.json take these values.
DEFAULTS: dict[str, Any] = {
    "block_size": 1024,
    "vocab_size": 50304,
    "n_layer": 12,
    "n_head": 12,
    "d_head": None,
    "d_model": 768,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "d_mlp": None,
    "enable_bigram_table": False,
    "learnable_bigram_table": False,
    "d_pos_emb": None,
    "sinusoidal_cat_pos_emb": False,
    "flash": True,
    "sink": False,
}

# Our node sites and the reference's names for the same activations.
SITE_HOOKS = {
    "attn_in": "{}.attn.act_in",
    "attn_q": "{}.attn.q",
    "attn_k": "{}.attn.k",
    "attn_v": "{}.attn.v",
    "attn_out": "{}.attn.resid_delta",
    "mlp_in": "{}.mlp.act_in",
    "mlp_neuron": "{}.mlp.post_act",
    "mlp_out": "{}.mlp.resid_delta",
}

# Which weight matrix joins which sites: destination site -> source site.
EDGE_SOURCE = {
    "attn_q": "attn_in",
    "attn_k": "attn_in",
    "attn_v": "attn_in",
    "attn_out": "attn_v",
    "mlp_neuron": "mlp_in",
    "mlp_out": "mlp_neuron",
}


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the defaults of absent fields filled in, sizes included."""
    c = {**DEFAULTS, **config}
    if c["d_mlp"] is None:
        c["d_mlp"] = c.get("n_mlp") or 4 * c["d_model"]
    if c["d_head"] is None:
        c["d_head"] = c["d_model"] // c["n_head"]
    return c


def site_widths(config: Mapping[str, Any]) -> dict[str, int]:
    """Channels of each node site."""
    c = complete(config)
    heads, read = c["n_head"] * c["d_head"], c["d_model"] + (c["d_pos_emb"] or 0)
    return {
        "attn_in": read,
        "attn_q": heads,
        "attn_k": heads,
        "attn_v": heads,
        "attn_out": c["d_model"],
        "mlp_in": read,
        "mlp_neuron": c["d_mlp"],
        "mlp_out": c["d_model"],
    }


@dataclasses.dataclass(frozen=True)
class Support:
    """What of the model is kept.

    keep: site -> (n_layer, width) bool; a site that is absent is kept whole. A node that is not kept takes its value
    in `ablation` at every position. edges: destination site -> (n_layer, width, source width) bool; None keeps every
    edge. An edge that is not kept carries its source's ablation value (for v: that value through the same attention).
    A number instead of a bool multiplies what the source differs from its ablation value by.
    frozen: each norm's divisor comes from the full model on the same tokens instead of the gated stream.
    """

    keep: Mapping[str, Array]
    ablation: Mapping[str, Array]
    edges: Mapping[str, Array] | None = None
    frozen: bool = False


def forward(
    config: Mapping[str, Any], weights: Weights, tokens: Array, support: Support | None = None
) -> tuple[Array, dict[str, Array]]:
    """Logits (B, T, vocab) and the activations under the reference's hook names, all float64."""
    divisors = None
    if support is not None and support.frozen:
        full = _Pass(complete(config), weights, None, None)
        full.run(np.asarray(tokens))
        divisors = full.divisors
    one_pass = _Pass(complete(config), weights, support, divisors)
    return one_pass.run(np.asarray(tokens)), one_pass.activations


def abs_top_k(x: Array, k: int) -> Array:
    """The k entries of largest magnitude along the last axis; the rest zero; ties to the lowest index."""
    order = np.argsort(-np.abs(x), axis=-1, kind="stable")[..., :k]
    kept = np.zeros_like(x)
    np.put_along_axis(kept, order, np.take_along_axis(x, order, axis=-1), axis=-1)
    return kept


class _Pass:
    """One forward pass, with everything it records."""

    def __init__(
        self,
        config: dict[str, Any],
        weights: Weights,
        support: Support | None,
        divisors: Mapping[str, Array] | None,
    ) -> None:
        self.c = config
        self.weights = weights
        self.support = support
        self.frozen_divisors = divisors
        self.divisors: dict[str, Array] = {}
        self.activations: dict[str, Array] = {}

    def run(self, tokens: Array) -> Array:
        c, steps = self.c, tokens.shape[1]
        assert steps <= c["block_size"]
        x = self._weight("transformer.wte.weight")[tokens]
        position = self._weight("transformer.wpe.weight")[:steps][None]
        if c["d_pos_emb"] is None:
            x, position = x + position, None
        for layer in range(c["n_layer"]):
            x = self._record(f"{layer}.resid_in", x)
            x = self._after_add("attn", x + self._attention(layer, x, position))
            x = self._record(f"{layer}.resid_mid", x)
            x = self._after_add("mlp", x + self._mlp(layer, x, position))
        x = self._record("final_resid", x)
        unembedding = "transformer.wte.weight" if c["tied_unembed"] else "lm_head.weight"
        logits = self._norm("transformer.ln_f", x) @ self._weight(unembedding).T
        if "final_logits_bias" in self.weights:
            logits = logits + self._weight("final_logits_bias")
        if c["enable_bigram_table"]:
            logits = logits + self._weight("bigram_table")[tokens]
        return logits

    def _attention(self, layer: int, x: Array, position: Array | None) -> Array:
        c, name = self.c, f"transformer.h.{layer}"
        n_head, d_head = c["n_head"], c["d_head"]
        read = self._norm(f"{name}.ln_1", x)
        if position is not None:
            read = self._append(read, self._norm(f"{name}.ln_p1", position))
        read = self._node("attn_in", layer, read)
        matrices = np.split(self._weight(f"{name}.attn.c_attn.weight"), 3)
        biases = np.split(self._bias(f"{name}.attn.c_attn", 3 * n_head * d_head), 3)
        q, k, v = (
            self._node(site, layer, self._linear(site, layer, read, matrix) + bias)
            for site, matrix, bias in zip(("attn_q", "attn_k", "attn_v"), matrices, biases, strict=True)
        )
        pattern = self._pattern(layer, q, k)

        def mix(values: Array) -> Array:
            """Values through the attention pattern, heads side by side again."""
            return np.einsum("bhqk,bkhd->bqhd", pattern, values.reshape(*values.shape[:2], n_head, d_head)).reshape(
                values.shape
            )

        y = self._record(f"{layer}.attn.y", mix(v))
        replaced = None
        if self.support is not None and self.support.edges is not None:
            replaced = mix(np.broadcast_to(self.support.ablation["attn_v"][layer].astype(np.float64), v.shape))
        out = self._linear("attn_out", layer, y, self._weight(f"{name}.attn.c_proj.weight"), replaced)
        return self._node("attn_out", layer, out + self._bias(f"{name}.attn.c_proj", c["d_model"]))

    def _pattern(self, layer: int, q: Array, k: Array) -> Array:
        """Attention weights (B, heads, T, T); with a sink a row sums to less than one."""
        c, (batch, steps, _) = self.c, q.shape
        shape = (batch, steps, c["n_head"], c["d_head"])
        scores = np.einsum("bqhd,bkhd->bhqk", q.reshape(shape), k.reshape(shape)) / math.sqrt(c["d_head"])
        scores = np.where(np.tril(np.ones((steps, steps), bool)), scores, -np.inf)
        if c["sink"]:
            sink = self._weight(f"transformer.h.{layer}.attn.attn_imp.sink_logit")[None, :, None, None]
            scores = np.concatenate([np.broadcast_to(sink, (*scores.shape[:3], 1)), scores], axis=-1)
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
        pattern = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return pattern[..., 1:] if c["sink"] else pattern

    def _mlp(self, layer: int, x: Array, position: Array | None) -> Array:
        c, name = self.c, f"transformer.h.{layer}"
        read = self._norm(f"{name}.ln_2", x)
        if position is not None:
            read = self._append(read, self._norm(f"{name}.ln_p2", position))
        read = self._node("mlp_in", layer, read)
        hidden = self._linear("mlp_neuron", layer, read, self._weight(f"{name}.mlp.c_fc.weight"))
        hidden = hidden + self._bias(f"{name}.mlp.c_fc", c["d_mlp"])
        if c["activation_type"] == "gelu":
            hidden = hidden * 0.5 * (1.0 + erf(hidden / math.sqrt(2.0)))
        else:
            hidden = np.maximum(hidden, 0.0)
        hidden = self._node("mlp_neuron", layer, hidden)
        out = self._linear("mlp_out", layer, hidden, self._weight(f"{name}.mlp.c_proj.weight"))
        return self._node("mlp_out", layer, out + self._bias(f"{name}.mlp.c_proj", c["d_model"]))

    def _linear(self, site: str, layer: int, x: Array, matrix: Array, replaced: Array | None = None) -> Array:
        """x @ matrix.T; pruned edges read the source's ablation value (`replaced` where it is not constant)."""
        if self.support is None or self.support.edges is None:
            return x @ matrix.T
        kept = self.support.edges[site][layer].astype(np.float64)
        if replaced is None:
            replaced = self.support.ablation[EDGE_SOURCE[site]][layer].astype(np.float64)
        return x @ (matrix * kept).T + replaced @ (matrix * (1 - kept)).T

    def _node(self, site: str, layer: int, x: Array) -> Array:
        """AbsTopK, then the gate, then the record."""
        x = self._sparsify(site, x)
        if self.support is not None and site in self.support.keep:
            x = np.where(self.support.keep[site][layer], x, self.support.ablation[site][layer].astype(np.float64))
        return self._record(SITE_HOOKS[site].format(layer), x)

    def _sparsify(self, location: str, x: Array) -> Array:
        if self.c["afrac"] is None or location not in self.c["afrac_loctypes"].split(","):
            return x
        return abs_top_k(x, int(self.c["afrac"] * x.shape[-1]))

    def _after_add(self, sublayer: str, x: Array) -> Array:
        if self.c["residual_activation_type"] == "relu":
            x = np.maximum(x, 0.0)
        return self._sparsify(f"resid_post_{sublayer}", x)

    def _norm(self, name: str, x: Array) -> Array:
        if not self.c["rms_norm"]:
            x = x - np.mean(x, axis=-1, keepdims=True)
        eps = RMS_EPS if self.c["rms_norm"] else LAYER_EPS
        divisor = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
        self.divisors[name] = divisor
        if self.frozen_divisors is not None:
            divisor = self.frozen_divisors[name]
        y = x / divisor * self._weight(f"{name}.weight")
        if not self.c["rms_norm"] and self.c["ln_bias"]:
            y = y + self._weight(f"{name}.bias")
        return y

    def _weight(self, name: str) -> Array:
        return np.asarray(self.weights[name]).astype(np.float64)

    def _bias(self, name: str, width: int) -> Array:
        return self._weight(f"{name}.bias") if self.c["bias"] else np.zeros(width)

    def _record(self, name: str, x: Array) -> Array:
        self.activations[name] = x
        return x

    @staticmethod
    def _append(x: Array, position: Array) -> Array:
        return np.concatenate([x, np.broadcast_to(position, (x.shape[0], *position.shape[1:]))], axis=-1)


def circuit_support(config: Mapping[str, Any], circuit: Mapping[str, Any], ablation: Mapping[str, Array]) -> Support:
    """The support described by a circuit.json and its ablation.npz."""
    n_layer, widths = complete(config)["n_layer"], site_widths(config)
    keep = {site: np.zeros((n_layer, width), bool) for site, width in widths.items()}
    for node in circuit["nodes"]:
        keep[node["site"]][node["layer"], node["channel"]] = True
    edges = None
    if circuit["edge_pruned"]:
        edges = {to: np.zeros((n_layer, widths[to], widths[source])) for to, source in EDGE_SOURCE.items()}
        for edge in circuit["edges"]:
            (layer, source, channel), (to_layer, to, to_channel) = edge["from"], edge["to"]
            assert (to_layer, EDGE_SOURCE[to]) == (layer, source)
            edges[to][layer, to_channel, channel] = edge.get("factor", 1.0)
    return Support(keep, {site: np.asarray(ablation[site]) for site in widths}, edges, circuit["norm"] == "frozen")


def circuit_logits(
    config: Mapping[str, Any],
    weights: Weights,
    tokens: Array,
    circuit: Mapping[str, Any],
    ablation: Mapping[str, Array],
) -> Array:
    """Calibrated logits (B, T, vocab) of the circuit: scale * logits + shift."""
    logits, _ = forward(config, weights, tokens, circuit_support(config, circuit, ablation))
    calibration = circuit.get("calibration") or {"scale": 1.0, "shift": []}
    logits = calibration["scale"] * logits
    for token, value in calibration["shift"]:
        logits[..., token] += value
    return logits


def task_loss(logits: Array, lengths: Array, answer_id: Array, foil_id: Array) -> float:
    """Mean binary cross-entropy in nats between answer and foil at the last token of every sequence."""
    rows = np.arange(len(lengths))
    last = logits[rows, np.asarray(lengths) - 1]
    return float(np.mean(np.logaddexp(0.0, last[rows, foil_id] - last[rows, answer_id])))


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict that belongs to `config`."""
    c = complete(config)
    d, mlp, heads, vocab = c["d_model"], c["d_mlp"], c["n_head"] * c["d_head"], c["vocab_size"]
    concatenated = c["d_pos_emb"] or 0
    norm_names = ["transformer.ln_f"]
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocab, d),
        "transformer.wpe.weight": (c["block_size"], concatenated or d),
    }
    for layer in range(c["n_layer"]):
        h = f"transformer.h.{layer}"
        norm_names += [f"{h}.{n}" for n in ("ln_1", "ln_2", *(("ln_p1", "ln_p2") if concatenated else ()))]
        for name, out, read in (
            ("attn.c_attn", 3 * heads, d + concatenated),
            ("attn.c_proj", d, heads),
            ("mlp.c_fc", mlp, d + concatenated),
            ("mlp.c_proj", d, mlp),
        ):
            shapes[f"{h}.{name}.weight"] = (out, read)
            if c["bias"]:
                shapes[f"{h}.{name}.bias"] = (out,)
        if c["sink"]:
            shapes[f"{h}.attn.attn_imp.sink_logit"] = (c["n_head"],)
    for name in norm_names:
        width = concatenated if ".ln_p" in name else d
        shapes[f"{name}.weight"] = (width,)
        if not c["rms_norm"] and c["ln_bias"]:
            shapes[f"{name}.bias"] = (width,)
    shapes["lm_head.weight"] = (vocab, d)
    shapes["final_logits_bias"] = (vocab,)
    if c["enable_bigram_table"]:
        shapes["bigram_table"] = (vocab, vocab)
    return shapes


def random_weights(config: Mapping[str, Any], seed: int, density: float = 0.5) -> dict[str, Array]:
    """Float32 weights in which every option matters: sparse matrices, nonzero biases, sinks and tables, odd scales."""
    c, rng = complete(config), np.random.default_rng(seed)
    weights = {}
    for name, shape in parameter_shapes(config).items():
        value = rng.standard_normal(shape)
        if ".ln_" in name and name.endswith("weight"):
            value = 1.0 + 0.3 * value
        elif len(shape) == 2 and name != "bigram_table" and "wpe" not in name:
            value *= (rng.random(shape) < density) / math.sqrt(max(1.0, density * shape[1]))
        else:
            value *= 0.5
        weights[name] = value.astype(np.float32)
    if c["sinusoidal_cat_pos_emb"]:
        weights["transformer.wpe.weight"] = sinusoids(c["block_size"], c["d_pos_emb"]).astype(np.float32)
    if c["tied_unembed"]:
        weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return weights


def sinusoids(block_size: int, width: int) -> Array:
    """Fixed positions (block_size, width): log-spaced periods from 4 to the context, sin half then cos half."""
    half = max(1, width // 2)
    periods = np.geomspace(4.0, max(4.0, float(block_size)), half)
    angles = np.arange(block_size)[:, None] * (2.0 * math.pi / periods)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, max(0, width - 2 * half))))[:, :width]
