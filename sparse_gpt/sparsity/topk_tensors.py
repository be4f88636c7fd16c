"""Thresholds of many tensors, found in one search: the inner part of `topk.joint_thresholds` for a CPU.

XLA writes every comparison to memory before it reduces, but fuses a chain of additions: so all tensors are side by
side in one array of 32 rows, a chain adds the rows up, and counting is five times faster than reductions over the
tensors as they are. One loop searches the keys and then, where some tensor has more equals at its threshold than it may
keep, their indices: compiling the counting once and not five times is a quarter of a train step's compile time.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sparse_gpt.parameters import PyTree

_CHAIN = 32  # entries of a column, added up one by one
_BLOCK = 64  # columns of a block; every tensor has whole blocks
_LOWEST, _HIGHEST = -(2**31), 2**31 - 1
_KEY_BITS = 31


class SideBySide:
    """How tensors of given sizes are laid side by side, and how entries of each are counted."""

    def __init__(self, sizes: Sequence[int]):
        self.blocks = [-(-size // (_CHAIN * _BLOCK)) for size in sizes]
        self.owner = np.repeat(np.arange(len(sizes)), self.blocks)  # (blocks,) which tensor

    def arrange(self, arrays: Sequence[Array], fill: int) -> Array:
        """Int32 (_CHAIN, columns)."""
        parts = []
        for each, blocks in zip(arrays, self.blocks, strict=True):
            padding = (0, _CHAIN * _BLOCK * blocks - each.size)
            parts.append(jnp.pad(each.reshape(-1), padding, constant_values=fill).reshape(_CHAIN, -1))
        return lax.optimization_barrier(jnp.concatenate(parts, axis=1))

    def spread(self, values: Array) -> Array:
        """One value per tensor (n,) to one per column."""
        return values[np.repeat(self.owner, _BLOCK)]

    def at_least(self, values: Array, candidates: Array) -> Array:
        """(n,) int32: how many of a tensor's values, arranged, are at least its candidate."""
        low = self.spread(candidates)
        columns = functools.reduce(jnp.add, ((values[i] >= low).astype(jnp.int32) for i in range(_CHAIN)))
        columns = lax.optimization_barrier(columns)
        blocks = jnp.sum(columns.reshape(-1, _BLOCK), axis=1)
        owns = self.owner[None] == np.arange(len(self.blocks))[:, None]
        return jnp.sum(jnp.where(owns, blocks[None], 0), axis=1)


def thresholds(
    keys: Sequence[Array],
    ks: Array,
    index: Sequence[Array],
    largest: int,
    reduce_counts: Callable[[Array], Array],
) -> tuple[Array, Array]:
    """Key and index bound of every tensor, as `topk.Thresholds` has them.

    Args:
      keys, ks, index: as for `topk.joint_thresholds`.
      largest: a number that no index reaches.
      reduce_counts: sums counts (1, n) over shards.
    """
    places = SideBySide([each.size for each in keys])
    arranged = places.arrange(keys, _LOWEST)
    # Falling with the index, so that the lowest indices are the largest; 0 for none.
    falling = largest - jnp.minimum(places.arrange(index, largest), largest)

    def search(state: PyTree) -> PyTree:
        phase, key, bound, need, _ = state  # phase 0 searches keys, 1 the indices of equal ones
        equal = jnp.where(arranged == places.spread(key)[None], falling, 0)
        values = lax.optimization_barrier(jnp.where(phase == 0, arranged, equal))
        bits = jnp.where(phase == 0, _KEY_BITS, (largest + 1).bit_length())
        found, above, reached = _largest(lambda c: reduce_counts(places.at_least(values, c)[None])[0], need, bits)
        key = jnp.where(phase == 0, found, key)
        bound = jnp.where(phase == 0, bound, jnp.maximum(largest + 1 - found, 0))
        return phase + 1, key, bound, need - above, jnp.any(reached != need)

    zeros = ks * 0  # inside `jax.shard_map` a loop's carry must vary over the mesh from the start
    before = (jnp.int32(0), zeros, zeros + _HIGHEST, ks.astype(jnp.int32), jnp.bool(True))
    _, key, bound, _, _ = lax.while_loop(lambda state: (state[0] < 2) & state[4], search, before)
    return key, bound


def _largest(count: Callable[[Array], Array], need: Array, bits: Array) -> tuple[Array, Array, Array]:
    """Largest t in [0, 2**bits) for which ``count(t)`` is at least `need`, for n searches at once, with the counts of
    t + 1 and of t. `count` falls, and reaches `need` at 0; it is called bits + 2 times.

    What follows from a count is drawn in the next round: XLA would fuse the counting into everything that reads it in
    the same round, and do it again for each. With 3 bits, values 1, 4, 6, 6 and need 3, counted are
    0 + 4 = 4 (3 values: t becomes 4), 4 + 2 = 6 (2: stays), 4 + 1 = 5 (2: stays), 5 again, how many are above 4, and 4,
    how many reach it.
    """

    def count_next(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        t, above, counted = state  # counted: of what the round before asked for
        step = jnp.where(i < bits, jnp.int32(1) << jnp.maximum(bits - 1 - i, 0), jnp.where(i == bits, 1, 0))
        last_step = jnp.int32(1) << jnp.clip(bits - i, 0, 30)
        t = jnp.where((i > 0) & (i <= bits) & (counted >= need), t + last_step, t)
        above = jnp.where(i == bits + 1, jnp.where(t == _HIGHEST, 0, counted), above)  # t + 1 has overflown there
        return t, above, count(t + step)

    return lax.fori_loop(0, bits + 2, count_next, (need * 0, need * 0, need * 0))
