"""Masks whose AbsTopK is held at one circuit's thresholds, and nodes and edges that go by what is predicted so."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.circuits.circuit import nodes_of
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import Gates, from_vector, to_vector
from sparse_gpt.circuits.run import evaluator as evaluation
from sparse_gpt.circuits.run import objective, thresholds
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.edge_ablation import ablate_edges, edge_places, removable
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, ROWS, Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.thresholds import Predictor, predictor
from sparse_gpt.circuits.search import minimize
from sparse_gpt.config import NODE_SITES, Config
from sparse_gpt.model.taps import chain, gate
from sparse_gpt.model.transformer import apply
from tests import circuits_model

MODELS: dict[str, tuple[float, dict[str, Any]]] = {
    "sinks, biases": (0.3, {}),
    "bigram": (0.8, {"bigram": True, "final_bias": True}),
    "positions, no sinks": (0.4, {"attention_sink": False, "position": "concat", "d_position": 4}),
    "LayerNorm": (0.4, {"norm": "layer"}),
}


@pytest.fixture(autouse=True)
def _any_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test models are too small, and their supports too large, for predictions to pay."""
    monkeypatch.setattr(evaluation, "WORTH_COMPILING", 0)
    monkeypatch.setattr(thresholds, "MOST", 1.0)


def _setting(config: Config, share: float, samples: int = ROWS + 22) -> tuple[Evaluator, Predictor, Masks]:
    """An evaluator, a predictor for a random support, and parts of that, the first of them all of it but some edges."""
    whole = Evaluator(circuits_model.gated(config), circuits_model.batch(samples, seed=3), NO_TOKENS)
    support = to_vector(circuits_model.random_gates(config, 4, share))
    near = predictor(whole, support)
    assert near is not None
    upper = predictor(dataclasses.replace(whole, upper_share=0.6, allowance=(0.1,)), support)
    assert upper is not None
    assert (upper.upper_share, upper.allowance) == (0.6, (0.1,))  # as the losses that are predicted
    rng, graph = np.random.default_rng(0), ModelGraph(config.model, circuits_model.params(config))
    gates = support * (rng.random((5, len(support))) < np.linspace(1, 0.6, 5)[:, None])
    every = graph.edges(support)
    free = removable(config.model, every, from_vector(support, config.model))
    some = [edge for edge, may_go in zip(every, free, strict=True) if may_go]
    kept = (rng.random((5, len(some))) < 0.8).astype(np.float32)
    return whole, near, Masks(gates.astype(np.float32), edge_places(config.model, some), kept)


def _reference(gated: GatedModel, part: Masks, held: Predictor) -> np.ndarray:
    """(B, 2) logits of one mask in the whole model, each value compared with its threshold."""
    model, batch = gated.model, held.batch
    gates = _on_device(from_vector(part.gates[0], model.config))
    assert part.kept is not None
    kept = np.ones(len(part.places), np.float32)
    kept[: part.kept.shape[1]] = part.kept[0]
    logits = _compared(gated, gates, part.places, kept, held.thresholds, batch.tokens, batch.positions)[:, 0]
    return np.take_along_axis(np.asarray(logits), np.stack([batch.answer, batch.foil], axis=1), axis=1)


def _on_device(gates: Gates) -> Gates:
    return {site: jnp.asarray(value) for site, value in gates.items()}


@jax.jit
def _compared(
    gated: GatedModel,
    gates: Gates,
    places: jax.Array,
    kept: jax.Array,
    lines: thresholds.Thresholds,
    tokens: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    circuit = ablate_edges(gated, gates, places, kept)

    def compare(site: str, layer: int, x: jax.Array) -> jax.Array:
        if (site, layer) not in lines:
            return x
        return jnp.where(jnp.abs(x) >= lines[site, layer][:, : x.shape[1], None], x, 0)

    plain = dataclasses.replace(gated.model, activation_fraction=0.0, activation_sites=())
    tap = chain(compare, gate(gates, circuit.ablation))
    return apply(plain, circuit.params, tokens, tap=tap, positions=positions)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "options"), MODELS.values(), ids=list(MODELS))
