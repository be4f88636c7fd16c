"""Where the Pallas kernels stand in for the plain forms: on TPUs and NVIDIA GPUs, when they work there.

The plain form is the reference and gives the same bits. It runs on CPUs, under SPARSE_GPT_KERNELS=plain, for shapes
that a kernel does not take, and on a device where a kernel does not compile or errs on a small example; of the last
two a line says so once.
"""

import functools
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from flax.linen.spmd import logical_to_mesh_axes
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec
from tqdm import tqdm

from sparse_gpt.errors import InputError
from sparse_gpt.sparsity import pallas_counts, pallas_rows

OFF = "SPARSE_GPT_KERNELS"  # "plain" turns the kernels off

_NAMES = {"tpu": "TPU", "cuda": "GPU"}
_ALIASES = {"gpu": "cuda"}  # what a backend calls itself -> what programs are lowered for


def kept(x: Array, k: int, plain: Callable[[Array], Array]) -> Array:
    """Mask of the k largest magnitudes along the last axis, by a kernel where one works.

    Args:
        x: float32 or bfloat16 (..., width).
        k: 0 < k < width.
        plain: the plain form of the same.
    """
    platform = target()
    if platform is None:
        return plain(x)
    can, kernel = _ROWS[platform]
    rows = jax.ShapeDtypeStruct((math.prod(x.shape[:-1]), x.shape[-1]), x.dtype)
    if not can(rows):
        _say(f"AbsTopK over {x.shape[-1]} channels takes the plain form: no {_NAMES[platform]} kernel for that width")
        return plain(x)

    def local(x: Array) -> Array:
        return kernel(x.reshape(-1, x.shape[-1]), k).reshape(x.shape)

    spread = _over_rows(local, x)
    return plain(x) if spread is None else _choose(platform, spread, plain, x)


def at_least(keys: Array, thresholds: Array, plain: Callable[[Array, Array], Array]) -> Array:
    """(c,) int32: how many keys are at least each threshold, by a kernel where one works.

    Args:
        keys: int32, one device's part of a tensor.
        thresholds: int32 (c,).
        plain: the plain form of the same.
    """
    platform = target()
    if platform is None or not _COUNTS[platform][0](jax.typeof(keys)):
        return plain(keys, thresholds)
    return _choose(platform, _COUNTS[platform][1], plain, keys, thresholds)


_ROWS = {
    "tpu": (pallas_rows.tpu_can, pallas_rows.keep_rows_tpu),
    "cuda": (pallas_rows.gpu_can, pallas_rows.keep_rows_gpu),
}
_COUNTS = {
    "tpu": (pallas_counts.tpu_can, pallas_counts.at_least_tpu),
    "cuda": (pallas_counts.gpu_can, pallas_counts.at_least_gpu),
}


def _choose(platform: str, kernel: Callable[..., Array], plain: Callable[..., Array], *args: Array) -> Array:
    """The kernel where the program is lowered for its platform; the same trace may be lowered for others."""
    chosen: Array = lax.platform_dependent(*args, default=plain, **{platform: kernel})
    return chosen


def target() -> str | None:
    """ "tpu" or "cuda" when what is traced now is for such devices, and kernels work there: those of the mesh around,
    which need not exist, or this process's own. InputError if SPARSE_GPT_KERNELS is neither empty nor "plain"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    here = _ALIASES.get(jax.default_backend(), jax.default_backend())
    platform = here if device is None else _ALIASES.get(device.platform, device.platform)
    choice = os.environ.get(OFF, "")
    if choice not in ("", "plain"):
        raise InputError(f"{OFF}={choice}: choose plain, or unset it for the kernels")
    if platform not in _NAMES or choice:
        return None
    return platform if platform != here or _works(platform) else None


@functools.cache
def _works(platform: str) -> bool:
    """Whether this process's device runs both kernels, and right, on a small example."""
    # In a thread of its own: no mesh and no trace that is under way here reaches there.
    with ThreadPoolExecutor(1) as pool:
        try:
            reason = pool.submit(_try, platform).result()
        except Exception as error:  # compilers raise many kinds
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if reason:
        _say(f"selection takes the plain form: the {_NAMES[platform]} kernels do not run here ({reason[:200]})")
    return not reason


def _try(platform: str) -> str:
    """What is wrong with the kernels, if anything."""
    random = np.random.default_rng(0)
    rows = np.round(random.normal(size=(64, 2048)), 1).astype(np.float32)  # with ties
    keys = random.integers(0, 2**31, (512, 128)).astype(np.int32)
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    expected = np.zeros(rows.shape, bool)
    np.put_along_axis(expected, order[:, :512], True, axis=1)
    if not np.array_equal(jax.jit(lambda x: _ROWS[platform][1](x, 512))(rows), expected):
        return "the selection kernel errs"
    thresholds = np.array([0, 2**30, 2**31 - 1], np.int32)
    counts = jax.jit(_COUNTS[platform][1])(keys, thresholds)
    if not np.array_equal(counts, [(keys >= each).sum() for each in thresholds]):
        return "the counting kernel errs"
    return ""


def _over_rows(function: Callable[[Array], Array], x: Array) -> Callable[[Array], Array] | None:
    """`function`, applied by every device to its own part of the leading axis; None where nothing says which axes of
    the mesh share it. The compiler cannot divide a kernel, and would gather all rows on every device."""
    mesh = jax.sharding.get_abstract_mesh()
    shared = [
        name
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind == AxisType.Auto and size > 1
    ]
    if not shared:
        return function if not mesh.empty or jax.device_count() == 1 else None
    named = (logical_to_mesh_axes(("batch",)) or (None,))[0]
    axes = named if isinstance(named, tuple) else (named,) * (named is not None)
    if not axes or x.ndim < 2 or x.shape[0] % math.prod(mesh.shape[name] for name in axes):
        return None
    rows = PartitionSpec(axes)
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


@functools.cache
def _say(line: str) -> None:
    """Once."""
    tqdm.write(line, file=sys.stderr)
