"""The arrangement for CPUs keeps the same entries as the plain bisection, and both the same as sorting."""

import re
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.sparsity.topk import abs_topk, magnitude_keys
from sparse_gpt.sparsity.topk_rows import _abreast, _plain, keep_rows

pytestmark = pytest.mark.optimized


def slow_mask(keys: np.ndarray, k: int) -> np.ndarray:
    """By sorting: largest key first, then lowest index."""
    mask = np.zeros(keys.shape, bool)
    for row, line in enumerate(keys):
        mask[row, sorted(range(len(line)), key=lambda i: (-line[i], i))[:k]] = True
    return mask


def nasty_rows(rows: int, width: int) -> np.ndarray:
    """Rows of several kinds, interleaved so that groups of rows hold all of them."""
    rng = np.random.default_rng(rows * width)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    x[1::7] = np.maximum(x[1::7], 0)  # as after ReLU
    x[2::7] = rng.integers(-2, 3, size=x[2::7].shape)  # many equals
    x[3::7] = 1
    x[4::7] = 0
    x[5::7] *= np.float32(1e-42)  # subnormal
    x[6::7, :3] = [np.nan, np.inf, -np.inf]
    x[0::7] = 1 + x[0::7] * np.float32(1e-6)  # equal in the upper half, different below
    x[0::14].view(np.int32)[:, ::3] |= 0xFFFF  # the highest lower half
    return x


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "width", "k"), [(40, 128, 32), (33, 70, 69), (5, 20, 1), (64, 200, 50), (1, 65, 16)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_ways_keep_what_sorting_keeps(rows: int, width: int, k: int, dtype: jnp.dtype) -> None:
    keys = magnitude_keys(jnp.asarray(nasty_rows(rows, width)).astype(dtype))
    expected = slow_mask(np.asarray(keys), k)
    np.testing.assert_array_equal(jax.jit(lambda x: _plain(x, k))(keys), expected)
    np.testing.assert_array_equal(jax.jit(lambda x: _abreast(x, k, dtype == jnp.bfloat16))(keys), expected)


@pytest.mark.slow
def test_pieces_and_batches_are_rows_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_gpt.sparsity.topk_rows._ENTRIES_AT_ONCE", 2**12)
    monkeypatch.setattr("sparse_gpt.sparsity.topk_rows._WORTH_ARRANGING", 0)
    monkeypatch.setattr("jax.device_count", lambda: 1)
    keep_rows.cache_clear()
    x = jnp.asarray(nasty_rows(3 * 70, 64)).reshape(3, 70, 64)
    keys = magnitude_keys(x)
    expected = slow_mask(np.asarray(keys).reshape(-1, 64), 13).reshape(x.shape)
    np.testing.assert_array_equal(jax.jit(jax.vmap(keep_rows(13, False, False)))(keys), expected)
    keep_rows.cache_clear()


def test_under_vmap_the_batch_is_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the rounds that only ties need stay a decision at run time, and nothing is computed for both outcomes."""
    monkeypatch.setattr("jax.device_count", lambda: 1)

    def operations(function: Callable[[jax.Array], jax.Array], *shape: int) -> Counter[str]:
        text = jax.jit(function).lower(jax.ShapeDtypeStruct(shape, jnp.float32)).as_text()
        return Counter(re.findall(r"stablehlo\.(while|select|case|reduce)\b", text))

    assert operations(jax.vmap(lambda x: abs_topk(x, 32)), 2, 600, 128) == operations(
        lambda x: abs_topk(x, 32), 1200, 128
    )
    assert operations(lambda x: abs_topk(x, 32), 1200, 128)["while"] == 2


@pytest.mark.slow
def test_gradient_flows_through_kept_entries_of_large_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.device_count", lambda: 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1024, 128)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(abs_topk(x, 32) * 3)))(x)
    np.testing.assert_array_equal(gradient, np.where(slow_mask(np.asarray(magnitude_keys(x)), 32), 3.0, 0.0))