def test_near_itself_a_circuit_is_exact_and_elsewhere_selection_is_by_its_thresholds(
    share: float, options: dict[str, Any]
) -> None:
    config = circuits_model.config(0.5, **options)
    whole, near, parts = _setting(config, share)
    first = parts.only(np.array([0]))
    held = near.near(first)
    np.testing.assert_allclose(held.logits(first), whole.logits(first), rtol=1e-4, atol=1e-4)
    found = held.logits(parts)
    for i in range(len(parts.gates)):
        expected = _reference(whole.gated, parts.only(np.array([i])), held)
        np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-3)
    assert np.abs(found[1:] - whole.logits(parts)[1:]).max() > 1e-2, "thresholds of another circuit are not exact"


@pytest.mark.slow
def test_losses_of_rows_are_those_of_all_and_each_circuit_has_its_own_thresholds() -> None:
    whole, near, parts = _setting(circuits_model.config(0.5), 0.4)
    first, last = (parts.only(np.array([i])) for i in (0, 4))
    held, other = near.near(first), near.near(last)
    order = np.random.default_rng(5).permutation(len(whole.batch.positions))
    np.testing.assert_allclose(held.on_rows(order).logits(parts), held.logits(parts)[:, order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(held.losses_up_to(parts, np.inf), held(parts).loss, rtol=1e-5)
    # What was asked of one set of thresholds is not given as an answer for another.
    np.testing.assert_allclose(other.logits(last), whole.logits(last), rtol=1e-4, atol=1e-4)
    assert np.abs(held.logits(last) - other.logits(last)).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("matched", [False, True], ids=["answers", "matched"])
def test_slopes_are_of_all_samples_and_the_worst_task_counts_most(matched: bool) -> None:
    """As differentiated in the whole model, under the same calibration and thresholds."""
    config = circuits_model.config(0.5)
    whole, _, parts = _setting(config, 0.4)
    assert parts.kept is not None
    parts = dataclasses.replace(
        parts, kept=np.ones_like(parts.kept)
    )  # both ways remove an edge, not by the same formula
    task = np.arange(len(whole.batch.positions)) // 2 % 3
    logits, rng = whole.logits(parts)[0], np.random.default_rng(2)
    swapped = (logits[:, 0] < logits[:, 1]) & (rng.random(len(task)) < 0.8)  # so that the circuit is right more often
    answer, foil = np.where(swapped, (whole.batch.foil, whole.batch.answer), (whole.batch.answer, whole.batch.foil))
    share = rng.uniform(0.01, 0.2, len(task)).astype(np.float32) if matched else None
    batch = whole.batch._replace(answer=answer, foil=foil, task=task, foil_share=share)
    near = predictor(dataclasses.replace(whole, batch=batch, allowance=(0.0, 0.3, 0.0)), parts.gates[0])
    assert near is not None
    one = parts.only(np.array([0]))
    held = near.near(one)
    given = held.calibration(one)
    weight = objective.weights_of_worst(calibrate(held.logits(one)[0], given, held.index), batch, 0.0, (0.0, 0.3, 0.0))

    def loss(gates: Gates, kept: jax.Array) -> jax.Array:
        every = _compared(held.gated, gates, one.places, kept, held.thresholds, batch.tokens, batch.positions)[:, 0]
        margin = every[np.arange(len(answer)), answer] - every[np.arange(len(foil)), foil]
        return jnp.sum(weight * objective.traced_losses(given.scale.astype(np.float32) * margin, share))

    assert one.kept is not None
    kept = np.pad(one.kept[0], (0, len(one.places) - one.kept.shape[1]), constant_values=1)
    expected = jax.grad(loss, argnums=(0, 1))(_on_device(from_vector(one.gates[0], config.model)), jnp.asarray(kept))
    gates, edges = held.slopes(one)
    inside = one.gates[0] > 0
    np.testing.assert_allclose(gates[inside], to_vector(expected[0])[inside], rtol=1e-3, atol=1e-4)
    count = one.kept.shape[1]
    np.testing.assert_allclose(edges[:count], expected[1][:count], rtol=1e-3, atol=1e-4)
    assert np.abs(gates[inside]).max() > 1e-2
    assert np.abs(edges[:count]).max() > 1e-2


@pytest.mark.slow
def test_candidates_outside_the_support_are_refused() -> None:
    _, near, parts = _setting(circuits_model.config(0.5), 0.3)
    held = near.near(parts.only(np.array([0])))
    with pytest.raises(ValueError, match="within its own support"):
        held.logits(Masks(np.ones((1, held.nodes), np.float32)))


@pytest.mark.slow
def test_thresholds_stand_in_the_middle() -> None:
    """Against sorting in NumPy, site by site."""
    config = circuits_model.config(0.5)
    whole, near, _ = _setting(config, 1.0)
    held = near.near(Masks(np.ones((1, whole.nodes), np.float32)))
    model, expected = whole.gated.model, {}

    def sort(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in NODE_SITES:
            return x
        magnitude, k = np.abs(np.asarray(x)), x.shape[-1] // 2
        largest = np.sort(magnitude, axis=-1)[..., ::-1]
        expected[site, layer] = (largest[..., k - 1] + largest[..., k]) / 2
        return jnp.where(magnitude >= largest[..., k - 1 : k], x, 0)

    plain = dataclasses.replace(model, activation_fraction=0.0, activation_sites=())
    apply(plain, whole.gated.params, whole.batch.tokens, tap=sort, positions=whole.batch.positions)
    assert sorted(held.thresholds) == sorted(expected)
    for place, values in expected.items():
        np.testing.assert_allclose(held.thresholds[place], values, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_predicted_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    config = circuits_model.config(0.5)
    gated, batch = circuits_model.gated(config), circuits_model.batch(ROWS, seed=3)
    support = to_vector(circuits_model.random_gates(config, 4, 0.05))
    turning = dataclasses.replace(gated, draws={site: value[None] for site, value in gated.ablation.items()})
    stream = dataclasses.replace(gated.model, activation_sites=(*NODE_SITES, "resid_post_mlp"))
    dense = dataclasses.replace(gated.model, activation_fraction=0.0)

    def can(model: GatedModel, gates: np.ndarray = support) -> bool:
        return predictor(Evaluator(model, batch, NO_TOKENS), gates) is not None

    assert can(gated)
    assert not can(dataclasses.replace(gated, frozen=True))
    assert not can(turning)
    assert not can(dataclasses.replace(gated, model=stream))
    assert not can(dataclasses.replace(gated, model=dense))
    assert not can(gated, np.zeros_like(support))
    monkeypatch.setattr(thresholds, "MOST", 0.1)
    assert not can(gated, np.ones_like(support))
    monkeypatch.setattr(evaluation, "WORTH_COMPILING", np.inf)
    assert not can(gated)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_minimal_nodes_and_edges_by_prediction_are_minimal(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    """The loss is at the target, and no single node (or tied pair) or edge can go; one might, for a prediction is
    wrong now and then, here by more than in a large model."""
    config = circuits_model.config(0.5)
    samples = circuits_model.samples(config, circuits_model.params(config), 32)
    whole = Evaluator(circuits_model.gated(config), samples.train, NO_TOKENS)
    graph = ModelGraph(config.model, circuits_model.params(config), tie_qk=tied)
    start = Support(graph, np.ones(whole.nodes, np.float32))

    def loss(support: Support) -> float:
        return float(whole(support.masks).loss[0])

    def without_one_node(gates: np.ndarray) -> list[np.ndarray]:
        return [gates * (graph.gate_of != i) for i in np.flatnonzero(graph.one_per_gate(gates))]

    target, rounds = loss(start) + 0.2, []
    near = Predictor.near
    monkeypatch.setattr(Predictor, "near", lambda self, mask: rounds.append(1) or near(self, mask))
    nodes = minimize.minimize_nodes(start, whole, target, lambda _: None)
    assert rounds
    assert nodes.gates.sum() < start.gates.sum()
    np.testing.assert_array_equal(nodes.gates, nodes.gates[graph.tied])
    assert sum(loss(Support(graph, gates)) <= target for gates in without_one_node(nodes.gates)) <= 1
    edges = minimize.minimize_edges(nodes, whole, target, lambda _: None)
    left = edges.edges
    assert len(left) < len(nodes.edges)
    assert loss(edges) <= target
    free = removable(config.model, left, from_vector(edges.gates, config.model))
    fewer = [Support(graph, edges.gates, (*left[:i], *left[i + 1 :])) for i in np.flatnonzero(free)]
    for gates in without_one_node(edges.gates):
        between = set(graph.edges(gates))
        fewer.append(Support(graph, gates, tuple(edge for edge in left if edge in between)))
    assert sum(loss(each) <= target for each in fewer) <= 1


@pytest.mark.slow
def test_what_has_halved_is_minimized_in_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = circuits_model.config(0.5, n_layer=1)
    samples = circuits_model.samples(config, circuits_model.params(config), 32)
    whole = Evaluator(circuits_model.gated(config), samples.train, NO_TOKENS)
    graph = ModelGraph(config.model, circuits_model.params(config))
    start = Support(graph, np.ones(whole.nodes, np.float32))
    target, starts = float(whole(start.masks).loss[0]) + 0.6, []
    once = minimize.minimize_edges

    def counted(start: Support, *others: Any) -> Support:
        starts.append(start)
        return once(start, *others)

    monkeypatch.setattr(minimize, "minimize_edges", counted)
    found = minimize.minimize_edges(start, whole, target, lambda _: None)
    assert len(starts) > 1
    for before, after in itertools.pairwise([*starts, found]):
        assert set(after.edges) < set(before.edges), "edges that are gone stay gone"
    assert all(2 * after.size <= before.size for before, after in itertools.pairwise(starts))
    assert len(starts[1].edges) < graph.count_edges(starts[1].gates)
    assert whole(found.masks).loss[0] <= target


def test_edges_of_each_node_are_counted() -> None:
    config = circuits_model.config()
    graph = ModelGraph(config.model, circuits_model.params(config))
    gates = to_vector(circuits_model.random_gates(config, 2, 0.5))
    found, every = graph.edges_of_each(gates), graph.count_edges(gates)
    assert found.sum() == 2 * every > 0
    for node in np.flatnonzero(gates)[::7]:
        assert found[node] == every - graph.count_edges(gates * (np.arange(len(gates)) != node))
    assert not found[gates == 0].any()


@pytest.mark.parametrize("tied", [False, True])
def test_edges_that_go_along_are_counted(tied: bool) -> None:
    """One by one, from what is left of nodes and edges."""
    config = circuits_model.config(prune=dataclasses.replace(circuits_model.SEARCH, tie_qk=tied))
    graph = ModelGraph(config.model, circuits_model.params(config), tied)
    gates = to_vector(circuits_model.random_gates(config, 4, 0.5))
    gates = gates * gates[graph.tied]
    support = Support(graph, gates)
    opened = np.flatnonzero(graph.one_per_gate(gates))
    edges = [edge for edge, can_go in zip(support.every, support.can_go, strict=True) if can_go]
    kept = (np.random.default_rng(0).random(len(opened) + len(edges)) < 0.7).astype(np.float32)
    found = minimize.NodesAndEdges(support).edges_along(kept)
    numbers = {node: i for i, node in enumerate(nodes_of(from_vector(np.ones(len(gates)), config.model)))}
    of_gate = {int(gate): kept[i] for i, gate in enumerate(opened)}
    expected = np.zeros(len(kept))
    for i, edge in enumerate(edges):
        both = [int(graph.gate_of[numbers[end]]) for end in (edge.source, edge.target)]
        there = kept[len(opened) + i] * of_gate[both[0]] * of_gate[both[1]]
        expected[len(opened) + i] = there
        for end in both:
            expected[int(np.flatnonzero(opened == end)[0])] += there
    np.testing.assert_array_equal(found, expected)
    assert expected.max() > 2
