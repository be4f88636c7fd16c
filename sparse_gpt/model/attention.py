"""Causal softmax attention with sinks, arranged for caches.

Scores are the largest arrays of a small model, and on a CPU passing over them costs more than the matrix products
that make them. So queries are taken in blocks which never look at keys after their end, the backward pass recomputes
the weights from one saved number per query (as FlashAttention does), and on a single CPU device a few (batch, head)
pairs are worked on at a time. About twice as fast there as what automatic differentiation gives.

Letters: G = batch x heads, Q queries, T keys, K and V channels of queries and of values (both d_head in a model).
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sparse_gpt.parameters import PyTree

MASKED = -1e30  # finite, so that arithmetic on hidden scores stays finite
_BLOCKS = 4
_SHORTEST_BLOCK = 64
_UNROLLED = range(17, 40)  # numbers of keys for which LLVM unrolls whole rows of exponentials: seconds to compile
_SCORES_AT_ONCE = 2**19  # score entries worked on at a time on a CPU: two megabytes


def attend(q: jax.Array, k: jax.Array, v: jax.Array, sink_H: jax.Array, query_positions: jax.Array) -> jax.Array:
    """Attention of a few queries (B, H, Q, K) at given positions (B, Q) to all keys (B, H, T, K): (B, H, Q, V)."""
    k, v = _with_more_keys(k), _with_more_keys(v)
    scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("bhqk,bhtk->bhqt", q * scale, k, preferred_element_type=jnp.float32)
    visible = query_positions[:, None, :, None] >= jnp.arange(k.shape[2])[None, None, None, :]
    scores, sink = jnp.where(visible, scores, MASKED), sink_H[None, :, None, None]
    weights = jnp.exp(scores - jnp.logaddexp(jax.nn.logsumexp(scores, axis=-1, keepdims=True), sink))
    return jnp.einsum("bhqt,bhtk->bhqk", weights.astype(v.dtype), v)


def attend_alike(scores: jax.Array, v: jax.Array, sink_H: jax.Array) -> jax.Array:
    """Attention of every position to itself and those before it, where all of them have the same query: a key's score
    (B, H, T), scaled, is the same for each, and so one pass over the keys gives all (B, H, T, V) from v of that shape.

    The softmax is kept as (largest logit so far, sum of exponentials and weighted sum relative to it).
    """

    def add_key(
        before: tuple[jax.Array, jax.Array, jax.Array], key: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        top, total, mixed = before
        score, value = key
        now = jnp.maximum(top, score)
        shrunk, added = jnp.exp(top - now), jnp.exp(score - now)
        total = shrunk * total + added
        mixed = shrunk[..., None] * mixed + added[..., None] * value
        return (now, total, mixed), mixed / total[..., None]

    sink = jnp.broadcast_to(jnp.maximum(sink_H, MASKED), scores.shape[:2])  # two infinities have no difference
    one = jnp.broadcast_to((sink_H > MASKED).astype(scores.dtype), scores.shape[:2])
    first = (sink, one, jnp.zeros((*v.shape[:2], v.shape[3]), v.dtype))
    _, found = lax.scan(add_key, first, (jnp.moveaxis(scores, 2, 0), jnp.moveaxis(v, 2, 0)))
    return jnp.moveaxis(found, 0, 2)


def _with_more_keys(x: jax.Array) -> jax.Array:
    """(B, H, T, K) with so many zeros at the end that no row of scores is unrolled; no query sees what comes after."""
    time = x.shape[2]
    return jnp.pad(x, ((0, 0), (0, 0), (0, _UNROLLED.stop - time), (0, 0))) if time in _UNROLLED else x


def causal_attention(q: jax.Array, k: jax.Array, v: jax.Array, sink_H: jax.Array) -> jax.Array:
    """Attention of every position to itself and those before it.

    Args:
      q, k: (B, H, T, K).
      v: (B, H, T, V); in a whole model V is K.
      sink_H: (H,) float32, one more logit per head in the softmax denominator only; minus infinity for none.

    Returns:
      (B, H, T, V), the dtype of v.
    """
    batch, heads, time, width = q.shape
    scale = jnp.asarray(width**-0.5, q.dtype)
    sink = jnp.broadcast_to(sink_H[None, :], (batch, heads)).reshape(-1)
    k, v = _with_more_keys(k), _with_more_keys(v)
    q, k, v = (x.reshape(batch * heads, -1, x.shape[3]) for x in (q * scale, k, v))
    return _attention(q, k, v, sink).reshape(batch, heads, time, v.shape[2])


@jax.custom_vjp
def _attention(q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array) -> jax.Array:
    """As `causal_attention`, for scaled q (G, Q, K), k (G, T, K) and v (G, T, V) with T >= Q, and sink (G,)."""
    return _forward(q, k, v, sink)[0]


def _forward(q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    output, log_sum = _in_pieces(_forward_piece, q, k, v, sink)
    return output, (q, k, v, sink, output, log_sum)


def _backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    gradients: tuple[jax.Array, ...] = _in_pieces(_backward_piece, *saved, gradient)
    return gradients


_attention.defvjp(_forward, _backward)


def _in_pieces(function: Callable[..., PyTree], *arrays: jax.Array) -> PyTree:
    """`function` of arrays with a common leading axis G; piece by piece where that helps the cache.

    On several devices the axis is sharded and stays whole.
    """
    pairs, time = arrays[0].shape[:2]
    size = max(1, _SCORES_AT_ONCE // (time * time))
    size = max(divisor for divisor in range(1, min(size, pairs) + 1) if pairs % divisor == 0)
    if size == pairs or jax.device_count() > 1:
        return function(*arrays)

    def by_piece(*arrays: jax.Array) -> PyTree:
        pieces = [x.reshape(pairs // size, size, *x.shape[1:]) for x in arrays]
        results = lax.map(lambda piece: function(*piece), tuple(pieces))
        return jax.tree.map(lambda x: x.reshape(pairs, *x.shape[2:]), results)

    return lax.platform_dependent(*arrays, cpu=by_piece, default=function)


def _blocks(queries: int, keys: int) -> list[tuple[int, int, int]]:
    """(start, stop) of the query blocks and how many keys each looks at; few when they would get very short."""
    count = max(1, min(_BLOCKS, queries // _SHORTEST_BLOCK))
    ends = itertools.pairwise(queries * i // count for i in range(count + 1))
    return [(start, stop, keys if stop == queries else stop) for start, stop in ends]


def _dot(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Product over one axis of each, within every pair; float32."""
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _visible(start: int, stop: int, keys: int) -> jax.Array:
    return (jnp.arange(start, stop)[:, None] >= jnp.arange(keys)[None, :])[None]


