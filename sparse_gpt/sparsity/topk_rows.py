"""Which k entries of every row are largest, as a mask: the inner part of `topk.abs_topk`.

Two ways to the same bits. A plain bisection of 32-bit keys along the row, which is the reference, and what accelerators
do where no kernel stands in (`accelerators`). On a CPU, where selection would otherwise cost more than the matrix
products around it, the same bisection arranged for vector units: rows lie
side by side (so that counting is lane-wise addition), keys are taken as two 16-bit halves (twice the lanes), and ties
are looked into only when some row has one.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from sparse_gpt.parameters import PyTree

_ROWS_ABREAST = 32
_CHAIN = 16  # additions in a row before a partial count is stored; with 32, widths of 256 to 480 are four times slower
_ENTRIES_AT_ONCE = 2**18  # keys worked on at a time, so that they stay in cache
_WORTH_ARRANGING = 2**16  # keys; below, the plain way is fast enough and compiles in a fraction of the time
_LOWEST16, _HIGHEST16 = -(2**15), 2**15 - 1


@functools.cache
def keep_rows(k: int, half: bool, sharded: bool) -> Callable[[Array], Array]:
    """``mask(keys)`` for keys (rows, width) int32 from `topk.magnitude_keys`, with 0 < k < width.

    Exactly k entries per row are true, ties going to the lowest index. `half` says that the lower 16 bits of all keys
    are zero (keys of bfloat16 numbers), `sharded` that rows may be on several devices. Batching with vmap puts the
    batch among the rows, so that what ties need stays a decision at run time. Jitted, so that it is traced once per
    shape and not at every site of every layer.
    """

    @custom_vmap
    def mask(keys: Array) -> Array:
        # Pieces, and a decision for all rows, would make the devices of sharded rows communicate.
        if keys.size < _WORTH_ARRANGING or keys.shape[1] >= 2**15 or sharded:
            return _plain(keys, k)
        return lax.platform_dependent(
            keys, cpu=lambda keys: _abreast(keys, k, half), default=lambda keys: _plain(keys, k)
        )

    @mask.def_vmap
    def rule(size: int, batched: list[bool], keys: Array) -> tuple[Array, bool]:
        del batched
        return mask(keys.reshape(size * keys.shape[1], keys.shape[2])).reshape(keys.shape), True

    return jax.jit(mask)


def _plain(keys: Array, k: int) -> Array:
    """Bit by bit, the largest threshold with at least k keys on or above it, then the largest index bound with at most
    k keys above the threshold or, at it, before the bound. In one loop, because there is less to compile."""
    width = keys.shape[1]
    index, digits = lax.broadcasted_iota(jnp.int32, keys.shape, 1), width.bit_length()

    def kept(threshold: Array, bound: Array) -> Array:
        return (keys > threshold[:, None]) | ((keys == threshold[:, None]) & (index < bound[:, None]))

    def settle(i: Array, found: Array) -> Array:
        threshold, bound = found
        first = i < 31
        threshold = jnp.where(first, threshold + (1 << (30 - jnp.minimum(i, 30))), threshold)
        bound = jnp.where(first, width, bound + (1 << (digits - 1 - jnp.maximum(i - 31, 0))))
        count = jnp.sum(kept(threshold, bound), axis=1, dtype=jnp.int32)
        fits = jnp.where(first, count >= k, count <= k)
        return jnp.where(fits, jnp.stack([threshold, jnp.where(first, 0, bound)]), found)

    start = jnp.stack([keys[:, 0] * 0] * 2)  # a loop's carry must vary over the mesh as the keys do
    return kept(*lax.fori_loop(0, 31 + digits, settle, start))


def _abreast(keys: Array, k: int, half: bool) -> Array:
    """As `_plain`, for a CPU. Works through the rows in pieces that fit the cache."""
    rows, width = keys.shape
    pieces = max(1, rows * width // _ENTRIES_AT_ONCE)
    per_piece = -(-rows // (pieces * _ROWS_ABREAST)) * _ROWS_ABREAST
    wide = -(-width // _CHAIN) * _CHAIN
    padded = jnp.pad(keys, ((0, 0), (0, wide - width)), constant_values=-1)  # below every key
    padded = jnp.pad(padded, ((0, pieces * per_piece - rows), (0, 0)), mode="edge")  # brings no new ties
    search = functools.partial(_thresholds, k=k, half=half)
    if pieces == 1:
        threshold, bound = search(padded)
    else:
        threshold, bound = lax.map(search, padded.reshape(pieces, per_piece, wide))
    threshold, bound = threshold.reshape(-1)[:rows, None], bound.reshape(-1)[:rows, None]
    index = jnp.arange(width, dtype=jnp.int32)[None, :]
    return (keys > threshold) | ((keys == threshold) & (index < bound))


def _thresholds(keys: Array, k: int, half: bool) -> tuple[Array, Array]:
    """Threshold and index bound of every row (rows,), for keys (rows, width) with a whole number of row groups
    and of chains; negative keys count for nothing.

    Three searches of 16-bit numbers, each for what the one before left open: the upper half of the threshold, its lower
    half, and among equals the index. One loop does them all, because compiling the counting costs more than anything
    else here, and it ends as soon as no row has more candidates than it may keep.
    """
    width = keys.shape[1]
    # (groups, width, rows abreast); barriers keep XLA from recomputing the rearranged keys in every round
    abreast = lax.optimization_barrier(keys.reshape(-1, _ROWS_ABREAST, width).transpose(0, 2, 1))

    def upper_halves(_: Array) -> Array:
        return (abreast >> 16).astype(jnp.int16)

    def lower_halves(threshold: Array) -> Array:
        candidate = (abreast >> 16) == (threshold >> 16)[:, None]
        return jnp.where(candidate, (abreast & 0xFFFF) + _LOWEST16, _LOWEST16).astype(jnp.int16)

    def falling_index(threshold: Array) -> Array:
        falling = width - lax.broadcasted_iota(jnp.int32, abreast.shape, 1)
        return jnp.where(abreast == threshold[:, None], falling, 0).astype(jnp.int16)

    def search(state: PyTree) -> PyTree:
        phase, threshold, bound, need, _ = state
        # A switch, because making these numbers costs more than counting among them.
        looked_at = lax.switch(phase, (upper_halves, lower_halves, falling_index), threshold)
        values = lax.optimization_barrier(looked_at)
        bits = jnp.where(phase == 2, width.bit_length(), 15 + phase)
        start = jnp.where(phase == 1, _LOWEST16, 0).astype(jnp.int16)
        found, above, reached = _largest16(values, need, bits, start)
        digit = found.astype(jnp.int32)
        threshold = jnp.where(
            phase == 0, digit << 16, jnp.where(phase == 1, threshold | (digit - _LOWEST16), threshold)
        )
        bound = jnp.where(phase == 2, width + 1 - digit, bound)
        # Where nothing but the start is reached, the whole row reaches it, which is more than any `need`.
        undecided = jnp.any(reached != need)
        # Keys of bfloat16 numbers have no lower half.
        return phase + (2 if half else 1), threshold, bound, need - above, undecided

    zeros = abreast[:, 0] * 0  # a loop's carry must vary over the mesh and over pieces as the keys do
    before = (jnp.int32(0), zeros, zeros + width, (zeros + k).astype(jnp.int16), jnp.bool(True))
    _, threshold, bound, _, _ = lax.while_loop(lambda state: (state[0] < 3) & state[4], search, before)
    return threshold.reshape(-1), bound.reshape(-1)


def _largest16(values: Array, need: Array, bits: Array, start: Array) -> tuple[Array, Array, Array]:
    """Largest t in [start, start + 2**bits) with at least `need` values >= t along axis 1; t is `start` at least.

    Also how many values are above t, and how many are t or above. `bits` may be traced.

    Every round counts once, and what follows from a count is drawn in the next round: XLA would fuse the counting into
    everything that reads it in the same round, and do it again for each.
    """

    def count_next(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, above, count = state
        step = jnp.where(i < bits, jnp.int32(1) << (bits - 1 - i), jnp.where(i == bits, 1, 0)).astype(jnp.int16)
        last_step = (jnp.int32(1) << (bits - i)).astype(jnp.int16)
        t = jnp.where((i > 0) & (i <= bits) & (count >= need), t + last_step, t)
        above = jnp.where(i == bits + 1, jnp.where(t == _HIGHEST16, 0, count), above)  # t + 1 has overflown there
        return t, above, _count(values, t + step)

    return lax.fori_loop(0, bits + 2, count_next, (need * 0 + start, need * 0, need * 0))


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
