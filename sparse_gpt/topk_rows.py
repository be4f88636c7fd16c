"""Which k entries of every row are largest, as a mask: the inner part of `topk.abs_topk`.

Two ways to the same bits. On accelerators, a plain bisection of 32-bit keys along the row. On a CPU, where selection
would otherwise cost more than the matrix products around it, the same bisection arranged for vector units: rows lie
side by side (so that counting is lane-wise addition), keys are taken as two 16-bit halves (twice the lanes), and ties
are looked into only when some row has one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

_ROWS_ABREAST = 32
_CHAIN = 16  # additions in a row before a partial count is stored; with 32, widths of 256 to 480 are four times slower
_ENTRIES_AT_ONCE = 2**19  # keys worked on at a time, so that they stay in cache
_WORTH_ARRANGING = 2**16  # keys; below, the plain way is fast enough and compiles in a fraction of the time
_LOWEST16 = -(2**15)


@functools.cache
def keep_rows(k: int, half: bool) -> Any:
    """``mask(keys)`` for keys (rows, width) int32 from `topk.magnitude_keys`, with 0 < k < width.

    Exactly k entries per row are true, ties going to the lowest index. `half` says that the lower 16 bits of all keys
    are zero (keys of bfloat16 numbers). Batching with vmap puts the batch among the rows, so the way
    taken for ties stays a branch.
    """

    @custom_vmap
    def mask(keys: Array) -> Array:
        # On several devices the rows are sharded: pieces and a common branch would make them communicate.
        if keys.size < _WORTH_ARRANGING or keys.shape[1] >= 2**15 or jax.device_count() > 1:
            return _plain(keys, k)
        return lax.platform_dependent(
            keys, cpu=lambda keys: _abreast(keys, k, half), default=lambda keys: _plain(keys, k)
        )

    @mask.def_vmap
    def rule(size: int, batched: list[bool], keys: Array) -> tuple[Array, bool]:
        del batched
        return mask(keys.reshape(size * keys.shape[1], keys.shape[2])).reshape(keys.shape), True

    return mask


def _plain(keys: Array, k: int) -> Array:
    """Bit by bit, the largest threshold with at least k keys on or above it; then the same for the index."""

    def count(kept: Array) -> Array:
        return jnp.sum(kept, axis=1, dtype=jnp.int32)

    def lower(i: Array, threshold: Array) -> Array:
        candidate = threshold + (1 << (30 - i))
        return jnp.where(count(keys >= candidate[:, None]) >= k, candidate, threshold)

    threshold = lax.fori_loop(0, 31, lower, jnp.zeros_like(keys[:, 0]))[:, None]
    need = k - count(keys > threshold)
    index = lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    bits = keys.shape[1].bit_length()

    def raise_bound(i: Array, bound: Array) -> Array:
        candidate = bound + (1 << (bits - 1 - i))
        return jnp.where(count((keys == threshold) & (index < candidate[:, None])) <= need, candidate, bound)

    bound = lax.fori_loop(0, bits, raise_bound, jnp.zeros_like(need))
    return (keys > threshold) | ((keys == threshold) & (index < bound[:, None]))


def _abreast(keys: Array, k: int, half: bool) -> Array:
    """As `_plain`, for a CPU. Works through the rows in pieces that fit the cache."""
    rows, width = keys.shape
    pieces = max(1, rows * width // _ENTRIES_AT_ONCE)
    per_piece = -(-rows // (pieces * _ROWS_ABREAST)) * _ROWS_ABREAST
    wide = -(-width // _CHAIN) * _CHAIN
    padded = jnp.pad(keys, ((0, 0), (0, wide - width)), constant_values=-1)  # below every key
    padded = jnp.pad(padded, ((0, pieces * per_piece - rows), (0, 0)), mode="edge")  # brings no new ties
    cut = functools.partial(_cut, k=k, half=half)
    if pieces == 1:
        threshold, bound = cut(padded)
    else:
        threshold, bound = lax.map(cut, padded.reshape(pieces, per_piece, wide))
    threshold, bound = threshold.reshape(-1)[:rows, None], bound.reshape(-1)[:rows, None]
    index = jnp.arange(width, dtype=jnp.int32)[None, :]
    return (keys > threshold) | ((keys == threshold) & (index < bound))


def _cut(keys: Array, k: int, half: bool) -> tuple[Array, Array]:
    """Threshold and index bound of every row (rows,), for keys (rows, width) with a whole number of row groups
    and of chains; negative keys count for nothing."""
    width = keys.shape[1]
    # (groups, width, rows abreast); barriers keep XLA from recomputing the rearranged keys in every round
    abreast = lax.optimization_barrier(keys.reshape(-1, _ROWS_ABREAST, width).transpose(0, 2, 1))
    upper = lax.optimization_barrier((abreast >> 16).astype(jnp.int16))
    wanted = jnp.full(upper[:, 0].shape, k, jnp.int16)
    digit = _largest16(upper, wanted, 15, 0)
    need = wanted - _count(upper, digit + 1)
    if half:
        threshold, last, exact = digit.astype(jnp.int32) << 16, digit, _count(upper, digit) == wanted
    else:
        among = upper == digit[:, None]
        lower = lax.optimization_barrier(
            jnp.where(among, ((abreast & 0xFFFF) + _LOWEST16).astype(jnp.int16), jnp.int16(_LOWEST16))
        )
        last = _largest16(lower, need, 16, _LOWEST16)
        threshold = (digit.astype(jnp.int32) << 16) | (last.astype(jnp.int32) - _LOWEST16)
        # At the lowest value the entries outside `among` count too, so nothing is known: look closer.
        exact = (_count(lower, last) == need) & (last != _LOWEST16)

    def look_closer() -> Array:
        above = _count(abreast, threshold + 1)
        backwards = (width - lax.broadcasted_iota(jnp.int32, abreast.shape, 1)).astype(jnp.int16)  # width ... 1
        equal = lax.optimization_barrier(jnp.where(abreast == threshold[:, None], backwards, jnp.int16(0)))
        last = _largest16(equal, wanted - above, width.bit_length(), 0)
        return (width + 1 - last.astype(jnp.int32)).astype(jnp.int32)

    bound = lax.cond(jnp.all(exact), lambda: jnp.full(threshold.shape, width, jnp.int32), look_closer)
    return threshold.reshape(-1), bound.reshape(-1)


def _largest16(values: Array, need: Array, bits: int, start: int) -> Array:
    """Largest t in [start, start + 2**bits) with at least `need` values >= t along axis 1; t is `start` at least."""

    def step(i: Array, t: Array) -> Array:
        candidate = t + (jnp.int32(1) << (bits - 1 - i)).astype(jnp.int16)
        return jnp.where(_count(values, candidate) >= need, candidate, t)

    return lax.fori_loop(0, bits, step, jnp.full(need.shape, start, jnp.int16))


def _count(values: Array, threshold: Array) -> Array:
    """How many of `values` (groups, width, rows) are >= `threshold` (groups, rows), counted along the width in int16.

    Slices come before comparisons: the other way round XLA stores every comparison.
    """
    groups, width, rows = values.shape
    parts = values.reshape(groups, _CHAIN, width // _CHAIN, rows)
    hits = [_reached(parts[:, i], threshold[:, None]) for i in range(_CHAIN)]
    partial = lax.optimization_barrier(functools.reduce(jnp.add, hits))
    return functools.reduce(jnp.add, [partial[:, i] for i in range(width // _CHAIN)])


def _reached(values: Array, threshold: Array) -> Array:
    return (values >= threshold).astype(jnp.int16)