def _forward_piece(q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Output (G, T, V) and the log of every softmax denominator (G, T)."""
    outputs, log_sums = [], []
    for start, stop, keys in _blocks(q.shape[1], k.shape[1]):
        scores = jnp.where(_visible(start, stop, keys), _dot(q[:, start:stop], k[:, :keys], 2, 2), MASKED)
        top = jnp.maximum(jnp.max(scores, axis=-1), sink[:, None])
        unnormalized = jnp.exp(scores - top[..., None])
        total = jnp.sum(unnormalized, axis=-1) + jnp.exp(sink[:, None] - top)
        outputs.append(_dot(unnormalized.astype(v.dtype), v[:, :keys], 2, 1) / total[..., None])
        log_sums.append(top + jnp.log(total))
    return jnp.concatenate(outputs, axis=1).astype(v.dtype), jnp.concatenate(log_sums, axis=1)


# More than six parameters: all that the forward pass has kept, and the gradient.
def _backward_piece(
    q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array, output: jax.Array, log_sum: jax.Array, g: jax.Array
) -> tuple[jax.Array, ...]:
    """Gradients of q, k (G, T, K), v (G, T, V) and sink (G,)."""
    # What the softmax takes off every key's gradient: the mean of those gradients under the weights.
    mean = jnp.sum(g.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    dq = []
    # (G, K, T) and (G, V, T): this way round is faster
    dk, dv = (jnp.zeros((x.shape[0], x.shape[2], x.shape[1]), jnp.float32) for x in (k, v))
    for start, stop, keys in _blocks(q.shape[1], k.shape[1]):
        block = slice(start, stop)
        scores = _dot(q[:, block], k[:, :keys], 2, 2)
        weights = jnp.where(_visible(start, stop, keys), jnp.exp(scores - log_sum[:, block, None]), 0)
        ds = weights * (_dot(g[:, block], v[:, :keys], 2, 2) - mean[:, block, None])
        weights, ds = weights.astype(v.dtype), ds.astype(q.dtype)
        dq.append(_dot(ds, k[:, :keys], 2, 1))
        dv = dv.at[:, :, :keys].add(_dot(g[:, block], weights, 1, 1))
        dk = dk.at[:, :, :keys].add(_dot(q[:, block], ds, 1, 1))
    dsink = -jnp.sum(jnp.exp(sink[:, None] - log_sum) * mean, axis=1)
    swap = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    return jnp.concatenate(dq, axis=1).astype(q.dtype), swap(dk).astype(k.dtype), swap(dv).astype(v.dtype), dsink
