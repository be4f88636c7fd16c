"""Gates, ablation values and the gated model."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits import nodes
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.problem import _ablation_values
from sparse_gpt.circuits.run.ablation_values import pretraining_means, task_means
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.config import NODE_SITES
from sparse_gpt.interop.openai_config import to_fields
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.model.transformer import Sequences, build
from sparse_gpt.parameters import flatten, parameter_table, unflatten
from tests import circuits_model, reference_model


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_heaviside_is_a_step_forward_and_a_sigmoid_backward(temperature: float) -> None:
    tau = jnp.array([-1.0, -0.2, 0.0, 1e-6, 0.4, 1.0])
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(nodes.heaviside), in_axes=(0, None)))(
        tau, jnp.float32(temperature)
    )
    np.testing.assert_array_equal(value, [0, 0, 0, 1, 1, 1])
    s = 1 / (1 + np.exp(-np.asarray(tau, np.float64) / temperature))
    np.testing.assert_allclose(gradient, s * (1 - s) / temperature, rtol=1e-6)


def test_clamp() -> None:
    np.testing.assert_array_equal(nodes.clamp({"x": jnp.array([-3.0, -1.0, 0.5, 2.0])})["x"], [-1, -1, 0.5, 1])


def test_vectors_hold_every_node_once() -> None:
    model = circuits_model.config(position="concat", d_position=4).model
    vector = np.arange(nodes.to_vector(nodes.empty(model)).size)
    layered = nodes.from_vector(vector, model)
    assert [layered[site].shape for site in NODE_SITES] == [nodes.empty(model)[site].shape for site in NODE_SITES]
    np.testing.assert_array_equal(nodes.to_vector(layered), vector)
    np.testing.assert_array_equal(nodes.to_vector({s: np.stack([v, v]) for s, v in layered.items()}), [vector, vector])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"norm": "layer", "norm_bias": True},
        {"position": "concat", "d_position": 4},
        {"tied": True},
    ],
    ids=["plain", "no bias", "LayerNorm", "concatenated positions", "tied"],
)
def test_nodes_left_out_of_the_search_are_those_without_effect(options: dict[str, object]) -> None:
    """With the norms frozen, no AbsTopK and zero ablation, a gate's gradient is zero exactly for those nodes."""
    config = circuits_model.config(**options)
    weights = circuits_model.params(config, seed=3, density=0.06)
    if config.model.bias:  # biases would make every write possible
        for layer in ("h_0", "h_1"):
            for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
                weights[layer][part][name]["bias"][::2] = 0
    found = searchable(config.model, weights)
    frozen = gated_model(config, weights, nodes.empty(config.model))
    frozen = dataclasses.replace(frozen, frozen=True)
    batch = circuits_model.batch(64, seed=0)
    opened = {site: jnp.ones_like(value) for site, value in frozen.ablation.items()}
    weight = np.random.default_rng(0).standard_normal((64, config.model.vocab_size)).astype(np.float32)

    @jax.jit
    @jax.grad
    def slope(opened: dict[str, jax.Array], frozen: GatedModel) -> jax.Array:
        return jnp.sum(frozen.logits(batch, frozen.tap(opened, batch.tokens, Sequences(batch.positions))) * weight)

    effect = nodes.to_vector({site: np.abs(value) for site, value in slope(opened, frozen).items()})
    expected = nodes.to_vector(found).astype(bool)
    assert 0.1 < expected.mean() < 0.9
    assert effect[~expected].max() == 0
    assert (effect[expected] > 0).mean() > 0.97  # the rest are products of very small numbers


