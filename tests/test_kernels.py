"""The Pallas kernels keep the bits of the plain form, divide over devices, and give way where they do not run.

Here they are interpreted; tests/tpu_check compiles them for TPUs, tests/gpu_check runs them on a GPU.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec

from sparse_gpt.errors import InputError
from sparse_gpt.sparsity import accelerators, pallas_counts, pallas_rows, topk
from sparse_gpt.sparsity.topk_rows import _plain
from tests.test_topk import KINDS, draw, reference_mask, reference_rows, same_bits

ROWS = {"tpu": pallas_rows.keep_rows_tpu, "cuda": pallas_rows.keep_rows_gpu}
COUNTS = {"tpu": pallas_counts.at_least_tpu, "cuda": pallas_counts.at_least_gpu}
PLATFORMS = tuple(ROWS)
H100 = AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")


@pytest.fixture(name="kernels", params=PLATFORMS)
def fixture_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Kernels, interpreted, wherever there is one for the platform."""
    platform = request.param
    can_rows, can_count = accelerators._ROWS[platform][0], accelerators._COUNTS[platform][0]
    monkeypatch.setitem(accelerators._ROWS, platform, (can_rows, functools.partial(ROWS[platform], interpret=True)))
    monkeypatch.setitem(
        accelerators._COUNTS, platform, (can_count, functools.partial(COUNTS[platform], interpret=True))
    )
    monkeypatch.setattr(accelerators, "target", lambda: platform)
    monkeypatch.setattr(accelerators, "_choose", lambda platform, kernel, plain, *args: kernel(*args))
    monkeypatch.setattr("jax.device_count", lambda: 1)
    jax.clear_caches()  # of traces that took the plain form
    yield platform
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rows_are_those_of_the_plain_form(platform: str, dtype: jnp.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of row, in several blocks of which the last is not full; the plain form is held to sorting."""
    monkeypatch.setattr(pallas_rows, "_TPU_ENTRIES", 2**13)
    x = jnp.concatenate([jnp.asarray(draw(kind, (10, 128), seed)) for seed, kind in enumerate(KINDS)]).astype(dtype)
    for k in (1, 32, 127):
        expected = _plain(topk.magnitude_keys(x), k)
        np.testing.assert_array_equal(ROWS[platform](x, k, interpret=True), expected)
        assert int(expected.sum()) == k * len(x)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", [(512, 128), (300, 2048), (2048, 64), (17, 48), (40, 200)])
def test_counts_are_those_of_the_plain_form(platform: str, shape: tuple[int, int]) -> None:
    keys = jnp.asarray(np.random.default_rng(0).integers(0, 2**31, shape).astype(np.int32))
    if not {"tpu": pallas_counts.tpu_can, "cuda": pallas_counts.gpu_can}[platform](keys):
        assert platform == "cuda"
        return
    thresholds = jnp.asarray([-5, 0, 1, 2**20, 2**29, 2**30, topk.FORCED], jnp.int32)
    found = COUNTS[platform](keys, thresholds, interpret=True)
    np.testing.assert_array_equal(found, topk._plain_at_least(keys, thresholds))


def test_blocks_of_counts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pallas_counts, "_TPU_ENTRIES", 2**11)
    keys = jnp.asarray(np.random.default_rng(0).integers(0, 2**31, (70, 128)).astype(np.int32))
    thresholds = jnp.asarray([1, 2**30], jnp.int32)
    # What lies beyond the last row is the largest integer, and not the lowest.
    garbage = pltpu.InterpretParams(uninitialized_memory="nan")
    found = pallas_counts.at_least_tpu(keys, thresholds, interpret=garbage)
    np.testing.assert_array_equal(found, topk._plain_at_least(keys, thresholds))


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", ["few_values", "non_finite"])
def test_abs_topk_by_a_kernel(kind: str) -> None:
    """Values and gradients, under jit, vmap, scan and remat."""
    x, weight = draw(kind, (3, 6, 128)), draw("normal", (3, 6, 128), seed=1)
    for k in (0, 9, 128):
        keep = reference_rows(x, k)
        expected = np.where(keep, x, np.float32(0))
        select = functools.partial(topk.abs_topk, k=k)
        same_bits(jax.jit(select)(x), expected)
        same_bits(jax.jit(jax.vmap(select))(x), expected)
        same_bits(jax.lax.scan(lambda carry, row, select=select: (carry, select(row)), 0, jnp.asarray(x))[1], expected)
        gradient = jax.grad(jax.checkpoint(lambda x, select=select: jnp.sum(select(x) * weight)))
        np.testing.assert_array_equal(jax.jit(gradient)(x), np.where(keep, weight, np.float32(0)))


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_traced_for_an_accelerator_also_runs_on_a_cpu(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plain form: a process with a GPU compares it with its CPU."""
    monkeypatch.setattr(accelerators, "target", lambda: platform)
    monkeypatch.setattr("jax.device_count", lambda: 1)
    jax.clear_caches()
    x = draw("few_values", (2, 600, 128))  # large enough for the arrangement for CPUs
    expected = np.where(reference_rows(x, 9), x, np.float32(0))
    same_bits(jax.jit(jax.vmap(functools.partial(topk.abs_topk, k=9)))(x), expected)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(topk.abs_topk(x, 9))))(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, np.where(reference_rows(x, 9), 1, 0))
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_joint_thresholds_by_a_kernel() -> None:
    tensors = [draw("few_values", (512, 128)), draw("normal", (9, 5))]  # ties; too small for a GPU's kernel
    ks = [int(0.3 * x.size) for x in tensors]
    keys = [topk.magnitude_keys(jnp.asarray(x)) for x in tensors]
    found = jax.jit(functools.partial(topk.joint_thresholds, bits_per_round=4))(keys, jnp.asarray(ks, jnp.int32))
    for i, (x, k) in enumerate(zip(tensors, ks, strict=True)):
        np.testing.assert_array_equal(topk.keep_mask(keys[i], found.key[i], found.bound[i]), reference_mask(x, k))


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_every_device_runs_the_kernel_on_its_own_rows() -> None:
    """The compiler cannot divide a kernel: without a shard_map it gathers all rows on every device."""
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    x = draw("few_values", (16, 3, 128))

    def select(x: jax.Array) -> jax.Array:
        with (
            jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
            nn.logical_axis_rules((("batch", ("data", "fsdp")),)),
        ):
            return topk.abs_topk(x, 16)

    select = jax.jit(select, in_shardings=rows, out_shardings=rows)
    same_bits(select(x), np.where(reference_rows(x, 16), x, np.float32(0)))
    text = str(select.lower(x).compile().as_text())
    assert not [word for word in ("all-reduce", "all-gather", "all-to-all") if word in text]


