"""The model: properties that hold for every option, and agreement of its entry points."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config.fields import Choice
from sparse_gpt.model import Transformer, abstract_params, build, parameter_table
from sparse_gpt.model.activations import ACTIVATIONS, gelu
from sparse_gpt.model.taps import gate, recorder, site_widths
from sparse_gpt.model.transformer import sinusoids

OPTIONS: list[dict[str, Any]] = [
    {},
    {"attention_sink": False, "bigram": False, "final_bias": False},
    {"position": "additive", "bias": False},
    {"position": "concat", "d_position": 8},
    {"position": "sinusoidal", "d_position": 8, "activation": "relu"},
    {"norm": "layer", "norm_bias": True, "tied": True, "residual_activation": "relu"},
    {"n_head": 3, "d_head": 4},
]


def record(model: Transformer, params: Any, tokens: jax.Array) -> tuple[jax.Array, dict[tuple[str, int], jax.Array]]:
    """Logits and everything the taps see."""

    @jax.jit
    def run(p: Any) -> tuple[jax.Array, dict[tuple[str, int], jax.Array]]:
        seen: dict[tuple[str, int], jax.Array] = {}
        return model.apply({"params": p}, tokens, tap=recorder(seen)), seen

    logits, seen = run(params)
    return logits, seen


def make(options: dict[str, Any], fraction: float = 0.25, seed: int = 0) -> tuple[Transformer, Any, jax.Array]:
    """A small model, parameters large enough that every part matters, and tokens (3, 12)."""
    model, params, tokens = _make(tuple(sorted(options.items())), fraction, seed)
    return model, jax.tree.map(lambda x: x, params), tokens  # dictionaries of the test's own


@functools.cache
def _make(options: tuple[tuple[str, Any], ...], fraction: float, seed: int) -> tuple[Transformer, Any, jax.Array]:
    """Compiled once for all tests of these options."""
    config = presets.tiny()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=64, context=16, **dict(options)),
        sparsity=dataclasses.replace(config.sparsity, activation_fraction=fraction),
    )
    model = build(configs.validate(config))
    tokens = jax.random.randint(jax.random.key(seed + 1), (3, 12), 0, 64)
    params = jax.jit(model.init)(jax.random.key(seed), tokens)["params"]
    keys = iter(jax.random.split(jax.random.key(seed + 2), 200))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    return model, params, tokens


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_future_tokens_have_no_influence(options: dict[str, Any]) -> None:
    model, params, tokens = make(options)
    h = jax.jit(lambda p: model.apply({"params": p}, tokens, method="embed"))(params)

    def logit_sum(h: jax.Array, t: int) -> jax.Array:
        last = model.apply({"params": params}, h, method="run")
        return jnp.sum(model.apply({"params": params}, last, tokens, method="unembed")[:, t])

    sensitivity = jax.jit(jax.grad(logit_sum), static_argnums=1)(h, 5)
    assert np.all(sensitivity[:, 6:] == 0)
    assert np.all(np.any(sensitivity[:, 5] != 0, axis=-1))
    earlier = np.any(sensitivity[:, :5] != 0)
    assert earlier, "attention must let the past through"


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_boundaries_and_positions_agree_with_the_whole(options: dict[str, Any]) -> None:
    model, params, tokens = make(options)
    positions = jnp.array([11, 0, 4])

    @jax.jit
    def everything(p: Any) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        parts = []
        for boundary in range(2 * model.config.n_layer + 1):
            h = model.apply({"params": p}, tokens, method="embed")
            h = model.apply({"params": p}, h, 0, boundary, method="run")
            h = model.apply({"params": p}, h, boundary, method="run")
            parts.append(model.apply({"params": p}, h, tokens, method="unembed"))
        variables = {"params": p}
        return model.apply(variables, tokens), parts, model.apply(variables, tokens, positions=positions)

    whole, parts, at = everything(params)
    for part in parts:
        np.testing.assert_allclose(part, whole, atol=1e-5)
    np.testing.assert_allclose(at[:, 0], whole[jnp.arange(3), positions], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_parameter_table_is_what_the_model_creates(options: dict[str, Any]) -> None:
    model, params, _ = make(options)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, abstract_params(model.config))
    for path, spec in parameter_table(model.config).items():
        assert len(spec.axes) == len(spec.shape), path


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_gradients_do_not_depend_on_rematerialization(remat: bool) -> None:
    model, params, tokens = make({"position": "concat", "d_position": 4})
    other = dataclasses.replace(model, remat=remat)

    def loss(m: Transformer, p: Any) -> jax.Array:
        return jnp.mean(jnp.square(m.apply({"params": p}, tokens)))

    plain, kept = (jax.jit(jax.grad(lambda p, m=m: loss(m, p)))(params) for m in (model, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), plain, kept)


def test_taps_see_the_same_with_rematerialization() -> None:
    """What one keeps must outlive the forward pass: evaluations record, and a run with it could not end."""
    model, params, tokens = make({})
    for each in (jax.jit(lambda p, m=m: record(m, p, tokens)) for m in (model, dataclasses.replace(model, remat=True))):
        logits, seen = each(params)
        plain, expected = record(model, params, tokens)
        np.testing.assert_allclose(logits, plain, atol=1e-5)
        assert seen.keys() == expected.keys()
        for place, x in seen.items():
            np.testing.assert_allclose(x, expected[place], atol=1e-5, err_msg=str(place))


@pytest.mark.slow
def test_every_node_site_has_exactly_k_active_channels() -> None:
    model, params, tokens = make({}, fraction=0.25)
    _, seen = record(model, params, tokens)
    for site, width in site_widths(model.config).items():
        for layer in range(model.config.n_layer):
            x = seen[site, layer]
            assert x.shape == (3, 12, width)
            assert np.all(np.count_nonzero(x, axis=-1) == width // 4), (site, layer)


@pytest.mark.slow
def test_sites_without_topk_stay_dense() -> None:
    model, params, tokens = make({})
    model = dataclasses.replace(model, activation_sites=("mlp_neuron",))
    _, seen = record(model, params, tokens)
    assert np.all(np.count_nonzero(seen["mlp_neuron", 1], axis=-1) == model.config.d_mlp // 4)
    assert np.count_nonzero(seen["attn_in", 1]) == seen["attn_in", 1].size


@pytest.mark.slow
def test_sink_takes_attention_away_and_gives_no_value() -> None:
    model, params, tokens = make({"bias": False}, fraction=0.0)

    def head_output(logit: float) -> jax.Array:
        p = jax.tree.map(lambda x: x, params)
        p["h_0"]["attn"]["sink"] = jnp.full_like(p["h_0"]["attn"]["sink"], logit)
        return record(model, p, tokens)[1]["attn_y", 0]

    absent = head_output(-1e9)
    without, _, _ = make({"bias": False, "attention_sink": False}, fraction=0.0)
    plain = {
        **params,
        "h_0": {**params["h_0"], "attn": {k: v for k, v in params["h_0"]["attn"].items() if k != "sink"}},
    }
    plain["h_1"] = {**params["h_1"], "attn": {k: v for k, v in params["h_1"]["attn"].items() if k != "sink"}}
    np.testing.assert_allclose(absent, record(without, plain, tokens)[1]["attn_y", 0], atol=1e-5)
    np.testing.assert_allclose(head_output(1e9), 0, atol=1e-6)
    # At the first position one key and the sink share the weight: sigmoid of their difference.
    assert np.all(np.abs(head_output(0.0)[:, 0]) < np.abs(absent[:, 0]) + 1e-9)


@pytest.mark.slow
def test_open_gates_change_nothing_and_closed_gates_hide_the_input() -> None:
    model, params, tokens = make({"bigram": False})
    shapes = {site: (model.config.n_layer, width) for site, width in site_widths(model.config).items()}
    ablation = {site: jnp.full(shape, 0.5) for site, shape in shapes.items()}
    opened = gate({site: jnp.ones(shape) for site, shape in shapes.items()}, ablation)
    closed = gate({site: jnp.zeros(shape) for site, shape in shapes.items()}, ablation)

    @jax.jit
    def everything(p: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        h = model.apply({"params": p}, tokens, method="embed")
        moved = model.apply({"params": p}, h, tap=closed, method="run") - h
        return model.apply({"params": p}, tokens), model.apply({"params": p}, tokens, tap=opened), moved

    whole, same, moved = everything(params)
    np.testing.assert_allclose(same, whole, atol=1e-6)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0, 0], moved.shape), atol=1e-5)


def test_gelu_is_the_exact_one() -> None:
    from math import erf, sqrt

    x = np.linspace(-6, 6, 401, dtype=np.float32)
    exact = np.array([0.5 * v * (1 + erf(v / sqrt(2))) for v in x.astype(np.float64)])
    np.testing.assert_allclose(gelu(jnp.asarray(x)), exact, atol=1e-6, rtol=2e-6)
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray(x))
    numeric = np.array(
        [0.5 * (1 + erf(v / sqrt(2))) + v * np.exp(-v * v / 2) / np.sqrt(2 * np.pi) for v in x.astype(np.float64)]
    )
    np.testing.assert_allclose(slope, numeric, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_constants_are_activated_as_the_model_activates(name: str) -> None:
    x = np.linspace(-6, 6, 401, dtype=np.float32)
    traced, constants = ACTIVATIONS[name]
    np.testing.assert_allclose(traced(jnp.asarray(x)), constants(x.astype(np.float64)), atol=1e-6)
    assert float(traced(jnp.zeros(()))) == constants(np.zeros(1)).item() == 0, "liveness.py counts on it"


def test_an_activation_that_is_not_there_is_refused() -> None:
    config = presets.tiny()
    rule = configs.RULES["model"]["activation"]
    assert isinstance(rule, Choice)
    assert set(rule.allowed) == set(ACTIVATIONS)
    model = build(dataclasses.replace(config, model=dataclasses.replace(config.model, activation="swish")))
    with pytest.raises(KeyError, match="swish"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))


def test_sinusoids_have_periods_from_four_to_the_context() -> None:
    table = sinusoids(64, 6)
    np.testing.assert_allclose(table[:4, 0], np.sin(2 * np.pi * np.arange(4) / 4), atol=1e-6)
    np.testing.assert_allclose(table[:, 2], np.sin(2 * np.pi * np.arange(64) / 64), atol=1e-6)
    np.testing.assert_allclose(table[:, 5], np.cos(2 * np.pi * np.arange(64) / 64), atol=1e-6)


@pytest.mark.slow
def test_bfloat16_model_stays_close_and_returns_float32() -> None:
    model, params, tokens = make({}, fraction=0.0)
    low, _ = record(dataclasses.replace(model, dtype="bfloat16"), params, tokens)
    assert low.dtype == jnp.float32
    whole, _ = record(model, params, tokens)
    assert float(jnp.std(low - whole)) < 0.05 * float(jnp.std(whole))
