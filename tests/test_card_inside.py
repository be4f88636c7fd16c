"""Rows of the card that put values in the place of what is closed, or follow slopes there: closed v channels carry what
removed edges bring, and are nodes like others all the same."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits.circuit import Circuit, nodes_of
from sparse_gpt.circuits.evidence.card import adversary
from sparse_gpt.circuits.evidence.card.inside import Inside
from sparse_gpt.circuits.evidence.card.mechanism import norms
from sparse_gpt.circuits.evidence.card.subject import Samples, Subject
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, Gates, empty, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.edge_ablation import ablate_edges
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.config import NODE_SITES
from sparse_gpt.model.taps import NORM_TAPS
from tests import circuits_model

CONFIG = circuits_model.config(n_layer=1)
PARAMS = circuits_model.params(CONFIG)
GRAPH = ModelGraph(CONFIG.model, PARAMS)
GATES = to_vector(circuits_model.random_gates(CONFIG, 3, 0.7)).astype(np.float32)
BATCH = circuits_model.batch(6, 1)


def without_some() -> Support:
    """The nodes, without every third edge that can go; some of v are among those."""
    whole = Support(GRAPH, GATES)
    gone = {edge for edge, can_go in zip(whole.every, whole.can_go, strict=True) if can_go}
    gone = set(sorted(gone, key=str)[::3])
    assert any(edge.target.site == "attn_out" for edge in gone)
    return Support(GRAPH, GATES, tuple(edge for edge in whole.every if edge not in gone))


@pytest.mark.slow
@pytest.mark.parametrize("support", [Support(GRAPH, GATES), without_some()], ids=["all edges", "pruned"])
def test_resampled_values_are_ablation_values(support: Support, tmp_path: Path) -> None:
    """Against the reference, sample by sample, with the values of another sample's end as ablation values."""
    gated = circuits_model.gated(CONFIG)
    heldout = SimpleNamespace(gated=gated, shift_tokens=np.zeros(0, np.int32))
    calibration = Calibration(np.float32(1), np.zeros(0, np.float32))
    candidate = Candidate(support, calibration, True)
    subject = Subject(cast(Problem, SimpleNamespace(graph=GRAPH, heldout=heldout)), candidate, {})
    inside = Inside(subject, BATCH, np.arange(6))
    found = inside.resampled(np.random.default_rng(0))
    other = np.random.default_rng(0).permutation(6)
    recorded = inside.model[1]
    circuit = Circuit(
        task="task",
        params_sha256="",
        ablation="mean",
        norm="live",
        target_loss=1.0,
        scale=1.0,
        shift=(),
        edge_pruned=support.pruned_to is not None,
        nodes=nodes_of(support.layered),
        edges=support.edges,
        metrics={},
        values=empty(CONFIG.model),
    )
    circuit.save(tmp_path)
    tree = json.loads((tmp_path / "circuit.json").read_text())
    for i in range(6):
        one: Any = jax.tree.map(lambda x, i=i: x[i : i + 1], BATCH)
        end = int(BATCH.positions[other[i]])
        values: GateArrays = {site: np.asarray(recorded[site, 0])[other[i], end][None] for site in NODE_SITES}
        expected = circuits_model.reference_answer_logits(CONFIG, PARAMS, one, tree, values)
        np.testing.assert_allclose(found[i], expected[0], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [False, True], ids=["values", "zeros"])
def test_slopes_of_closed_nodes_are_those_of_the_model_without_carriers(zero: bool) -> None:
    """Where no edge is removed what carries constants is a node as it was, also under zero ablation."""
    gated, support = circuits_model.gated(CONFIG), Support(GRAPH, GATES)
    if zero:
        gated = gated.replace(ablation=jax.tree.map(jnp.zeros_like, gated.ablation))
    kept = np.ones(len(support.places), np.float32)
    found, of_edges = jax.device_get(adversary._slopes(gated, support.layered, support.places, kept, BATCH))

    @jax.jit
    def contrast(gates: Gates) -> jax.Array:
        logits = gated.answer_logits(gates, BATCH)
        return jnp.mean(logits[:, 0] - logits[:, 1])

    expected = jax.device_get(jax.grad(contrast)(support.layered))
    for site in NODE_SITES:
        np.testing.assert_allclose(found[site], expected[site], atol=1e-5, err_msg=site)
    to_out = [i for i, edge in enumerate(support.every) if edge.target.site == "attn_out" and support.can_go[i]]
    assert np.count_nonzero(of_edges[to_out]) > len(to_out) / 2, "edges that could be removed have slopes, too"


