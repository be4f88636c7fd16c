"""How many keys of a tensor reach each of several thresholds, as Pallas kernels for accelerators: a round of
`topk.joint_thresholds` with one pass over the keys. The plain form compares them with every threshold in a pass of its
own.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

if TYPE_CHECKING:
    from jax.experimental.pallas import tpu as pltpu

_SUBLANES, _LANES = 8, 128  # of a TPU's registers
_TPU_ENTRIES = 2**18  # of a block: 1 MB of keys, and few enough for exact sums of floats
_TPU_WIDEST = 2**15
_LOWEST = -(2**31)
_PER_PROGRAM = 4096  # keys of one program on a GPU, 32 in each thread's registers
_WORTH_IT = 2**16  # entries; below, a launch costs more than it saves
_PADDED = 16  # thresholds, to a power of two as Triton wants


def tpu_can(keys: jax.ShapeDtypeStruct) -> bool:
    """Whether the TPU kernel takes a tensor of this shape: matrices, also those whose shards fill no lanes."""
    return len(keys.shape) == 2 and keys.shape[1] <= _TPU_WIDEST


def gpu_can(keys: jax.ShapeDtypeStruct) -> bool:
    """Whether the GPU kernel takes a tensor of this shape: whole programs' worth of keys."""
    return keys.size >= _WORTH_IT and keys.size % _PER_PROGRAM == 0


def at_least_tpu(keys: Array, thresholds: Array, interpret: "bool | pltpu.InterpretParams" = False) -> Array:
    """(c,) int32: how many keys are at least each threshold.

    Args:
        keys: int32 (rows, columns).
        thresholds: int32 (c,), each above the lowest int32.
        interpret: run as plain JAX operations, for tests.
    """
    from jax.experimental.pallas import tpu as pltpu

    rows, columns = keys.shape
    most = max(_SUBLANES, _TPU_ENTRIES // max(columns, _LANES) // _SUBLANES * _SUBLANES)
    height, count = min(most, -(-rows // _SUBLANES) * _SUBLANES), thresholds.shape[0]
    # Registers hold a count per threshold, sublane and lane; lanes are added up at the end.
    lanes = _LANES if columns % _LANES == 0 else columns

    def kernel(thresholds_ref: Array, keys_ref: Array, counts_ref: Array) -> None:
        @pl.when(pl.program_id(0) == 0)
        def _start() -> None:
            counts_ref[...] = jnp.zeros_like(counts_ref)

        limits = [thresholds_ref[i] for i in range(count)]
        row = lax.broadcasted_iota(jnp.int32, (_SUBLANES, lanes), 0) + pl.program_id(0) * height

        def add(i: Array, counts: list[Array]) -> list[Array]:
            # What lies beyond the last row is anything, and must count nowhere.
            inside = row + i * _SUBLANES < rows
            for start in range(0, columns, lanes):
                part = keys_ref[pl.ds(i * _SUBLANES, _SUBLANES), start : start + lanes]
                part = jnp.where(inside, part, _LOWEST)
                counts = [each + (part >= limit).astype(jnp.int32) for each, limit in zip(counts, limits, strict=True)]
            return counts

        zeros = jnp.zeros((_SUBLANES, lanes), jnp.int32)
        counts = lax.fori_loop(0, height // _SUBLANES, add, [zeros] * count)
        place = lax.broadcasted_iota(jnp.int32, counts_ref.shape, 1)
        for i, each in enumerate(counts):
            total = jnp.sum(jnp.sum(each.astype(jnp.float32), axis=0, keepdims=True), axis=1, keepdims=True)
            counts_ref[...] += jnp.where(place == i, total.astype(jnp.int32), 0)

    grid = (pl.cdiv(rows, height),)
    counts = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((1, _LANES), jnp.int32, manual_axis_type=jax.typeof(keys).manual_axis_type),
        grid=grid,
        in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), pl.BlockSpec((height, columns), lambda i: (i, 0))],
        out_specs=pl.BlockSpec((1, _LANES), lambda i: (0, 0)),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        cost_estimate=pl.CostEstimate(flops=3 * count * keys.size, bytes_accessed=keys.nbytes, transcendentals=0),
        interpret=interpret,
        name="at_least",
    )(thresholds, keys)
    return counts[0, :count]


def at_least_gpu(keys: Array, thresholds: Array, interpret: bool = False) -> Array:
    """As `at_least_tpu`, on an NVIDIA GPU through Triton; keys of any shape that `gpu_can` takes."""
    from jax.experimental.pallas import triton as plgpu

    count, programs = thresholds.shape[0], keys.size // _PER_PROGRAM

    def kernel(thresholds_ref: Array, keys_ref: Array, counts_ref: Array) -> None:
        block, place = keys_ref[...], lax.broadcasted_iota(jnp.int32, (_PADDED,), 0)
        counts = jnp.zeros(_PADDED, jnp.int32)
        for i in range(count):
            counts = jnp.where(place == i, jnp.sum((block >= thresholds_ref[i]).astype(jnp.int32)), counts)
        counts_ref[...] = counts

    counts = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(
            (programs, _PADDED), jnp.int32, manual_axis_type=jax.typeof(keys).manual_axis_type
        ),
        grid=(programs,),
        in_specs=[pl.BlockSpec((_PADDED,), lambda i: (0,)), pl.BlockSpec((_PER_PROGRAM,), lambda i: (i,))],
        out_specs=pl.BlockSpec((None, _PADDED), lambda i: (i, 0)),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="at_least",
    )(jnp.pad(thresholds, (0, _PADDED - count)), keys.reshape(-1))
    return jnp.sum(counts[:, :count], axis=0, dtype=jnp.int32)
