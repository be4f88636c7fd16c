"""Circuits that run on their own, against the gated model and against the independent reference."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt.circuits.circuit import Circuit, nodes_of
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.circuits.run.packed_batch import packed
from sparse_gpt.circuits.run.standalone.build import extract
from sparse_gpt.circuits.run.standalone.model import Mlp, StandaloneCircuit, TopKGate
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.sparsity.topk import abs_topk
from tests import circuits_model

BATCH = circuits_model.batch(32, seed=3)
answer_logits = jax.jit(StandaloneCircuit.answer_logits)


def _circuit(config: Config, share: float, kept_share: float, seed: int = 4) -> Circuit:
    """A random circuit without calibration. One head of the last layer is closed altogether, and one of the first layer
    has no open q; with pruned edges the last one that is left has none either."""
    params, gates = circuits_model.params(config), circuits_model.random_gates(config, seed, share)
    gates["attn_v"][:, [0, 4]] = 0  # a closed channel in every head, so that every edge can be removed
    for site in ("attn_q", "attn_k", "attn_v"):
        gates[site][1, 4:] = 0
    gates["attn_q"][: 2 if kept_share < 1 else 1, :4] = 0
    every = ModelGraph(config.model, params).edges(to_vector(gates))
    keep = np.random.default_rng(seed).random(len(every)) < kept_share
    return Circuit(
        task="toy",
        params_sha256="",
        ablation="mean",
        norm=config.prune.norm,
        target_loss=0.15,
        scale=1.0,
        shift=(),
        edge_pruned=kept_share < 1,
        nodes=nodes_of(gates),
        edges=tuple(edge for edge, stays in zip(every, keep, strict=True) if stays),
        metrics={},
        values=circuits_model.random_vectors(config, seed + 1),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "share", "kept_share", "options"),
    [
        (0.5, 0.15, 1.0, {}),
        (0.5, 0.6, 0.5, {"bigram": True, "final_bias": True}),
        (0.0, 0.15, 1.0, {"bias": False, "residual_activation": "relu"}),
        (0.0, 0.5, 0.5, {"attention_sink": False, "norm": "layer", "position": "concat", "d_position": 4}),
    ],
    ids=["AbsTopK, sinks", "larger, pruned edges, bigram", "tables, ReLU stream", "LayerNorm, positions, no sinks"],
)
def test_logits_of_the_circuit_alone(fraction: float, share: float, kept_share: float, options: dict[str, Any]) -> None:
    config = circuits_model.config(fraction, **options)
    params, circuit = circuits_model.params(config), _circuit(config, share, kept_share)
    alone = extract(gated_model(config, params, circuit.values), circuit)
    found = answer_logits(alone, BATCH)
    expected = circuits_model.reference_answer_logits(config, params, BATCH, circuit.to_dict(), circuit.values)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    side_by_side = answer_logits(alone, packed(BATCH, 64 * 8, 40))
    np.testing.assert_allclose(side_by_side[:32], expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(side_by_side).all()


@pytest.mark.slow
def test_the_whole_model_is_a_circuit_too_and_all_logits_agree() -> None:
    config = circuits_model.config(0.5)
    params = circuits_model.params(config)
    circuit = dataclasses.replace(
        _circuit(config, 1.0, 1.0), nodes=nodes_of({s: np.ones_like(v) for s, v in _gates(config).items()})
    )
    gated = gated_model(config, params, circuit.values)
    alone = extract(gated, circuit)
    run = jax.jit(lambda gated, alone: (gated.logits(BATCH), alone.logits(BATCH.tokens, BATCH.positions)))
    expected, found = run(gated, alone)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _gates(config: Config) -> dict[str, np.ndarray]:
    return circuits_model.random_gates(config, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("opened", "constants"), [(3, 8), (20, 8), (20, 0)])
def test_contest_is_abs_topk_with_its_ties(opened: int, constants: int) -> None:
    rng = np.random.default_rng(opened)
    x = rng.integers(-3, 4, (2, 5, 32)).astype(np.float32)  # many ties
    fixed = np.sort(rng.choice(32, constants, replace=False))
    x[:, :, fixed] = x[:1, :1, fixed]
    live = np.setdiff1d(np.arange(32), fixed)
    mine = np.sort(rng.choice(len(live), opened, replace=False))
    top_k = TopKGate(*(np.asarray(a) for a in (live, x[0, 0, fixed], fixed, mine)), keep=10)
    expected = abs_topk(x, 10)[:, :, live[mine]]
    flat = x.reshape(-1, 32).T
    np.testing.assert_array_equal(top_k(flat[live]), expected.reshape(-1, opened).T)
    if not constants:
        np.testing.assert_array_equal(dataclasses.replace(top_k, ranked=False)(flat.T), expected.reshape(-1, opened).T)


@pytest.mark.slow
def test_only_the_strongest_constants_take_part() -> None:
    """Ties among constants included: what comes after the k strongest of them decides nothing."""
    config = circuits_model.config(0.25)
    rng = np.random.default_rng(0)

    def sparse(x: np.ndarray) -> np.ndarray:
        few = np.asarray(x) * (rng.random(x.shape) < 0.1)
        return few if x.ndim == 2 else np.round(2 * rng.standard_normal(x.shape)).astype(np.float32)

    params = dict(circuits_model.params(config))
    for layer in range(config.model.n_layer):
        block = dict(params[f"h_{layer}"])
        params[f"h_{layer}"] = block | {"mlp": jax.tree.map(sparse, block["mlp"])}
    circuit = _circuit(config, 0.3, 1.0)
    gated = gated_model(config, params, circuit.values)
    alone = extract(gated, circuit)
    sites = [s.part.neuron.top_k for s in alone.sublayers[1::2] if isinstance(s.part, Mlp)]
    keep = int(0.25 * config.model.d_mlp)
    assert any(top_k.ranked and len(top_k.constants) == keep for top_k in sites)
    expected = jax.jit(GatedModel.answer_logits)(gated, circuit.gates(config.model), BATCH)
    np.testing.assert_allclose(answer_logits(alone, BATCH), expected, rtol=1e-4, atol=1e-4)


def test_frozen_norms_are_refused() -> None:
    config = circuits_model.config()
    config = dataclasses.replace(config, prune=dataclasses.replace(config.prune, norm="frozen"))
    circuit = _circuit(config, 0.2, 1.0)
    with pytest.raises(InputError, match="cannot run on its own"):
        extract(gated_model(config, circuits_model.params(config), circuit.values), circuit)


def test_an_activation_that_is_not_there_is_refused() -> None:
    config = circuits_model.config(0.5)
    circuit = _circuit(config, 0.6, 1.0)
    gated = gated_model(config, circuits_model.params(config), circuit.values)
    neuron = next(s.part.neuron for s in extract(gated, circuit).sublayers if isinstance(s.part, Mlp))
    with pytest.raises(KeyError, match="swish"):
        neuron(np.zeros((len(neuron.weights), 1), np.float32), np.zeros(1, np.int32), "swish")
    unknown = dataclasses.replace(gated.model, config=dataclasses.replace(config.model, activation="swish"))
    with pytest.raises(KeyError, match="swish"):
        extract(dataclasses.replace(gated, model=unknown), circuit)