def test_frozen_norms_are_those_of_the_model() -> None:
    """At the end, too, where alone something is unembedded: logits are those of the circuit elsewhere."""
    frozen = circuits_model.gated(CONFIG).replace(frozen=True)
    heldout = SimpleNamespace(gated=frozen, shift_tokens=np.zeros(0, np.int32))
    support = Support(GRAPH, GATES)
    candidate = Candidate(support, Calibration(np.float32(1), np.zeros(0, np.float32)), True)
    subject = Subject(cast(Problem, SimpleNamespace(graph=GRAPH, heldout=heldout)), candidate, {})
    logits, recorded = Inside(subject, BATCH, np.arange(6)).circuit
    expected = jax.jit(frozen.answer_logits)(support.layered, BATCH)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    live = jax.jit(frozen.replace(frozen=False).answer_logits)(support.layered, BATCH)
    assert np.abs(logits - live).max() > 0.01
    assert recorded["final_norm", CONFIG.model.n_layer].shape == (6, 1, 1)


@pytest.mark.parametrize("zeros", ["everything", "all closed", "some", "tiny", "none"])
def test_removed_edges_bring_their_constants_whatever_the_carriers_value(zeros: str) -> None:
    """One head's weighted sum, float64: attention that adds up to 0.6, values at two positions."""
    support = without_some()
    gated, rng = circuits_model.gated(CONFIG), np.random.default_rng(1)
    gates, heads = support.layered["attn_v"][0], (CONFIG.model.n_head, CONFIG.model.d_head)
    values = rng.standard_normal(len(gates))
    closed = np.flatnonzero(gates == 0)
    values[
        {
            "everything": np.arange(len(gates)),
            "all closed": closed,
            "some": closed[::2],
            "tiny": closed,
            "none": closed[:0],
        }[zeros]
    ] *= 1e-20 if zeros == "tiny" else 0.0
    ablation = {**gated.ablation, "attn_v": jnp.asarray(values[None], jnp.float32)}
    kept = np.zeros(len(support.places), np.float32)
    kept[: len(support.kept)] = support.kept
    changed = ablate_edges(gated.replace(ablation=ablation), support.layered, support.places, kept)
    kernel = np.asarray(gated.params["h_0"]["attn"]["c_proj"]["kernel"], np.float64)
    removed = np.zeros_like(kernel)
    for edge, stays in zip(support.every, support.kept, strict=True):
        if edge.target.site == "attn_out" and not stays:
            removed[edge.source.channel, edge.target.channel] = 1
    x, attention = rng.standard_normal((2, len(gates))), np.array([0.4, 0.2])
    opened = gates * x + (1 - gates) * values
    expected = attention @ (opened @ (kernel * (1 - removed)) + values @ (kernel * removed))
    carried = np.asarray(changed.ablation["attn_v"][0], np.float64)
    own = np.asarray(changed.params["h_0"]["attn"]["c_proj"]["kernel"], np.float64)
    found = attention @ ((gates * x + (1 - gates) * carried) @ own)
    assert gates.reshape(heads).min(axis=1).max() == 0, "every head has a closed channel"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_factors_of_norms_do_not_cancel_and_are_where_a_norm_has_a_say() -> None:
    """The reciprocal RMS in the circuit over that in the model: 4 at one half of the positions, 1/4 at the other."""
    layers, (count, time) = CONFIG.model.n_layer, BATCH.tokens.shape
    graph = SimpleNamespace(config=SimpleNamespace(n_layer=layers))
    subject: Any = SimpleNamespace(problem=SimpleNamespace(gated=SimpleNamespace(frozen=False), graph=graph))
    inner = Inside(subject, BATCH, np.arange(count))
    model = {(site, n): np.ones((count, time, 1)) for site in NORM_TAPS[:2] for n in range(layers)}
    model |= {("final_norm", layers): np.ones((count, 1, 1))}

    def value(**circuit: np.ndarray) -> float | None:
        changed = {place: circuit.get(f"{place[0]}_{place[1]}", there) for place, there in model.items()}
        inner.__dict__.update(circuit=(None, changed), model=(None, model))
        subject._inside = {"main": inner}
        return norms(subject, cast(Samples, SimpleNamespace(name="main"))).value

    both_ways = np.where(np.arange(time) % 2, 4.0, 0.25)[None, :, None] * np.ones((count, 1, 1))
    assert value() == pytest.approx(1)
    assert value(attn_norm_0=both_ways) == pytest.approx(4)
    assert value(final_norm_1=np.full((count, 1, 1), 0.2)) == pytest.approx(5)
    last = np.arange(time)[None, :, None] == np.asarray(BATCH.positions)[:, None, None]
    assert value(**{f"mlp_norm_{layers - 1}": np.where(last, 1.0, 9.0)}) == pytest.approx(1)
    assert value(**{f"mlp_norm_{layers - 1}": np.where(last, 3.0, 1.0)}) == pytest.approx(3)
