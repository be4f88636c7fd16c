"""Masks within a support, against the same masks in the whole model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import Gates, from_vector, to_vector
from sparse_gpt.circuits.run import evaluator
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, ROWS, Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.subcircuits import Subcircuits, build_subcircuits
from sparse_gpt.config import Config
from tests import circuits_model

MODELS: dict[str, tuple[float, float, dict[str, Any]]] = {
    "AbsTopK, sinks": (0.5, 0.3, {}),
    "larger, bigram": (0.5, 0.8, {"bigram": True, "final_bias": True}),
    "tables, ReLU stream": (0.0, 0.3, {"bias": False, "residual_activation": "relu"}),
    "LayerNorm, positions, no sinks": (
        0.0,
        0.5,
        {"attention_sink": False, "norm": "layer", "position": "concat", "d_position": 4},
    ),
}


def _support(config: Config, share: float, seed: int = 4) -> np.ndarray:
    """Gates (nodes,) of a random support. One head of the last layer is closed altogether; the first one of the first
    layer has open v alone, the other open q too."""
    gates = circuits_model.random_gates(config, seed, share)
    for site in ("attn_q", "attn_k", "attn_v"):
        gates[site][1, 4:] = 0
    gates["attn_q"][0] = np.repeat([0, 1], 4)
    gates["attn_k"][0, :4], gates["attn_v"][0, :6] = 0, 1
    return to_vector(gates)


def _parts(config: Config, support: np.ndarray, count: int = 11) -> Masks:
    """Random parts of a support, the first of them all of its nodes, each without some edges and with other weights."""
    rng = np.random.default_rng(0)
    gates = support * (rng.random((count, len(support))) < np.linspace(1, 0.3, count)[:, None])
    layered = from_vector(support, config.model)
    every = ModelGraph(config.model, circuits_model.params(config)).edges(to_vector(layered))
    some = [edge for edge, free in zip(every, removable(config.model, every, layered), strict=True) if free]
    kept = (rng.random((count, len(some))) < 0.7) * rng.choice([1, 1, -0.5, 2], (count, len(some)))
    return Masks(gates.astype(np.float32), edge_places(config.model, some), kept.astype(np.float32))


def _both(config: Config, share: float) -> tuple[Evaluator, Evaluator, Masks]:
    """Evaluators on the whole model and within a support, and parts of that."""
    whole = Evaluator(circuits_model.gated(config), circuits_model.batch(ROWS, seed=3), NO_TOKENS)
    support = _support(config, share)
    within = dataclasses.replace(whole, subcircuits=build_subcircuits(whole.gated, from_vector(support, config.model)))
    return whole, within, _parts(config, support)


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "share", "options"), MODELS.values(), ids=list(MODELS))
def test_parts_of_a_support_have_the_logits_of_the_whole_model(
    fraction: float, share: float, options: dict[str, Any]
) -> None:
    whole, within, parts = _both(circuits_model.config(fraction, **options), share)
    expected = whole.logits(parts)
    assert np.std(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(within.logits(parts), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_parts_of_a_support_have_the_slopes_of_the_whole_model() -> None:
    whole, within, parts = _both(circuits_model.config(0.5), 0.4)
    assert within.subcircuits is not None
    part = parts.gates[5]
    gates = {site: jnp.asarray(value) for site, value in from_vector(part, whole.gated.model.config).items()}

    def margin(gates: Gates, model: GatedModel | Subcircuits) -> jax.Array:
        logits = model.answer_logits(gates, whole.batch)
        return jnp.mean(logits[:, 0] - logits[:, 1])

    found, expected = (to_vector(jax.jit(jax.grad(margin))(gates, m)) for m in (within.subcircuits, whole.gated))
    np.testing.assert_allclose(found[part > 0], expected[part > 0], rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-3
    # What an evaluator gives is taken from the whole model, whose program is compiled already.
    one = parts.only(np.array([5]))
    np.testing.assert_allclose(within.slopes(one)[0], whole.slopes(one)[0], rtol=1e-4, atol=1e-7)


def test_an_empty_support_is_constant() -> None:
    config = circuits_model.config(0.5)
    whole = Evaluator(circuits_model.gated(config), circuits_model.batch(ROWS, seed=3), NO_TOKENS)
    closed = np.zeros(whole.nodes, np.float32)
    within = dataclasses.replace(whole, subcircuits=build_subcircuits(whole.gated, from_vector(closed, config.model)))
    expected = whole.logits(Masks(closed[None]))
    np.testing.assert_allclose(within.logits(Masks(closed[None])), expected, rtol=1e-4, atol=1e-4)


def test_a_support_is_set_apart_where_it_can_be_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    config = circuits_model.config()
    gated, batch = circuits_model.gated(config), circuits_model.batch(ROWS, seed=3)
    frozen = dataclasses.replace(gated, frozen=True)
    turning = dataclasses.replace(gated, draws={site: value[None] for site, value in gated.ablation.items()})

    def apart(model: GatedModel, share: float = 0.05) -> bool:
        return Evaluator(model, batch, NO_TOKENS).within_support(_support(config, share)).subcircuits is not None

    assert not apart(gated)  # compiling would take far longer than all masks of this small model
    monkeypatch.setattr(evaluator, "WORTH_COMPILING", 0)
    assert [apart(model) for model in (gated, frozen, turning)] == [True, False, False]
    assert not apart(gated, share=0.3)  # nearly the whole model
