"""The transformer in Flax Linen: ``Transformer(...).apply({"params": p}, tokens)`` gives logits.

Shapes are written into names: B batch, T position, D d_model, R d_model + d_position (what a sublayer reads), H heads,
K d_head, F d_mlp, V vocabulary; Q counts the positions that are still computed (T, or 1, see `Transformer.__call__`).
"""

import dataclasses
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.config import Config, ModelConfig, activation_sites
from sparse_gpt.model.activations import ACTIVATIONS
from sparse_gpt.model.attention import attend, causal_attention
from sparse_gpt.model.packing import Packing
from sparse_gpt.model.placement import gather_channels, replicate_channels
from sparse_gpt.model.taps import Tap, identity
from sparse_gpt.parameters import Params, parameter_table
from sparse_gpt.sparsity.topk import abs_topk

RMS_EPS = float(np.finfo(np.float32).eps)  # torch.nn.RMSNorm with eps=None; 1e-6 changes sparse models' logits
LAYER_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Nodes:
    """What happens at a node site: AbsTopK where it is switched on, then the tap."""

    fraction: float
    sites: tuple[str, ...]
    tap: Tap

    def __call__(self, site: str, layer: int, x: jax.Array) -> jax.Array:
        return self.tap(site, layer, self.sparsify((site,), x[..., None, :])[..., 0, :])

    def sparsify(self, sites: tuple[str, ...], x: jax.Array) -> jax.Array:
        """AbsTopK of (..., sites, width) along the width, in one selection when it acts at all of the sites."""
        k = int(self.fraction * x.shape[-1])
        acts = [site in self.sites for site in sites]
        if all(acts):
            return abs_topk(x, k)
        parts = [abs_topk(x[..., i, :], k) if on else x[..., i, :] for i, on in enumerate(acts)]
        return jnp.stack(parts, axis=-2) if any(acts) else x


class Sequences(NamedTuple):
    """How the sequences of a batch lie, and at which of their positions outputs are wanted.

    Attributes:
      positions: (B,) one of each sequence; None: all.
      packing: of sequences side by side, B and T being 1 and N then; None: they are padded to T.
    """

    positions: jax.Array | None = None
    packing: Packing | None = None

    def at_positions(self, x: jax.Array) -> jax.Array:
        """x (B, T, ...), or alike for all sequences (1, T, ...), where it is wanted: (B, Q, ...)."""
        if self.positions is None:
            return x
        if len(x) == 1:
            rows = self.positions if self.packing is None else self.packing.ends
            return jnp.take(x[0], rows, axis=0)[:, None]
        return jnp.take_along_axis(x, self.positions.reshape(-1, *(1,) * (x.ndim - 1)), axis=1)

    def apart(self, x: jax.Array) -> jax.Array:
        """x (B, T, n) with a row for each sequence."""
        return x if self.packing is None else self.packing.by_sequence(x[0])

    def as_given(self, x: jax.Array) -> jax.Array:
        """What `apart` laid out, back again."""
        return x if self.packing is None else self.packing.side_by_side(x)[None]


EVERYWHERE = Sequences()


class _Part(nn.Module):
    """A module whose parameters are rows of the parameter table, found by the module's own path."""

    config: ModelConfig

    def tensor(self, name: str, dtype: jnp.dtype) -> jax.Array:
        spec = parameter_table(self.config)[(*self.path, name)]
        return self.param(name, spec.make).astype(dtype)


