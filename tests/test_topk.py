"""Exact top-k selection, held to a slow numpy reference that sorts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from sparse_gpt.sparsity import topk

pytestmark = pytest.mark.optimized


def reference_order(x: np.ndarray) -> np.ndarray:
    """Indices of a flat array from largest to smallest magnitude: NaN, inf, ..., 0; equals by index."""
    magnitude = np.abs(x.astype(np.float64))
    return np.lexsort((np.arange(x.size), -magnitude, ~np.isnan(magnitude)))


def reference_mask(x: np.ndarray, k: int) -> np.ndarray:
    """The kept entries of the whole array."""
    mask = np.zeros(x.size, bool)
    mask[reference_order(x.reshape(-1))[:k]] = True
    return mask.reshape(x.shape)


def reference_rows(x: np.ndarray, k: int) -> np.ndarray:
    """The kept entries of each row."""
    rows = x.reshape(-1, x.shape[-1])
    return np.stack([reference_mask(row, k) for row in rows]).reshape(x.shape)


def draw(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Inputs that are easy and hard to select from."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).astype(np.float32)
    if kind == "equal":
        x = np.full(shape, -1.5, np.float32)
    elif kind == "zeros":
        x = np.zeros(shape, np.float32)
    elif kind == "relu":
        x = np.maximum(x, 0)
    elif kind == "few_values":
        x = np.round(x)
    elif kind == "signed_zeros":
        x = np.where(random.random(shape) < 0.5, np.float32(0), np.float32(-0.0)) * np.ones(shape, np.float32)
        x.reshape(-1)[:: max(1, x.size // 5)] = 2
    elif kind == "subnormal":
        x = (random.integers(-5, 6, shape) * np.float32(1e-45)).astype(np.float32)
    elif kind == "non_finite":
        x[random.random(shape) < 0.1] = np.inf
        x[random.random(shape) < 0.1] = -np.inf
        x[random.random(shape) < 0.1] = np.nan
        x[random.random(shape) < 0.05] = -np.nan
    elif kind == "wide":
        x = (x * np.exp(15 * random.standard_normal(shape))).astype(np.float32)
    return x


KINDS = ("normal", "equal", "zeros", "relu", "few_values", "signed_zeros", "subnormal", "non_finite", "wide")
SHAPES = ((1, 1), (1, 7), (5, 32), (3, 33), (2, 3, 40), (6, 128), (70, 96), (3, 257), (31,))


def same_bits(actual: jax.Array, expected: np.ndarray) -> None:
    """Equal including the sign of zero and the payload of NaN."""
    view = {2: np.uint16, 4: np.uint32}[expected.dtype.itemsize]
    np.testing.assert_array_equal(np.asarray(actual).view(view), expected.view(view))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_abs_topk_keeps_exactly_the_reference_entries(kind: str, shape: tuple[int, ...]) -> None:
    x = draw(kind, shape)
    width = shape[-1]
    for k in sorted({0, 1, width // 4, width // 2, width - 1, width, width + 3}):
        keep = reference_rows(x, k)
        y = jax.jit(topk.abs_topk, static_argnums=1)(x, k)
        same_bits(y, np.where(keep, x, np.float32(0)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_abs_topk_bfloat16(kind: str) -> None:
    x = jnp.asarray(draw(kind, (9, 64))).astype(jnp.bfloat16)
    y = jax.jit(topk.abs_topk, static_argnums=1)(x, 13)
    assert y.dtype == jnp.bfloat16
    keep = reference_rows(np.asarray(x.astype(jnp.float32)), 13)
    same_bits(y, np.where(keep, np.asarray(x), np.zeros((), x.dtype)))


@pytest.mark.slow
def test_abs_topk_is_the_same_without_jit() -> None:
    x = draw("few_values", (4, 48))
    with jax.disable_jit():
        same_bits(topk.abs_topk(jnp.asarray(x), 12), np.where(reference_rows(x, 12), x, np.float32(0)))


def weighted_sum(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(topk.abs_topk(x, 16) * weight)


PER_ROW = jax.vmap(jax.grad(weighted_sum))
GRADIENTS = {  # compiled once for all kinds
    "compiled": jax.grad(jax.jit(weighted_sum)),
    "not compiled": jax.grad(weighted_sum),
    "computed again": jax.grad(jax.jit(jax.checkpoint(weighted_sum))),
    "by rows, compiled": jax.jit(PER_ROW),
    "by rows of rows": jax.vmap(PER_ROW),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "relu", "equal"])
@pytest.mark.parametrize("way", GRADIENTS)
def test_gradient_is_the_mask(way: str, kind: str) -> None:
    x, weight = draw(kind, (5, 4, 64)), draw("normal", (5, 4, 64), seed=1)
    expected = np.where(reference_rows(x, 16), weight, np.float32(0))
    np.testing.assert_array_equal(GRADIENTS[way](jnp.asarray(x), jnp.asarray(weight)), expected)


@pytest.mark.slow
def test_abs_topk_under_vmap_and_scan() -> None:
    x = draw("few_values", (3, 6, 40))
    expected = np.where(reference_rows(x, 9), x, np.float32(0))
    select = functools.partial(topk.abs_topk, k=9)
    same_bits(jax.jit(jax.vmap(select))(x), expected)
    same_bits(jax.jit(jax.vmap(select, in_axes=1, out_axes=1))(x), expected)
    same_bits(jax.jit(jax.vmap(jax.vmap(select)))(x), expected)
    same_bits(jax.lax.scan(lambda carry, row: (carry, select(row)), 0, jnp.asarray(x))[1], expected)


@pytest.fixture(name="mesh")
def fixture_mesh() -> jax.sharding.Mesh:
    if len(jax.devices()) < 8:
        pytest.fail("needs 8 devices: run with XLA_FLAGS=--xla_force_host_platform_device_count=8")
    return jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.slow
def test_abs_topk_on_sharded_rows_needs_no_collective(mesh: jax.sharding.Mesh) -> None:
    x = draw("relu", (16, 3, 64))
    rows = jax.sharding.NamedSharding(mesh, PartitionSpec(("data", "fsdp")))

    @functools.partial(jax.jit, in_shardings=rows, out_shardings=rows)
    def value_and_gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(lambda x: topk.abs_topk(x, 16), x)
        return y, pull(y)[0]

    expected = np.where(reference_rows(x, 16), x, np.float32(0))
    for result in value_and_gradient(x):
        same_bits(result, expected)
    text = value_and_gradient.lower(x).compile().as_text()
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    assert not [word for word in collectives if word in str(text)]

    inside = jax.shard_map(
        lambda x: topk.abs_topk(x, 16), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data")
    )
    same_bits(jax.jit(inside)(x), expected)


TENSORS = (
    ("normal", (64, 32)),
    ("equal", (16, 8)),
    ("zeros", (8, 8)),
    ("relu", (48, 16)),
    ("few_values", (24, 40)),
    ("non_finite", (16, 16)),
    ("signed_zeros", (64,)),
    ("normal", (8, 2)),
)


def joint_masks(tensors: list[jax.Array], ks: jax.Array, bits_per_round: int) -> list[jax.Array]:
    keys = [topk.magnitude_keys(x) for x in tensors]
    found = topk.joint_thresholds(keys, ks, bits_per_round=bits_per_round)
    return [topk.keep_mask(each, found.key[i], found.bound[i]) for i, each in enumerate(keys)]


@pytest.mark.slow
@pytest.mark.parametrize("bits_per_round", [1, 2, 4])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_joint_thresholds_keeps_exactly_the_reference_entries(bits_per_round: int, fraction: float) -> None:
    tensors = [draw(kind, shape) for kind, shape in TENSORS]
    ks = [int(fraction * x.size) for x in tensors]
    masks = jax.jit(joint_masks, static_argnums=2)(tensors, np.array(ks, np.int32), bits_per_round)
    for x, k, mask in zip(tensors, ks, masks, strict=True):
        np.testing.assert_array_equal(mask, reference_mask(x, k))


@pytest.mark.slow
def test_joint_thresholds_without_ties_and_one_entry_each() -> None:
    tensors = [draw("normal", (9, 5), seed) for seed in range(4)]
    ks = np.array([1, 2, 44, 20], np.int32)
    for x, k, mask in zip(tensors, ks, joint_masks([jnp.asarray(x) for x in tensors], jnp.asarray(ks), 4), strict=True):
        np.testing.assert_array_equal(mask, reference_mask(x, k))


@pytest.mark.slow
def test_forced_entries_are_kept_first() -> None:
    x = draw("non_finite", (20, 20))
    forced = np.random.default_rng(3).random((20, 20)) < 0.1
    keys = jnp.where(forced, topk.FORCED, topk.magnitude_keys(jnp.asarray(x)))
    k = int(forced.sum()) + 5
    found = topk.joint_thresholds([keys], jnp.array([k]))
    mask = np.asarray(topk.keep_mask(keys, found.key[0], found.bound[0]))
    expected = forced.copy()
    order = reference_order(x.reshape(-1))
    expected.reshape(-1)[[i for i in order if not forced.reshape(-1)[i]][:5]] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.slow
@pytest.mark.parametrize("bits_per_round", [1, 4])
def test_joint_thresholds_is_the_same_on_every_sharding(mesh: jax.sharding.Mesh, bits_per_round: int) -> None:
    axes = ("data", "fsdp")
    specs = [PartitionSpec(*spec) for spec in [axes, axes[::-1], (None, axes), ("data",), axes, ("fsdp", "data")]]
    shapes = [(64, 32), (16, 8), (8, 8), (48, 16), (24, 40), (16, 16)]
    tensors = [draw(kind, shape) for (kind, _), shape in zip(TENSORS, shapes, strict=False)]
    ks = np.array([int(0.3 * x.size) for x in tensors], np.int32)

    def local_masks(tensors: list[jax.Array], ks: jax.Array) -> list[jax.Array]:
        keys = [topk.magnitude_keys(x) for x in tensors]
        index = []
        for x, shape, spec in zip(tensors, shapes, specs, strict=True):
            places = [jax.lax.axis_index(entry) if entry else 0 for entry in (*spec, None)[:2]]
            offset = [place * length for place, length in zip(places, x.shape, strict=True)]
            index.append(topk.flat_index(x.shape, offset=offset, whole_shape=shape))
        # The fourth tensor is whole along "fsdp": its copies must not be counted twice.
        first = jnp.ones(6, jnp.int32).at[3].set(jnp.where(jax.lax.axis_index("fsdp") == 0, 1, 0))
        found = topk.joint_thresholds(
            keys,
            ks,
            index=index,
            reduce_counts=lambda counts: jax.lax.psum(counts * first[None], axes),
            bits_per_round=bits_per_round,
        )
        return [topk.keep_mask(keys[i], found.key[i], found.bound[i], index[i]) for i in range(len(keys))]

    sharded = jax.shard_map(local_masks, mesh=mesh, in_specs=(specs, PartitionSpec()), out_specs=specs, check_vma=False)
    for x, k, mask in zip(tensors, ks, jax.jit(sharded)(tensors, ks), strict=True):
        np.testing.assert_array_equal(mask, reference_mask(x, k))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, 1, 4, 9, 12])
def test_topk_mask_is_exact_along_either_axis(kind: str, k: int) -> None:
    x = draw(kind, (17, 9))
    keys = topk.magnitude_keys(jnp.asarray(x))
    select = jax.jit(topk.topk_mask, static_argnums=(1, 2))
    np.testing.assert_array_equal(select(keys, k, 1), reference_rows(x, k))
    np.testing.assert_array_equal(select(keys, k, 0), reference_rows(x.T.copy(), k).T)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "few_values", "equal"])
@pytest.mark.parametrize("axis", [0, 1])
def test_topk_mask_is_the_same_when_its_axis_is_sharded(mesh: jax.sharding.Mesh, kind: str, axis: int) -> None:
    x = draw(kind, (16, 24))
    spec = PartitionSpec("data", "fsdp")
    name = spec[axis]

    def local(x: jax.Array) -> jax.Array:
        return topk.topk_mask(
            topk.magnitude_keys(x),
            4,
            axis,
            offset=jax.lax.axis_index(name) * x.shape[axis],
            gather=lambda proposals: jax.lax.all_gather(proposals, name, tiled=True),
        )

    mask = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(x)
    expected = reference_rows(x, 4) if axis == 1 else reference_rows(x.T.copy(), 4).T
    np.testing.assert_array_equal(mask, expected)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="k=-1"):
        topk.abs_topk(jnp.ones((2, 3)), -1)
    with pytest.raises(TypeError, match="float16"):
        topk.magnitude_keys(jnp.ones(3, jnp.float16))
    with pytest.raises(ValueError, match="bits_per_round=3"):
        topk.joint_thresholds([jnp.zeros(3, jnp.int32)], jnp.array([1]), bits_per_round=3)
    with pytest.raises(ValueError, match="split it"):
        topk.flat_index((1, 1), whole_shape=(2**16, 2**15))
