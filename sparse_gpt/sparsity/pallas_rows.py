"""The k largest entries of every row on accelerators, as Pallas kernels: what `topk_rows.keep_rows` does there.

The plain form reads every key from memory once a round, 31 times and more. Here a block of rows is read once and
bisected where it lies, in a TPU's vector memory or a GPU's registers: 15 rounds for bfloat16 and 31 for float32, and
where some row of the block has more equals at its threshold than it may keep, as many again as an index has bits.
Same masks as the plain form, bit for bit: both bisect the same integer keys.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

_TPU_TILE = 32, 128  # rows and columns of the masks' int8 tiles
_TPU_ENTRIES = 2**18  # of a block: 1 MB of keys, of which vector memory holds a few
_WIDEST = 2**15
_PER_WARP = 2048  # entries of a GPU's row that one warp holds, 64 in each thread's registers


def tpu_can(x: jax.ShapeDtypeStruct) -> bool:
    """Whether the TPU kernel takes rows of this shape: they fill whole lanes, and a tile of them fits vector memory."""
    return x.shape[1] % _TPU_TILE[1] == 0 and x.shape[1] <= _WIDEST


def gpu_can(x: jax.ShapeDtypeStruct) -> bool:
    """Whether the GPU kernel takes rows of this shape: Triton's arrays have powers of two."""
    return 32 <= x.shape[1] <= _WIDEST and x.shape[1] & (x.shape[1] - 1) == 0


def keep_rows_tpu(x: Array, k: int, interpret: bool = False) -> Array:
    """Mask of the k largest magnitudes of every row; ties to the lowest index.

    Args:
        x: float32 or bfloat16 (rows, width); `tpu_can` says which widths.
        k: 0 < k < width.
        interpret: run as plain JAX operations, for tests.
    """
    from jax.experimental.pallas import tpu as pltpu

    rows, width = x.shape
    most = max(_TPU_TILE[0], _TPU_ENTRIES // width // _TPU_TILE[0] * _TPU_TILE[0])
    height = min(most, -(-rows // _TPU_TILE[0]) * _TPU_TILE[0])

    def kernel(x_ref: Array, mask_ref: Array) -> None:
        mask = _keep(magnitude_bits(x_ref[...]), k, _key_bits(x), _count_lanes)
        mask_ref[...] = mask.astype(jnp.int32).astype(jnp.int8)

    return _call(
        kernel,
        x,
        grid=(pl.cdiv(rows, height),),
        block=pl.BlockSpec((height, width), lambda i: (i, 0)),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        cost=_cost(x),
        interpret=interpret,
    )


def keep_rows_gpu(x: Array, k: int, interpret: bool = False) -> Array:
    """As `keep_rows_tpu`, on an NVIDIA GPU through Triton, one row a program; `gpu_can` says which widths."""
    from jax.experimental.pallas import triton as plgpu

    rows, width = x.shape

    def kernel(x_ref: Array, mask_ref: Array) -> None:
        mask = _keep(magnitude_bits(x_ref[...]), k, _key_bits(x), lambda hits: jnp.sum(hits.astype(jnp.int32)))
        mask_ref[...] = mask.astype(jnp.int8)

    return _call(
        kernel,
        x,
        grid=(rows,),
        block=pl.BlockSpec((None, width), lambda i: (i, 0)),
        compiler_params=plgpu.CompilerParams(num_warps=max(1, width // _PER_WARP), num_stages=1),
        cost=None,
        interpret=interpret,
    )


# More than six parameters: what the two kinds of kernel differ in.
def _call(
    kernel: Callable[[Array, Array], None],
    x: Array,
    *,
    grid: tuple[int],
    block: pl.BlockSpec,
    compiler_params: pl.CompilerParams,
    cost: pl.CostEstimate | None,
    interpret: bool,
) -> Array:
    mask = pl.pallas_call(
        kernel,
        # Inside `jax.shard_map` the result varies over the mesh as its input does.
        out_shape=jax.ShapeDtypeStruct(x.shape, jnp.int8, manual_axis_type=jax.typeof(x).manual_axis_type),
        grid=grid,
        in_specs=[block],
        out_specs=block,
        compiler_params=compiler_params,
        cost_estimate=cost,
        interpret=interpret,
        name="keep_rows",
    )(x)
    return mask != 0


def _cost(x: Array) -> pl.CostEstimate:
    """What the compiler is told, for it has no estimate of kernels: six operations an entry and round (a comparison and
    two more, with loads and sums across lanes as many again by its schedule), and ties in bfloat16 only."""
    rounds = _key_bits(x) + (x.shape[1].bit_length() if x.dtype == jnp.bfloat16 else 0)
    return pl.CostEstimate(flops=6 * rounds * x.size, bytes_accessed=x.nbytes + x.size, transcendentals=0)


def _key_bits(x: Array) -> int:
    return 15 if x.dtype == jnp.bfloat16 else 31


def magnitude_bits(x: Array) -> Array:
    """Int32 keys that order like the magnitudes of floats; every NaN is the one largest. `topk.magnitude_keys` in the
    floats' own number of bits, so that bfloat16 takes half the rounds."""
    whole, infinity = (jnp.int16, 0x7F80) if x.dtype == jnp.bfloat16 else (jnp.int32, 0x7F800000)
    bits = lax.bitcast_convert_type(x, whole).astype(jnp.int32) & (2 ** _key_bits(x) - 1)
    return jnp.minimum(bits, infinity + 1)


def _count_lanes(hits: Array) -> Array:
    """How many of each row; as floats, which a TPU adds across lanes at once, and exactly below 2**24."""
    return jnp.sum(jnp.where(hits, 1.0, 0.0), axis=1, keepdims=True).astype(jnp.int32)


def _keep(keys: Array, k: int, key_bits: int, count: Callable[[Array], Array]) -> Array:
    """The plain bisection (`topk_rows`) of keys (..., width) in a kernel; `count` adds up rows of booleans."""
    width = keys.shape[-1]

    def raise_threshold(i: Array, threshold: Array) -> Array:
        candidate = threshold + (jnp.int32(1) << (key_bits - 1 - i))
        return jnp.where(count(keys >= candidate) >= k, candidate, threshold)

    reached = count(keys >= 0)  # all of them, shaped as counts are
    threshold = lax.fori_loop(0, key_bits, raise_threshold, reached * 0)
    need = k - count(keys > threshold)
    equal = keys == threshold
    surplus = count(equal) - need
    tied = (jnp.max(surplus) if surplus.ndim else surplus) > 0
    index, bits = lax.broadcasted_iota(jnp.int32, keys.shape, keys.ndim - 1), width.bit_length()

    def raise_bound(i: Array, bound: Array) -> Array:
        candidate = bound + (jnp.int32(1) << (bits - 1 - i))
        return jnp.where(count(equal & (index < candidate)) <= need, candidate, bound)

    bound = lax.cond(tied, lambda: lax.fori_loop(0, bits, raise_bound, reached * 0), lambda: reached * 0 + width)
    return (keys > threshold) | (equal & (index < bound))
