"""Attention in blocks, with keys added for the compiler's sake, against the textbook's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.model.attention import attend, attend_alike, causal_attention

TIMES = (1, 5, 16, 17, 40, 63, 64, 130)


def textbook(q: np.ndarray, k: np.ndarray, v: np.ndarray, sink: np.ndarray) -> np.ndarray:
    """Softmax over visible keys and the sink, whose value is zero."""
    scores = np.einsum("bhqk,bhtk->bhqt", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)
    top = np.maximum(scores.max(-1, keepdims=True), sink[None, :, None, None])
    weights = np.exp(scores - top)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sink[None, :, None, None] - top)
    return np.einsum("bhqt,bhtk->bhqk", weights, v)


def inputs(time: int) -> tuple[np.ndarray, ...]:
    """q, k, v, of which v has other channels, and sink."""
    rng = np.random.default_rng(time)
    return (*rng.normal(size=(2, 2, 3, time, 4)), rng.normal(size=(2, 3, time, 5)), rng.normal(size=3))


@pytest.mark.parametrize("time", TIMES)
def test_every_length_is_as_the_textbook_has_it(time: int) -> None:
    q, k, v, sink = inputs(time)
    found = jax.jit(causal_attention)(*(jnp.asarray(x, jnp.float32) for x in (q, k, v, sink)))
    np.testing.assert_allclose(found, textbook(q, k, v, sink), atol=2e-6)


@pytest.mark.parametrize(("time", "keys"), [(16, 16), (17, 40), (32, 40), (40, 40), (64, 64)])
def test_no_row_of_scores_has_a_length_that_is_unrolled(time: int, keys: int) -> None:
    x, v = (jax.ShapeDtypeStruct((2, 3, time, width), jnp.float32) for width in (4, 5))
    text = jax.jit(causal_attention).lower(x, x, v, jax.ShapeDtypeStruct((3,), jnp.float32)).as_text()
    assert f"tensor<6x{time}x{keys}xf32>" in text


@pytest.mark.slow
@pytest.mark.parametrize("time", [17, 40, 63])
def test_keys_added_at_the_end_change_no_gradient(time: int) -> None:
    q, k, v, sink = (jnp.asarray(x, jnp.float32) for x in inputs(time))

    def plain(q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array) -> jax.Array:
        scores = jnp.einsum("bhqk,bhtk->bhqt", q, k) / 2
        scores = jnp.where(jnp.tri(time, dtype=bool)[None, None], scores, -jnp.inf)
        scores = jnp.concatenate([scores, jnp.broadcast_to(sink[None, :, None, None], (2, 3, time, 1))], axis=-1)
        return jnp.sum(jnp.sin(jnp.einsum("bhqt,bhtk->bhqk", jax.nn.softmax(scores)[..., :-1], v)))

    def ours(*inputs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(causal_attention(*inputs)))

    for found, wanted in zip(*(jax.jit(jax.grad(f, (0, 1, 2, 3)))(q, k, v, sink) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("time", [16, 40, 64])
def test_a_few_queries_are_rows_of_the_whole(time: int) -> None:
    q, k, v, sink = (jnp.asarray(x, jnp.float32) for x in inputs(time))
    positions = jnp.array([[time - 1], [time // 2]])
    chosen = jnp.take_along_axis(q, positions[:, None, :, None], axis=2)
    found = attend(chosen, k, v, sink, positions)
    whole = causal_attention(q, k, v, sink)
    np.testing.assert_allclose(found, jnp.take_along_axis(whole, positions[:, None, :, None], axis=2), atol=2e-6)


@pytest.mark.parametrize("time", [1, 2, 40, 130])
@pytest.mark.parametrize("slope", [-500.0, 0.0, 500.0])  # of the scores over time: exponentials overflow, or vanish
def test_where_all_ask_the_same_a_key_has_one_score(time: int, slope: float) -> None:
    q, k, v, sink = inputs(time)
    q = np.broadcast_to(q[:, :, :1], q.shape)
    k[..., 0] += slope * np.linspace(0, 1, time)
    for sinks in (sink, np.array([-np.inf, 0, 700.0])):
        given = jnp.asarray(np.einsum("bhk,bhtk->bht", q[:, :, 0], k) / 2, jnp.float32)
        found = jax.jit(attend_alike)(given, jnp.asarray(v, jnp.float32), jnp.asarray(sinks, jnp.float32))
        np.testing.assert_allclose(found, textbook(q, k, v, sinks), atol=1e-4 if slope else 2e-6)


@pytest.mark.slow
def test_where_all_ask_the_same_gradients_are_those_of_attention() -> None:
    q, k, v, sink = (jnp.asarray(x, jnp.float32) for x in inputs(40))
    q = q[:, :, :1]

    def ours(q: jax.Array, k: jax.Array, v: jax.Array, sink: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(attend_alike(jnp.einsum("bhqk,bhtk->bht", q, k) / 2, v, sink)))

    def plain(q: jax.Array, *others: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(causal_attention(jnp.broadcast_to(q, k.shape), *others)))

    for found, wanted in zip(*(jax.jit(jax.grad(f, (0, 1, 2, 3)))(q, k, v, sink) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)