@pytest.mark.usefixtures("kernels")
def test_the_kernel_inside_a_shard_map() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = draw("few_values", (16, 3, 128))
    spec = PartitionSpec("data")
    inside = jax.shard_map(lambda x: topk.abs_topk(x, 16), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    same_bits(jax.jit(inside)(x), np.where(reference_rows(x, 16), x, np.float32(0)))


def test_rows_that_nothing_says_the_place_of_take_the_plain_form(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On several devices, where the leading axis is not said to be shared by them."""
    del kernels
    monkeypatch.setattr("jax.device_count", lambda: 8)
    calls: list[Any] = []
    accelerators.kept(jnp.ones((4, 128)), 3, lambda x: calls.append(x) or x > 0)
    mesh = jax.make_mesh((8,), ("tensor",), axis_types=(AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        accelerators.kept(jnp.ones((4, 128)), 3, lambda x: calls.append(x) or x > 0)
    assert len(calls) == 2


def test_a_width_without_a_kernel_is_said_once(kernels: str, capsys: pytest.CaptureFixture[str]) -> None:
    accelerators._say.cache_clear()
    x = draw("normal", (4, 100))
    for _ in range(2):
        same_bits(topk.abs_topk(jnp.asarray(x), 7), np.where(reference_rows(x, 7), x, np.float32(0)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("AbsTopK over 100 channels takes the plain form: no " + {"tpu": "TPU"}.get(kernels, "GPU"))


def _fails(*args: Any) -> jax.Array:
    raise RuntimeError("no such instruction\nand more")


def _errs(x: jax.Array, k: int) -> jax.Array:
    return jnp.zeros(x.shape, bool)


@pytest.mark.parametrize(("kernel", "reason"), [(_fails, "RuntimeError: no such instruction"), (_errs, "kernel errs")])
def test_a_device_that_cannot_run_a_kernel_takes_the_plain_form(
    kernel: Callable[..., jax.Array], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(accelerators._ROWS, "tpu", (pallas_rows.tpu_can, kernel))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    accelerators._works.cache_clear()
    accelerators._say.cache_clear()
    assert [accelerators.target() for _ in range(2)] == [None, None]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("selection takes the plain form: the TPU kernels do not run here (")
    assert reason in line
    accelerators._works.cache_clear()


@pytest.mark.slow
def test_the_example_that_kernels_are_tried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in PLATFORMS:
        monkeypatch.setitem(accelerators._ROWS, platform, (None, functools.partial(ROWS[platform], interpret=True)))
        monkeypatch.setitem(accelerators._COUNTS, platform, (None, functools.partial(COUNTS[platform], interpret=True)))
        assert accelerators._try(platform) == ""
    monkeypatch.setitem(accelerators._COUNTS, "tpu", (None, lambda keys, thresholds: thresholds))
    assert accelerators._try("tpu") == "the counting kernel errs"


def test_kernels_are_for_the_devices_of_the_mesh_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they are compiled for on a machine without them."""
    tpu = AbstractMesh((2,), ("data",), abstract_device=AbstractDevice("TPU v5 lite", 1, "tpu"))
    assert accelerators.target() is None
    with jax.sharding.use_abstract_mesh(tpu):
        assert accelerators.target() == "tpu"
        monkeypatch.setenv(accelerators.OFF, "plain")
        assert accelerators.target() is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_kernels_lower_for_their_platform(platform: str, dtype: jnp.dtype) -> None:
    """A TPU's through Mosaic, a GPU's through Triton, which wants to know the device."""
    around = jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=H100))
    target = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}[platform]
    with around if platform == "cuda" else contextlib.nullcontext():
        for width in (1024, 8192):
            rows = jax.jit(lambda x: ROWS[platform](x, 256)).trace(jax.ShapeDtypeStruct((100, width), dtype))
            assert target in rows.lower(lowering_platforms=(platform,)).as_text()
        shapes = jax.ShapeDtypeStruct((2048, 64), jnp.int32), jax.ShapeDtypeStruct((15,), jnp.int32)
        counts = jax.jit(COUNTS[platform]).trace(*shapes)
        assert target in counts.lower(lowering_platforms=(platform,)).as_text()


def test_a_wrong_choice_of_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every device, also where there are no kernels."""
    for choice in ("plain", ""):
        monkeypatch.setenv(accelerators.OFF, choice)
        assert accelerators.target() is None
    monkeypatch.setenv(accelerators.OFF, "off")
    with pytest.raises(InputError, match="SPARSE_GPT_KERNELS=off: choose plain"):
        accelerators.target()
