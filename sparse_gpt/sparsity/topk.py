"""Exact selection of the k entries of largest magnitude, without sorting.

The bits of a non-negative float, read as an integer, order like the float itself. The k-th largest
magnitude is therefore the largest integer t for which at least k entries have bits >= t, and it is found
by fixing t from its highest digit down, with nothing but counts. Counts add up over shards, so the same
search serves one row, one matrix, and every tensor of a model spread over a mesh.

Everything here keeps exactly k entries, breaks ties by the lowest index, and treats a NaN of any kind as
larger than infinity: it is kept and propagates, so a diverged run is seen and not silently repaired.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from sparse_gpt.sparsity import accelerators, topk_tensors
from sparse_gpt.sparsity.topk_rows import keep_rows

FORCED = 2**31 - 1  # a key above every magnitude, NaN included
_INF_KEY = 0x7F800000
_NAN_KEY = 0x7F810000  # the next key above infinity in which only the upper half is set, as in all bfloat16 keys
_LOWEST = -(2**31)


def magnitude_keys(x: Array) -> Array:
    """Maps floats to int32 keys that order like their magnitudes.

    Args:
      x: float32 or bfloat16, any shape.

    Returns:
      int32 of the same shape, in [0, 0x7F810000]. Both zeros map to 0, every NaN to the one largest key,
      which is still below `FORCED`.

    Raises:
      TypeError: x is neither float32 nor bfloat16.
    """
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        raise TypeError(f"magnitudes are ordered for float32 and bfloat16, not {x.dtype}: cast first")
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32) & 0x7FFFFFFF
    return jnp.where(bits > _INF_KEY, _NAN_KEY, bits)


def _largest(accept: Callable[[Array], Array], like: Array, bits_per_round: int, bits: int = 32) -> Array:
    """Finds the largest int32 of so many bits that `accept` takes, for many independent searches at once.

    `accept` maps candidates (c, *like.shape) to booleans of that shape. It must be monotone (true up to
    some value, false above) and true at the lowest candidate: 0, or the lowest int32 when all 32 bits are searched.
    One call is made per round, of which there are `bits` / `bits_per_round`, rounded up. The start is made
    from the integers `like` because inside `jax.shard_map` a loop's carry must vary over the mesh from the start.
    """
    rounds = -(-bits // bits_per_round)
    lowest = 0 if rounds * bits_per_round < 32 else _LOWEST
    steps = jnp.arange(1, 2**bits_per_round, dtype=jnp.int32).reshape((-1,) + (1,) * like.ndim)

    def body(i: Array, low: Array) -> Array:
        shift = bits_per_round * (rounds - 1 - i)
        digit = jnp.sum(accept(low[None] + (steps << shift)), axis=0, dtype=jnp.int32)
        return low + (digit << shift)

    return lax.fori_loop(0, rounds, body, like * 0 + lowest)


def abs_topk(x: Array, k: int) -> Array:
    """AbsTopK: keeps the k entries of largest magnitude along the last axis, the others become 0.

    Exactly k entries are kept in every row, ties going to the lowest index (so a row with fewer than k
    nonzeros keeps some of its zeros). A NaN counts as larger than infinity: it is kept and propagates.
    The gradient flows through the kept entries only, kept zeros included. Rows are independent: under
    jit with rows sharded over a mesh no communication arises, as long as the last axis is whole.

    Args:
      x: float32 or bfloat16, (..., width).
      k: how many to keep; 0 gives zeros, k >= width gives x itself.

    Returns:
      An array like x. Kept entries keep their bits.

    Raises:
      ValueError: k is negative.

    References:
      Gao et al. 2025, arXiv 2511.13653, section 2 (activation sparsity).
    """
    if k < 0:
        raise ValueError(f"k={k} entries cannot be kept: k must be 0 or more")
    if k >= x.shape[-1]:
        return x
    if k == 0:
        return jnp.zeros_like(x)
    return _abs_topk(x, k)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _abs_topk(x: Array, k: int) -> Array:
    return _abs_topk_forward(x, k)[0]


def _abs_topk_forward(x: Array, k: int) -> tuple[Array, Array]:
    with jax.named_scope("abs_topk"):
        keep = accelerators.kept(x, k, functools.partial(_plain_mask, k=k))
    return jnp.where(keep, x, jnp.zeros_like(x)), keep


def _plain_mask(x: Array, k: int) -> Array:
    rows = magnitude_keys(x).reshape(-1, x.shape[-1])
    return keep_rows(k, x.dtype == jnp.bfloat16, jax.device_count() > 1)(rows).reshape(x.shape)


def _abs_topk_backward(k: int, keep: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(keep, gradient, jnp.zeros_like(gradient)),)


_abs_topk.defvjp(_abs_topk_forward, _abs_topk_backward)


class Thresholds(NamedTuple):
    """Of n tensors: an entry stays if its key is above `key`, or equal with an index below `bound`."""

    key: Array  # (n,) int32
    bound: Array  # (n,) int32


def joint_thresholds(
    keys: Sequence[Array],
    ks: Array,
    *,
    index: Sequence[Array] | None = None,
    sizes: Sequence[int] | None = None,
    reduce_counts: Callable[[Array], Array] = lambda counts: counts,
    bits_per_round: int = 1,
) -> Thresholds:
    """Finds, for many tensors in one search, the thresholds that leave exactly k entries of each.

    Every round counts entries of all tensors and passes one int32 array of shape
    (2**bits_per_round - 1, n) through `reduce_counts`; there are 32 / bits_per_round rounds and one more. Inside
    `jax.shard_map`, with `reduce_counts` a psum over the mesh axes that shard the tensors, a round costs
    one small all-reduce, no entry leaves its device, and the result is the same for every sharding.
    The search for the index is skipped at run time unless some tensor has more equals at its threshold than
    it may keep; it takes as many rounds as the largest size has digits of `bits_per_round` bits. With four
    bits and tensors below 2**28 entries that makes 16 rounds in all.

    Args:
      keys: n int32 arrays (local shards), from `magnitude_keys`, `FORCED` where an entry must stay.
      ks: (n,) int32, how many entries of each whole tensor stay; taken as within [0, size]. May be traced.
      index: for every array of keys, the int32 flat index of each entry in the whole tensor
        (`flat_index`); default: the arrays are whole.
      sizes: number of entries of every whole tensor; without it, and with `index`, any index is searched.
      reduce_counts: sums counts over shards; default: there is one shard.
      bits_per_round: 1, 2 or 4. More bits mean fewer rounds and more counting in each: 1 is fastest where a round
        costs little (one CPU; there `topk_tensors` does the same, with all tensors side by side), 4 where it is an
        all-reduce over many devices.

    Returns:
      The cuts; `keep_mask` applies one.
    """
    if bits_per_round not in (1, 2, 4):
        raise ValueError(f"bits_per_round={bits_per_round} must be 1, 2 or 4")
    if index is None:
        index, sizes = [flat_index(each.shape) for each in keys], [each.size for each in keys]
    if bits_per_round == 1:
        return Thresholds(
            *topk_tensors.thresholds(keys, ks, index, FORCED - 1 if sizes is None else max(sizes), reduce_counts)
        )
    counter = _Counter(keys)

    def enough(candidates: Array) -> Array:
        return reduce_counts(counter.at_least(candidates)) >= ks[None]

    key = _largest(enough, ks, bits_per_round)
    # FORCED + 1 would overflow, but nothing is above FORCED.
    counts = counter.at_least(jnp.stack([jnp.minimum(key, FORCED - 1) + 1, key]))
    above, reached = reduce_counts(counts.at[0].set(jnp.where(key == FORCED, 0, counts[0])))
    need = ks - above

    def search_index() -> Array:
        before = counter.before(key, index)

        def few_enough(candidates: Array) -> Array:
            return reduce_counts(before(candidates)) <= need[None]

        return _largest(few_enough, need, bits_per_round, 32 if sizes is None else max(sizes).bit_length())

    tied = jnp.any(reached != ks)
    return Thresholds(key, lax.cond(tied, search_index, lambda: need * 0 + FORCED))


class _Counter:
    """Counts of n tensors, for several candidates (c, n) at once, as reductions over the tensors as they are."""

    def __init__(self, keys: Sequence[Array]):
        self.keys = keys

    def at_least(self, candidates: Array) -> Array:
        """(c, n): how many keys are at least the candidate."""
        counts = [accelerators.at_least(keys, candidates[:, i], _plain_at_least) for i, keys in enumerate(self.keys)]
        return jnp.stack(counts, axis=-1)

    def before(self, key: Array, index: Sequence[Array]) -> Callable[[Array], Array]:
        """Function of candidates: how many keys equal `key` (n,) and have an index below the candidate."""

        def count(candidates: Array) -> Array:
            counts = [
                _sum((keys == key[i])[None] & (index[i][None] < _for_each(candidates[:, i], keys)))
                for i, keys in enumerate(self.keys)
            ]
            return jnp.stack(counts, axis=-1)

        return count


def _plain_at_least(keys: Array, thresholds: Array) -> Array:
    """(c,): how many keys are at least each threshold."""
    return _sum(keys[None] >= _for_each(thresholds, keys))


def _for_each(candidates: Array, of: Array) -> Array:
    return candidates.reshape((-1,) + (1,) * of.ndim)


def _sum(mask: Array) -> Array:
    return jnp.sum(mask, axis=tuple(range(1, mask.ndim)), dtype=jnp.int32)


def keep_mask(keys: Array, key: Array, bound: Array, index: Array | None = None) -> Array:
    """Boolean mask of the entries that one threshold leaves.

    Args:
      keys: int32 keys of one tensor or of a shard of it.
      key, bound: the tensor's entries of `Thresholds.key` and `Thresholds.bound`, scalars.
      index: flat indices as given to `joint_thresholds`; default: the array is whole.
    """
    if index is None:
        index = flat_index(keys.shape)
    return (keys > key) | ((keys == key) & (index < bound))


def flat_index(
    shape: Sequence[int],
    *,
    offset: Sequence[Array | int] | None = None,
    whole_shape: Sequence[int] | None = None,
) -> Array:
    """The int32 row-major index, in the whole tensor, of every entry of a shard.

    Args:
      shape: of the shard.
      offset: where the shard starts along every axis (may be traced, e.g. from `lax.axis_index`).
      whole_shape: of the whole tensor; fewer than 2**31 entries.
    """
    whole_shape = shape if whole_shape is None else whole_shape
    offset = (0,) * len(shape) if offset is None else offset
    index = jnp.zeros(shape, jnp.int32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + stride * (lax.broadcasted_iota(jnp.int32, shape, axis) + offset[axis])
        stride *= whole_shape[axis]
    if stride > FORCED:
        raise ValueError(f"a tensor of shape {tuple(whole_shape)} has more than 2**31 - 1 entries: split it")
    return index


def topk_mask(
    keys: Array,
    k: int,
    axis: int,
    *,
    offset: Array | int = 0,
    gather: Callable[[Array], Array] = lambda candidates: candidates,
) -> Array:
    """Boolean mask of the k largest keys along one axis of a matrix, for small k; ties to the lowest index.

    Meant for the few connections that every neuron keeps. The work is k passes over the matrix.
    When `axis` is sharded, each shard proposes its own k best and only those proposals travel.

    Args:
      keys: int32 (rows, columns), from `magnitude_keys`; a shard inside `jax.shard_map`.
      k: how many along `axis`; as many as there are when k exceeds the length.
      axis: 0 or 1.
      offset: where the shard starts along `axis`.
      gather: joins the shards' proposals along their axis 0; for a sharded axis
        `lambda p: lax.all_gather(p, mesh_axis, tiled=True)`.

    Returns:
      Booleans like keys, exactly min(k, whole length) of them true along `axis`.
    """
    index = lax.broadcasted_iota(jnp.int32, keys.shape, axis) + offset
    proposed = min(k, keys.shape[axis])
    if proposed == 0:
        return jnp.zeros(keys.shape, bool)

    def propose(rest: Array, _: None) -> tuple[Array, Array]:
        top = jnp.max(rest, axis=axis)
        first = jnp.min(jnp.where(rest == jnp.expand_dims(top, axis), index, FORCED), axis=axis)
        return jnp.where(index == jnp.expand_dims(first, axis), _LOWEST, rest), jnp.stack([top, first])

    _, proposals = lax.scan(propose, keys, None, length=proposed)
    candidates = gather(proposals)  # (shards * k, 2, lines)
    key, last = _kth(candidates[:, 0], candidates[:, 1], min(k, candidates.shape[0]))
    key, last = jnp.expand_dims(key, axis), jnp.expand_dims(last, axis)
    return (keys > key) | ((keys == key) & (index <= last))


def _kth(keys: Array, index: Array, k: int) -> tuple[Array, Array]:
    """The k-th of few candidates (n, lines) by key downwards, then index upwards."""
    if keys.shape[0] == k:
        key = jnp.min(keys, axis=0)
        return key, jnp.max(jnp.where(keys == key[None], index, -1), axis=0)
    ahead = (keys[:, None] > keys[None]) | ((keys[:, None] == keys[None]) & (index[:, None] <= index[None]))
    rank = jnp.sum(ahead, axis=0, dtype=jnp.int32)  # 1 for the first
    chosen = rank == k
    pick = functools.partial(jnp.max, axis=0)
    return pick(jnp.where(chosen, keys, _LOWEST)), pick(jnp.where(chosen, index, -1))
