"""Taps: pure functions that the model calls at every node site, after AbsTopK.

A tap is ``tap(site, layer, x) -> x`` with x of shape (batch, time, width). The eight node sites are
``config.NODE_SITES``; a node is one channel at one site. The model also calls the tap at the places listed in
`OBSERVED`, which are not nodes: residual stream and attention output, and the reciprocal norm (1 / RMS or
1 / standard deviation, width 1), which lets a circuit run with the full model's frozen norms.

Everything that looks into the model or changes it (recording, gating, patching, steering) is a tap; nothing forks it.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from sparse_gpt.config import ModelConfig

Tap = Callable[[str, int, jax.Array], jax.Array]

NORM_TAPS = ("attn_norm", "mlp_norm", "final_norm")
OBSERVED = ("resid_in", "attn_y", "resid_mid", "resid_final", *NORM_TAPS)
AFTER_LAYERS = ("resid_final", NORM_TAPS[2])  # of these, seen once, with the number of layers in the place of a layer


def identity(site: str, layer: int, x: jax.Array) -> jax.Array:
    """The default tap: changes nothing."""
    del site, layer
    return x


def site_widths(m: ModelConfig) -> dict[str, int]:
    """Number of nodes per layer at each node site."""
    read, heads = m.d_model + m.d_position, m.n_head * m.d_head
    return {
        "attn_in": read,
        "attn_q": heads,
        "attn_k": heads,
        "attn_v": heads,
        "attn_out": m.d_model,
        "mlp_in": read,
        "mlp_neuron": m.d_mlp,
        "mlp_out": m.d_model,
    }


def recorder(store: dict[tuple[str, int], jax.Array], sites: tuple[str, ...] | None = None) -> Tap:
    """A tap that puts what it sees into `store` under (site, layer); None records every site.

    Return the store from the function that is traced: ``def f(p, x): store = {}; y = apply(p, x, tap=recorder(store));
    return y, store``.
    """

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if sites is None or site in sites:
            store[site, layer] = x
        return x

    return tap


def gate(gates: Mapping[str, jax.Array], ablation: Mapping[str, jax.Array]) -> Tap:
    """A tap that mixes: gate 1 leaves a node alone, gate 0 replaces it by its ablation value.

    Args:
      gates: site -> (n_layer, width), values in [0, 1]; sites that are absent stay as they are.
      ablation: site -> (n_layer, width), the value an ablated node takes at every position.
    """

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in gates:
            return x
        return _mixed(x, gates[site][layer].astype(x.dtype), ablation[site][layer].astype(x.dtype))

    return tap


@jax.custom_vjp
def _mixed(x: jax.Array, gate_W: jax.Array, value_W: jax.Array) -> jax.Array:
    """gate * x + (1 - gate) * value, of x (B, T, W)."""
    open_gate, value = gate_W[None, None, :], value_W[None, None, :]
    return open_gate * x + (1 - open_gate) * value


def _mixed_forward(x: jax.Array, gate_W: jax.Array, value_W: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _mixed(x, gate_W, value_W), (x, gate_W, value_W)


def _mixed_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    x, gate_W, value_W = saved
    by_gate = _sum_over_tokens(gradient * (x - value_W[None, None, :]))
    return gate_W[None, None, :] * gradient, by_gate, (1 - gate_W) * _sum_over_tokens(gradient)


_mixed.defvjp(_mixed_forward, _mixed_backward)


def _sum_over_tokens(x: jax.Array) -> jax.Array:
    """(W,) of (B, T, W)."""
    return jnp.sum(x.reshape(-1, x.shape[-1]), axis=0)


def substitute(values: Mapping[tuple[str, int], jax.Array]) -> Tap:
    """A tap that puts the given arrays, by (site, layer), in place of what the model computed."""

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(values[site, layer].astype(x.dtype), x.shape) if (site, layer) in values else x

    return tap


def chain(*taps: Tap) -> Tap:
    """One tap that applies several in turn."""

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        for inner in taps:
            x = inner(site, layer, x)
        return x

    return tap
