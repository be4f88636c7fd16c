"""Prompts side by side: the same logits and gradients as of prompts that are padded to one length."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.packed_batch import AnyBatch, packed, tokens_of
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.model.packing import NOWHERE, Packing
from sparse_gpt.model.taps import gate, identity
from sparse_gpt.model.transformer import apply
from sparse_gpt.parameters import PyTree
from tests import circuits_model

TIME = circuits_model.TIME


def batch_of(lengths: list[int]) -> TaskBatch:
    """Samples with the answer predicted after so many tokens; what follows is noise that must not matter."""
    tokens = np.random.default_rng(1).integers(0, circuits_model.VOCABULARY, (len(lengths), TIME)).astype(np.int32)
    answer, foil = np.resize(circuits_model.ANSWERS, len(lengths)), np.resize((7, 3), len(lengths))
    return TaskBatch(tokens, np.array(lengths, np.int32) - 1, answer.astype(np.int32), foil.astype(np.int32))


BATCH = batch_of([TIME, 1, 5, 3, 1, TIME, 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "frozen", "options"),
    [
        (0.0, False, {}),
        (0.5, True, {"bigram": True}),
        (0.5, False, {"attention_sink": False, "norm": "layer", "position": "concat", "d_position": 4}),
        (0.25, True, {"position": "sinusoidal", "d_position": 4, "norm": "layer", "norm_bias": True}),
        (0.25, False, {"position": "additive", "bias": False, "residual_activation": "relu"}),
    ],
    ids=["plain", "AbsTopK, frozen norms", "concatenated positions", "sinusoids, frozen norms", "additive positions"],
)
def test_logits_and_gradients_are_those_of_padded_prompts(
    fraction: float, frozen: bool, options: dict[str, Any]
) -> None:
    config = circuits_model.config(fraction, **options)
    model = dataclasses.replace(circuits_model.gated(config), frozen=frozen)
    rng = np.random.default_rng(0)
    gates = {site: rng.random(value.shape).astype(np.float32) for site, value in model.ablation.items()}

    @jax.jit
    def run(model: GatedModel, gates: PyTree, batch: AnyBatch, weight: jax.Array) -> tuple[jax.Array, PyTree]:
        def mean(gates: PyTree) -> tuple[jax.Array, jax.Array]:
            logits = model.answer_logits(gates, batch)
            return jnp.sum(weight[:, None] * logits), logits

        slopes, logits = jax.grad(mean, has_aux=True)(gates)
        return logits, (slopes, model.answer_logits_of_one(gates, batch))

    weight = rng.standard_normal(len(BATCH.positions)).astype(np.float32)
    expected, (slopes, alone) = run(model, gates, BATCH, weight)
    assert np.std(expected) > 0.1
    assert max(np.max(np.abs(value)) for value in slopes.values()) > 0.01
    # Filled up with two prompts without tokens, tokens of no prompt, and room for longer prompts.
    side_by_side = packed(BATCH, tokens_of(BATCH, 1) + 3, len(BATCH.positions) + 2, TIME + 2)
    found, (found_slopes, found_alone) = run(model, gates, side_by_side, np.pad(weight, (0, 2)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:-2], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found_alone[:-2], alone, rtol=1e-4, atol=1e-5)
    for site, value in slopes.items():
        np.testing.assert_allclose(found_slopes[site], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_logits_everywhere_are_those_of_each_prompt_alone() -> None:
    config = circuits_model.config(0.5)
    model = circuits_model.gated(config)
    given = packed(BATCH, tokens_of(BATCH, 1))
    found = np.asarray(
        jax.jit(lambda p, b: apply(model.model, p, b.tokens, identity, None, b.packing))(model.params, given)
    )
    every, start = jax.jit(lambda p, t: apply(model.model, p, t))(model.params, BATCH.tokens), 0
    for logits, last in zip(np.asarray(every), BATCH.positions, strict=True):
        np.testing.assert_allclose(found[0, start : start + last + 1], logits[: last + 1], rtol=1e-4, atol=1e-5)
        start += last + 1
    assert start == found.shape[1]


def test_gathers_are_undone_by_gathers() -> None:
    """Against the gradients that JAX has for indexing, on every shape of a small batch."""
    given = packed(BATCH, tokens_of(BATCH, 1) + 5, len(BATCH.positions) + 1)
    where: Packing = given.packing
    rng, flat = np.random.default_rng(2), where.grid.reshape(-1)
    x = rng.standard_normal((given.tokens.size, 3)).astype(np.float32)
    y = rng.standard_normal((*where.grid.shape, 3)).astype(np.float32)
    inside = np.arange(where.time)[None, :] <= np.pad(BATCH.positions, (0, 1), constant_values=-1)[:, None]
    np.testing.assert_array_equal(where.grid != NOWHERE, inside)
    real = where.place != NOWHERE

    def rows_at(x: jax.Array, index: np.ndarray) -> jax.Array:
        return jnp.where((index != NOWHERE)[:, None], x[np.where(index == NOWHERE, 0, index)], 0)

    laid, back = jax.vjp(where.by_sequence, x)
    expected, expected_back = jax.vjp(lambda x: rows_at(x, flat), x)
    np.testing.assert_array_equal(laid.reshape(-1, 3), expected)
    np.testing.assert_array_equal(back(y)[0], expected_back(y.reshape(-1, 3))[0])
    flattened, back = jax.vjp(where.side_by_side, y)
    expected, expected_back = jax.vjp(lambda y: rows_at(y.reshape(-1, 3), where.place), y)
    np.testing.assert_array_equal(flattened, expected)
    np.testing.assert_array_equal(back(x)[0], expected_back(x)[0])
    np.testing.assert_array_equal(where.side_by_side(laid)[real], x[real])
    assert not np.any(np.asarray(laid)[~inside])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        packed(BATCH, tokens_of(BATCH, 1) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 0, 4)])
def test_gradients_of_gates(shape: tuple[int, int, int]) -> None:
    """Against JAX's own of the formula, in a search of several gate vectors at once, too."""
    rng = np.random.default_rng(3)
    x, up = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    gates, values = rng.random((2, shape[2])).astype(np.float32), rng.standard_normal((2, shape[2])).astype(np.float32)

    def tapped(x: jax.Array, gate_W: jax.Array, value_W: jax.Array) -> jax.Array:
        return gate({"mlp_in": gate_W[None]}, {"mlp_in": value_W[None]})("mlp_in", 0, x)

    def plain(x: jax.Array, gate_W: jax.Array, value_W: jax.Array) -> jax.Array:
        g, v = gate_W[None, None, :], value_W[None, None, :]
        return g * x + (1 - g) * v

    def slopes(of: Any) -> PyTree:
        each = jax.vmap(lambda g, v: jax.grad(lambda *a: jnp.sum(up * of(*a)), argnums=(0, 1, 2))(x, g, v))
        return each(gates, values)

    for found, expected in zip(slopes(tapped), slopes(plain), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_samples_keep_their_order_answers_and_tasks() -> None:
    batch = BATCH._replace(task=np.arange(7, dtype=np.int32) % 3, foil_share=np.linspace(0, 1, 7).astype(np.float32))
    given = packed(rows(batch, np.array([6, 2])), 8, 3)
    assert given.tokens.tolist() == [[*batch.tokens[6, :2], *batch.tokens[2, :5], 0]]
    np.testing.assert_array_equal(given.positions, [1, 4, 0])
    assert given.answer.tolist() == [*batch.answer[[6, 2]], 0]
    assert given.task.tolist() == [0, 2, 0]
    assert given.foil_share.tolist() == pytest.approx([1, 1 / 3, 0])
