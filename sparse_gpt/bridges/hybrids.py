"""Single-switch hybrid passes: one model up to a boundary, the other one from there.

What comes before the switch is the plain pass of the first model, which is done once and gives the residual stream at
every boundary. What comes after it differs between hybrids, so these run side by side as further rows of one batch that
grows where hybrids start: every sublayer is traced once, whatever the number of bridges.

Shapes: B batch, T position, D d_model, V vocabulary, S hybrids that run side by side.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparse_gpt.bridges.boundaries import Groups
from sparse_gpt.model.taps import Tap, identity
from sparse_gpt.model.transformer import Transformer, apply
from sparse_gpt.parameters import Params


def plain_pass(
    model: Transformer, params: Params, tokens: jax.Array, boundaries: Sequence[int], tap: Tap = identity
) -> tuple[list[jax.Array], jax.Array]:
    """Residual streams (B, T, D) at the given ascending boundaries, and the logits (B, T, V), of one whole pass."""
    h = apply(model, params, tokens, method="embed")
    at, streams = 0, []
    for boundary in (*boundaries, 2 * model.config.n_layer):
        h = apply(model, params, h, at, boundary, tap, method="run")
        at = boundary
        streams.append(h)
    return streams[:-1], apply(model, params, h, tokens, tap, method="unembed")


def hybrid_passes(
    model: Transformer,
    params: Params,
    tokens: jax.Array,
    entries: Sequence[tuple[int, jax.Array]],
    groups: Groups,
    chosen: jax.Array,
) -> jax.Array:
    """Logits of the passes that enter `model` at one boundary per group.

    Args:
      model, params: the model after the switch.
      tokens: (B, T), for what the model adds to the logits by token.
      entries: a boundary of `model` per bridge, ascending, and the stream (B, T, D) to enter with there.
      groups: consecutive bridges; one of each group is run.
      chosen: (S,) int32, the number of the bridge that is run for each group.

    Returns:
      (B, S, T, V) logits. The pass of group s is the one that entered at bridge chosen[s].
    """
    batch, time = tokens.shape
    at, first = entries[0]
    streams = jnp.zeros((batch, 0, time, first.shape[-1]), first.dtype)
    for s, group in enumerate(groups):
        for bridge in group:
            boundary, stream = entries[bridge]
            streams = _advance(model, params, streams, at, boundary)
            at, entry = boundary, stream[:, None]
            if bridge != group[0]:  # a later one of the group takes the row over when it is the chosen one
                streams, held = streams[:, :-1], streams[:, -1:]
                entry = jnp.where(chosen[s] == bridge, entry, held)
            streams = jnp.concatenate([streams, entry], axis=1)
    streams = _advance(model, params, streams, at, 2 * model.config.n_layer)
    rows = streams.reshape(-1, *streams.shape[2:])
    logits = apply(model, params, rows, jnp.repeat(tokens, len(groups), axis=0), method="unembed")
    return logits.reshape(batch, len(groups), time, -1)


def _advance(model: Transformer, params: Params, streams: jax.Array, start: int, stop: int) -> jax.Array:
    """All rows (B, S, T, D) of the growing batch through sublayers start to stop."""
    if start == stop or streams.shape[1] == 0:
        return streams
    rows = apply(model, params, streams.reshape(-1, *streams.shape[2:]), start, stop, method="run")
    return rows.reshape(streams.shape)