class Linear(_Part):
    """y = x W + b. Leading axes are flattened so that the weight gradient is one large matrix product."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.tensor("kernel", x.dtype)
        y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel)
        if self.config.bias:
            y = y + self.tensor("bias", x.dtype)[None, :]
        return y.reshape(*x.shape[:-1], kernel.shape[1])


class Norm(_Part):
    """RMSNorm or LayerNorm with a learned scale, in float32. The tap sees the reciprocal norm (B, T, 1)."""

    @nn.compact
    def __call__(self, x: jax.Array, site: str = "", layer: int = 0, tap: Tap = identity) -> jax.Array:
        centered = x.astype(jnp.float32)
        rms = self.config.norm == "rms"
        if not rms:
            centered = centered - jnp.mean(centered, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
        inverse = tap(site, layer, jax.lax.rsqrt(variance + (RMS_EPS if rms else LAYER_EPS)))
        y = centered * inverse * self.tensor("scale", jnp.float32)[None, None, :]
        if self.config.norm_bias:
            y = y + self.tensor("bias", jnp.float32)[None, None, :]
        return y.astype(x.dtype)


class Attention(_Part):
    """Causal attention with optional sinks: one learned logit per head in the softmax denominator only."""

    def setup(self) -> None:
        self.c_attn = Linear(self.config)
        self.c_proj = Linear(self.config)
        if self.config.attention_sink:
            self.sink = self.tensor("sink", jnp.float32)

    def __call__(self, x_BxTxR: jax.Array, layer: int, nodes: Nodes, sequences: Sequences) -> jax.Array:
        m, sites = self.config, ("attn_q", "attn_k", "attn_v")
        qkv = gather_channels(self.c_attn(x_BxTxR)).reshape(*x_BxTxR.shape[:2], 3, -1)
        qkv = nodes.sparsify(sites, qkv)
        q, k, v = (qkv[:, :, i] for i in range(3))
        q, k, v = (nodes.tap(site, layer, x) for site, x in zip(sites, (sequences.at_positions(q), k, v), strict=True))
        k, v = (sequences.apart(x) for x in (k, v))
        q = q if sequences.positions is not None else sequences.apart(q)
        q, k, v = (jnp.swapaxes(x.reshape(*x.shape[:2], m.n_head, m.d_head), 1, 2) for x in (q, k, v))
        sink = self.sink if m.attention_sink else jnp.full(m.n_head, -jnp.inf, jnp.float32)
        if sequences.positions is None:
            y = causal_attention(q, k, v, sink)
        else:
            y = attend(q, k, v, sink, sequences.positions[:, None])
        y = jnp.swapaxes(y, 1, 2).reshape(len(y), -1, m.n_head * m.d_head)
        y = nodes("attn_y", layer, y if sequences.positions is not None else sequences.as_given(y))
        return nodes("attn_out", layer, replicate_channels(self.c_proj(y)))


class Mlp(_Part):
    """Two matrices around the activation function; each channel between them is a neuron."""

    def setup(self) -> None:
        self.c_fc = Linear(self.config)
        self.c_proj = Linear(self.config)

    def __call__(self, x_BxTxR: jax.Array, layer: int, nodes: Nodes) -> jax.Array:
        hidden = ACTIVATIONS[self.config.activation].traced(gather_channels(self.c_fc(x_BxTxR)))
        return nodes("mlp_out", layer, replicate_channels(self.c_proj(nodes("mlp_neuron", layer, hidden))))


class Block(_Part):
    """One layer. `sublayer` 0 is attention, 1 the MLP; each maps the residual stream to the residual stream."""

    def setup(self) -> None:
        self.ln_1, self.ln_2 = Norm(self.config), Norm(self.config)
        self.attn, self.mlp = Attention(self.config), Mlp(self.config)
        if self.config.d_position:
            self.ln_p1, self.ln_p2 = Norm(self.config), Norm(self.config)

    def __call__(
        self,
        h_BxTxD: jax.Array,
        position_1xTxP: jax.Array | None,
        sublayer: int,
        layer: int,
        nodes: Nodes,
        sequences: Sequences,
    ) -> jax.Array:
        tap = nodes.tap
        relu = self.config.residual_activation == "relu"
        if sublayer == 0:
            h_BxTxD = tap("resid_in", layer, h_BxTxD)
            read = replicate_channels(self.ln_1(h_BxTxD, "attn_norm", layer, tap))
            if position_1xTxP is not None:
                read = _append(read, self.ln_p1(position_1xTxP))
            h = sequences.at_positions(h_BxTxD) + self.attn(nodes("attn_in", layer, read), layer, nodes, sequences)
            return nodes("resid_post_attn", layer, nn.relu(h) if relu else h)
        h_BxTxD = tap("resid_mid", layer, h_BxTxD)
        read = replicate_channels(self.ln_2(h_BxTxD, "mlp_norm", layer, tap))
        if position_1xTxP is not None:
            read = _append(read, sequences.at_positions(self.ln_p2(position_1xTxP)))
        h = h_BxTxD + self.mlp(nodes("mlp_in", layer, read), layer, nodes)
        return nodes("resid_post_mlp", layer, nn.relu(h) if relu else h)


class Transformer(_Part):
    """GPT-2 style decoder with AbsTopK activation sparsity.

    Attributes:
      config: sizes and options.
      activation_fraction: AbsTopK keeps int(fraction * width) channels; 0 turns it off.
      activation_sites: where AbsTopK acts (node sites, resid_post_attn, resid_post_mlp).
      dtype: of activations and of the matrix products; parameters stay float32.
      remat: recompute each sublayer in the backward pass, unless there is a tap: what one keeps would be gone.
    """

    activation_fraction: float = 0.0
    activation_sites: tuple[str, ...] = ()
    dtype: str = "float32"
    remat: bool = False

    def setup(self) -> None:
        m, compute = self.config, jnp.dtype(self.dtype)
        self.wte = self.tensor("wte", compute)
        if m.position in ("additive", "concat"):
            self.wpe = self.tensor("wpe", compute)
        self.h = [Block(m) for _ in range(m.n_layer)]
        self.ln_f = Norm(m)
        if not m.tied:
            self.lm_head = self.tensor("lm_head", compute)
        if m.final_bias:
            self.final_logits_bias = self.tensor("final_logits_bias", jnp.float32)
        if m.bigram:
            self.bigram = self.tensor("bigram", jnp.float32)

    def __call__(
        self,
        tokens: jax.Array,
        tap: Tap = identity,
        positions: jax.Array | None = None,
        packing: Packing | None = None,
    ) -> jax.Array:
        """Logits, float32.

        Args:
          tokens: (B, T) integers, or (1, N) of sequences side by side.
          tap: called at every node site, see model/taps.py.
          positions: (B,) one position per sequence, or None. When given, logits are computed only there, shape
            (B, 1, V), and everything after the last layer's keys and values is skipped at other positions
            (the taps then see Q = 1 there). The values are those of the full computation.
          packing: of sequences side by side; its `positions` are the only ones that may be asked for. Taps see
            (1, N, width) where they else see (B, T, width).

        Returns:
          (B, T, V) logits, or (B, 1, V).
        """
        sequences = Sequences(positions, packing)
        h = self.run(self.embed(tokens, packing), 0, 2 * self.config.n_layer, tap, sequences)
        return self.unembed(h, sequences.at_positions(tokens), tap)

    def embed(self, tokens: jax.Array, packing: Packing | None = None) -> jax.Array:
        """Residual stream at boundary 0, (B, T, D)."""
        h = jnp.take(self.wte, tokens, axis=0)
        if self.config.position == "additive":
            h = h + self._by_position(self.wpe, tokens.shape[1], packing)
        return replicate_channels(h)

    def run(
        self,
        h: jax.Array,
        start: int = 0,
        stop: int | None = None,
        tap: Tap = identity,
        sequences: Sequences = EVERYWHERE,
    ) -> jax.Array:
        """Residual stream at boundary `stop` from the one at `start`; from the last attention on at the positions of
        `sequences` alone.

        Boundaries count sublayers: 0 is the embedding, 2 l + 1 is after attention of layer l, 2 l + 2 after its MLP.
        """
        stop = 2 * self.config.n_layer if stop is None else stop
        nodes = Nodes(self.activation_fraction, self.activation_sites, tap)
        last_attention = 2 * self.config.n_layer - 2
        position = self._concatenated(h.shape[1], sequences.packing)
        sublayer = Block.__call__
        if self.remat and tap is identity:
            sublayer = nn.remat(sublayer, static_argnums=(3, 4, 5))
        for index in range(start, stop):
            here = sequences if index >= last_attention else sequences._replace(positions=None)
            h = sublayer(self.h[index // 2], h, position, index % 2, index // 2, nodes, here)
        return h

    def unembed(self, h: jax.Array, tokens: jax.Array, tap: Tap = identity) -> jax.Array:
        """Logits (B, T, V) from the residual stream at the last boundary and the current tokens (B, T)."""
        m = self.config
        h = tap("resid_final", m.n_layer, h)
        x = replicate_channels(self.ln_f(h, "final_norm", m.n_layer, tap))
        head = self.wte.T if m.tied else self.lm_head
        logits = jnp.dot(x.reshape(-1, m.d_model), head, preferred_element_type=jnp.float32)
        if m.final_bias:
            logits = logits + self.final_logits_bias[None, :]
        if m.bigram:
            logits = logits + jnp.take(self.bigram, tokens.reshape(-1), axis=0)
        return replicate_channels(logits.reshape(*h.shape[:-1], m.vocab_size))

    def _concatenated(self, time: int, packing: Packing | None) -> jax.Array | None:
        """Concatenated position channels (1, T, d_position), or None."""
        if self.config.position == "concat":
            return self._by_position(self.wpe, time, packing)
        if self.config.position == "sinusoidal":
            table = jnp.asarray(sinusoids(self.config.context, self.config.d_position), jnp.dtype(self.dtype))
            return self._by_position(table, time, packing)
        return None

    @staticmethod
    def _by_position(table: jax.Array, time: int, packing: Packing | None) -> jax.Array:
        """(1, T, P) rows of a table (context, P)."""
        return (table[:time] if packing is None else jnp.take(table, packing.at, axis=0))[None]


def _append(x: jax.Array, own: jax.Array) -> jax.Array:
    """Position channels after the stream's channels."""
    return jnp.concatenate([x, jnp.broadcast_to(own, (*x.shape[:2], own.shape[-1]))], axis=-1)


def sinusoids(context: int, width: int) -> np.ndarray:
    """(context, width) float32: periods log-spaced from 4 to `context`, sine half, then cosine half."""
    periods = np.geomspace(4, context, width // 2)
    phase = 2 * np.pi * np.arange(context)[:, None] / periods[None, :]
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)


def apply(model: Transformer, params: Params, *args: object, method: str = "__call__", **options: Any) -> jax.Array:
    """What the model, or one of its methods (so that options may be any), makes of its arguments: streams or logits."""
    found = model.apply({"params": params}, *args, method=method, **options)
    return cast(jax.Array, found)


def build(config: Config) -> Transformer:
    """The model of a configuration."""
    return Transformer(
        config.model,
        config.sparsity.activation_fraction,
        activation_sites(config.sparsity),
        config.train.dtype,
        config.train.remat,
    )


def build_exact(config: Config) -> Transformer:
    """The same in float32, whatever it is trained in: as everything is computed that is said of a trained model."""
    return build(config).clone(dtype="float32", remat=False)