@pytest.mark.slow
def test_open_gates_are_the_full_model_and_closed_gates_see_only_the_last_token() -> None:
    config = circuits_model.config()
    model, batch = circuits_model.gated(config), circuits_model.batch(32, seed=1)
    answer = functools.partial(jax.jit(lambda model, gates, batch: model.answer_logits(gates, batch)), model)
    opened = {site: np.ones_like(value) for site, value in nodes.empty(config.model).items()}
    np.testing.assert_allclose(answer(opened, batch), answer(None, batch), rtol=1e-5, atol=1e-5)

    other = np.array(batch.tokens)
    other[np.arange(8)[None, :] < batch.positions[:, None]] = 0
    closed = nodes.empty(config.model)
    same_end = batch._replace(tokens=other)
    assert not np.allclose(answer(None, batch), answer(None, same_end), atol=1e-2)
    np.testing.assert_allclose(answer(closed, batch), answer(closed, same_end), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_frozen_norms_are_those_of_the_full_model() -> None:
    config = circuits_model.config()
    fields, weights = to_fields(config), circuits_model.params(config)
    model = dataclasses.replace(circuits_model.gated(config), frozen=True)
    batch, layered = circuits_model.batch(16, seed=2), circuits_model.random_gates(config, seed=4)
    ablation = {site: np.asarray(value) for site, value in model.ablation.items()}
    support = reference_model.Support({s: v > 0 for s, v in layered.items()}, ablation, None, frozen=True)
    expected, _ = reference_model.forward(fields, to_tensors(config.model, weights), batch.tokens, support)
    run = jax.jit(lambda model, gates: model.logits(batch, model.tap(gates, batch.tokens, Sequences(batch.positions))))
    found = run(model, layered)
    np.testing.assert_allclose(found, expected[np.arange(16), batch.positions], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "options"),
    [
        (0.5, {}),
        (0.0, {"bias": False, "residual_activation": "relu", "bigram": True}),
        (0.5, {"norm": "layer", "attention_sink": False, "position": "additive"}),
        (0.0, {"position": "concat", "d_position": 4}),
    ],
    ids=["AbsTopK", "ReLU stream, bigram", "LayerNorm, positions", "concatenated positions"],
)
@pytest.mark.parametrize("frozen", [False, True], ids=["live", "frozen"])
def test_sublayers_without_an_open_output_are_left_out(
    fraction: float, options: dict[str, object], frozen: bool
) -> None:
    config = circuits_model.config(fraction, **options)
    model, batch = dataclasses.replace(circuits_model.gated(config), frozen=frozen), circuits_model.batch(16, seed=2)
    every = jax.jit(lambda model, gates: model.answer_logits(gates, batch))
    needed = jax.jit(lambda model, gates: model.answer_logits_of_one(gates, batch))
    broken = copy.deepcopy(jax.device_get(model.params))
    broken["h_1"]["attn"]["c_proj"]["kernel"][:] = np.nan
    broken["h_0"]["mlp"]["c_fc"]["kernel"][:] = np.nan
    left_out = [
        set(),
        {("attn_out", 1), ("mlp_out", 0)},
        {(site, i) for site in ("attn_out", "mlp_out") for i in (0, 1)},
    ]
    for out in left_out:
        layered = circuits_model.random_gates(config, seed=4)
        for site, layer in out:
            layered[site][layer] = 0
        expected = every(model, layered)
        np.testing.assert_allclose(needed(model, layered), expected, rtol=1e-4, atol=1e-4)
        if frozen or config.model.d_position:
            continue
        found = needed(dataclasses.replace(model, params=broken), layered)
        if out:  # what is not computed cannot be NaN
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        else:
            assert np.isnan(found).all()


@pytest.mark.slow
def test_means_are_those_of_the_reference_model() -> None:
    config = circuits_model.config(activation_fraction=0.5)
    weights = circuits_model.params(config)
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, circuits_model.VOCABULARY, (6, 16)).astype(np.int32) for _ in range(3)]
    found = pretraining_means(build(config), weights, batches)
    _, seen = reference_model.forward(to_fields(config), to_tensors(config.model, weights), np.concatenate(batches))
    for site in NODE_SITES:
        for layer in range(2):
            expected = seen[reference_model.SITE_HOOKS[site].format(layer)].mean(axis=(0, 1))
            np.testing.assert_allclose(found[site][layer], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, 7, 100])
def test_task_means_leave_padding_out(chunk: int) -> None:
    config = circuits_model.config()
    weights, batch = circuits_model.params(config), circuits_model.batch(10, seed=6)
    _, seen = reference_model.forward(to_fields(config), to_tensors(config.model, weights), batch.tokens)
    counted = np.arange(8)[None, :] <= batch.positions[:, None]
    found = task_means(build(config), weights, batch, chunk)
    for site in NODE_SITES:
        expected = seen[reference_model.SITE_HOOKS[site].format(1)][counted].mean(axis=0)
        np.testing.assert_allclose(found[site][1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.slow
def test_task_means_without_biases_are_those_with_zero_biases() -> None:
    found = []
    for bias in (False, True):
        prune = dataclasses.replace(circuits_model.SEARCH, ablation="task_mean")
        config = circuits_model.config(bias=bias, n_layer=1, prune=prune)
        weights = circuits_model.params(circuits_model.config(bias=False, n_layer=1))
        leaves = {path: np.zeros(spec.shape, np.float32) for path, spec in parameter_table(config.model).items()}
        params = unflatten(leaves | flatten(weights))
        found.append(_ablation_values(config, params, circuits_model.batch(6, 1), None)[0])
    for site in NODE_SITES:
        np.testing.assert_allclose(found[0][site], found[1][site], atol=1e-6)


def test_no_tokens_no_means() -> None:
    config = circuits_model.config()
    nothing = TaskBatch(
        np.zeros((2, 8), np.int32), np.full(2, -1, np.int32), np.zeros(2, np.int32), np.ones(2, np.int32)
    )
    with pytest.raises(ValueError, match="no tokens"):
        task_means(build(config), circuits_model.params(config), nothing)
