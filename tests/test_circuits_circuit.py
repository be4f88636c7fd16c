"""Circuits as graphs and files: counting, pruned edges, and losses recomputed from the files alone."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt.circuits import circuit as circuits
from sparse_gpt.circuits.circuit import Circuit, Edge
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, to_vector
from sparse_gpt.circuits.run.edge_ablation import ablate_edges, edge_places, removable, without_pruned_edges
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import Params
from sparse_gpt.records import Node
from tests import circuits_model

KERNELS = {  # target site -> source site, path of the kernel, which third of it
    "attn_q": ("attn_in", "attn", "c_attn", 0),
    "attn_k": ("attn_in", "attn", "c_attn", 1),
    "attn_v": ("attn_in", "attn", "c_attn", 2),
    "attn_out": ("attn_v", "attn", "c_proj", 0),
    "mlp_neuron": ("mlp_in", "mlp", "c_fc", 0),
    "mlp_out": ("mlp_neuron", "mlp", "c_proj", 0),
}


def _slow_edges(config: Config, params: Params, gates: GateArrays) -> set[Edge]:
    """Every pair of open nodes, one by one."""
    found, third = set(), config.model.n_head * config.model.d_head
    nodes = circuits.nodes_of(gates)
    for a in nodes:
        for b in nodes:
            if a.layer != b.layer or b.site not in KERNELS or KERNELS[b.site][0] != a.site:
                continue
            _, part, name, which = KERNELS[b.site]
            weight = params[f"h_{a.layer}"][part][name]["kernel"][
                a.channel, which * third * (name == "c_attn") + b.channel
            ]
            if weight != 0:
                found.add(Edge(a, b, float(weight)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_edges_and_vocabulary_entries_against_a_slow_count(seed: int) -> None:
    config = circuits_model.config(position="concat", d_position=4)
    params = circuits_model.params(config, seed)
    gates = circuits_model.random_gates(config, seed, share=0.4)
    support = Support(ModelGraph(config.model, params), to_vector(gates))
    assert set(support.edges) == _slow_edges(config, params, gates)
    assert len(support.edges) == len(set(support.edges)) == support.graph.count_edges(support.gates) > 20
    read = {n.channel for n in circuits.nodes_of(gates) if n.site in ("attn_in", "mlp_in") and n.channel < 16}
    written = {n.channel for n in circuits.nodes_of(gates) if n.site in ("attn_out", "mlp_out")}
    embedding = sum(params["wte"][token, channel] != 0 for token in range(24) for channel in read)
    unembedding = sum(params["lm_head"][channel, token] != 0 for token in range(24) for channel in written)
    assert support.embedding_edges == embedding
    assert support.unembedding_edges == unembedding


def test_nodes_round_trip() -> None:
    config = circuits_model.config()
    gates = circuits_model.random_gates(config, seed=1)
    back = circuits.gates_of(circuits.nodes_of(gates), config.model)
    assert all((back[site] == gates[site]).all() for site in gates)


def _circuit(config: Config, params: Params, seed: int, kept_share: float = 1.0) -> Circuit:
    """A random circuit of the random model; with a share below 1, only that share of its edges."""
    gates = circuits_model.random_gates(config, seed, share=0.6)
    for head in (0, 4):  # a closed channel in every head, so that every edge can be removed
        gates["attn_v"][:, head] = 0
    every = ModelGraph(config.model, params).edges(to_vector(gates))
    assert removable(config.model, every, gates).all()
    keep = np.random.default_rng(seed).random(len(every)) < kept_share
    return Circuit(
        task="toy",
        params_sha256="ab" * 32,
        ablation="mean",
        norm=config.prune.norm,
        target_loss=0.15,
        scale=1.7,
        shift=((3, 0.25), (7, -0.5)),
        edge_pruned=kept_share < 1,
        nodes=circuits.nodes_of(gates),
        edges=tuple(edge for edge, stays in zip(every, keep, strict=True) if stays),
        metrics={"task_loss": 0.125},
        values=circuits_model.random_vectors(config, seed + 1),
    )


def test_files_round_trip_and_belong_to_their_weights(tmp_path: Path) -> None:
    config = circuits_model.config()
    circuit = _circuit(config, circuits_model.params(config), seed=2, kept_share=0.5)
    circuit.save(tmp_path / "circuits" / "toy")
    folder = tmp_path / "circuits" / "toy"
    assert sorted(path.name for path in folder.iterdir()) == ["ablation.npz", "circuit.json"]
    back = circuits.load(folder, "ab" * 32)
    assert back == circuit
    assert back.to_dict() == circuit.to_dict()
    assert all((back.values[site] == circuit.values[site]).all() for site in circuit.values)
    with pytest.raises(InputError, match=r"belongs to weights abab.*prune this model"):
        circuits.load(folder, "cd" * 32)


def test_circuit_json_has_the_fields_of_the_format() -> None:
    config = circuits_model.config()
    tree = json.loads(json.dumps(_circuit(config, circuits_model.params(config), seed=2).to_dict()))
    assert tree["format"] == "sparse_gpt.circuit/1"
    assert set(tree) == {"format", "task", "params_sha256", "ablation", "norm", "target_loss"} | {
        "calibration", "edge_pruned", "nodes", "edges", "metrics", "bookkeeping", "tie_qk"
    }  # fmt: skip
    assert set(tree["nodes"][0]) == {"layer", "site", "channel"}
    assert set(tree["edges"][0]) == {"from", "to", "weight"}
    assert tree["calibration"] == {"scale": 1.7, "shift": [[3, 0.25], [7, -0.5]]}


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": "other"}', '{"format": "sparse_gpt.circuit/1"}'])
def test_files_that_are_no_circuit_are_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "circuit.json").write_text(text)
    with pytest.raises(InputError, match=str(tmp_path)):
        circuits.load(tmp_path)


@pytest.mark.parametrize(
    ("node", "where"), [(Node(0, "mlp_out", 5000), "0.mlp_out.5000"), (Node(9, "attn_in", 1), "9.attn_in.1")]
)
def test_a_node_outside_of_the_values_is_refused(tmp_path: Path, node: Node, where: str) -> None:
    """Each part of it is compared, not the pair."""
    config = circuits_model.config()
    circuit = _circuit(config, circuits_model.params(config), seed=2)
    dataclasses.replace(circuit, nodes=(*circuit.nodes, node)).save(tmp_path)
    with pytest.raises(InputError, match=rf"circuit\.json: node {where} is outside of the values"):
        circuits.load(tmp_path)


def _misfits(circuit: Circuit) -> dict[str, Circuit]:
    """Circuits with one part that does not fit the model, by what is said of it."""
    a, b, c = Node(0, "attn_in", 1), Node(0, "mlp_out", 2), Node(1, "attn_q", 3)
    nodes = tuple(dict.fromkeys((*circuit.nodes, a, b, c)))

    def joining(*ends: Node) -> Circuit:
        return dataclasses.replace(circuit, nodes=nodes, edges=(Edge(*ends, 0.5),))

    inner = dataclasses.replace(circuit, shift=((5000, 0.5),))
    return {
        "no weight of the model joins 0.attn_in.1 and 0.mlp_out.2": joining(a, b),
        "no weight of the model joins 0.attn_in.1 and 1.attn_q.3": joining(a, c),
        "the model has no token 5000": dataclasses.replace(circuit, minimal=inner),
        "its values of mlp_out are (3, 16), the model's (2, 16)": dataclasses.replace(
            circuit, values={**circuit.values, "mlp_out": np.zeros((3, 16), np.float32)}
        ),
    }


def test_a_file_of_these_weights_must_fit_the_model(tmp_path: Path) -> None:
    config = circuits_model.config()
    circuit = _circuit(config, circuits_model.params(config), seed=2)
    for number, (says, wrong) in enumerate(_misfits(circuit).items()):
        place = tmp_path / str(number)
        wrong.save(place)
        with pytest.raises(InputError, match=f"does not fit this model: {re.escape(says)}"):
            wrong.require_fit(config.model)
        with pytest.raises(InputError, match=rf"circuit\.json: {re.escape(says)}; delete it or make it again"):
            circuits.load(place, circuit.params_sha256, config.model)


def test_edges_of_the_minimal_circuit_join_its_own_nodes(tmp_path: Path) -> None:
    config = circuits_model.config()
    circuit = _circuit(config, circuits_model.params(config), seed=2)
    edge = circuit.edges[0]
    dataclasses.replace(circuit, minimal=dataclasses.replace(circuit, edges=(edge,))).save(tmp_path)
    tree = json.loads((tmp_path / "circuit.json").read_text())
    tree["minimal"]["nodes"] = [entry for entry in tree["minimal"]["nodes"] if entry != edge.target._asdict()]
    (tmp_path / "circuit.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match=f"'to' is {edge.target.key}, which is not among the nodes of the minimal"):
        circuits.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kept_share", [1.0, 0.5])
@pytest.mark.parametrize(
    ("fraction", "norm", "options"),
    [
        (0.5, "live", {}),
        (0.0, "frozen", {"bias": False}),
        (0.0, "live", {"attention_sink": False, "norm": "layer", "position": "concat", "d_position": 4}),
    ],
    ids=["AbsTopK, sinks", "frozen norms, no biases", "no sinks, LayerNorm, positions"],
)
def test_logits_recomputed_from_the_files(
    tmp_path: Path, kept_share: float, fraction: float, norm: str, options: dict[str, Any]
) -> None:
    """circuit.json, ablation.npz and the weights are enough for an implementation that shares no code with ours."""
    config = circuits_model.config(fraction, **options)
    config = dataclasses.replace(config, prune=dataclasses.replace(config.prune, norm=norm))
    params, batch = circuits_model.params(config), circuits_model.batch(32, seed=3)
    circuit = _circuit(config, params, seed=4, kept_share=kept_share)
    circuit.save(tmp_path)
    model = without_pruned_edges(gated_model(config, params, circuit.values), circuit)
    logits = np.asarray(
        jax.jit(lambda model, gates: model.answer_logits(gates, batch))(model, circuit.gates(config.model))
    )
    shift = dict(circuit.shift)
    choices = np.stack([batch.answer, batch.foil], axis=1)
    found = circuit.scale * logits + np.array([[shift.get(int(token), 0.0) for token in row] for row in choices])
    with np.load(tmp_path / "ablation.npz") as ablation:
        expected = circuits_model.reference_answer_logits(
            config, params, batch, json.loads((tmp_path / "circuit.json").read_text()), dict(ablation)
        )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_removed_edges_matter_and_no_removed_edge_changes_nothing() -> None:
    config = circuits_model.config()
    params, batch = circuits_model.params(config), circuits_model.batch(16, seed=5)
    gates = _circuit(config, params, seed=4).gates(config.model)
    model = gated_model(config, params, circuits_model.random_vectors(config, 5))
    every = ModelGraph(config.model, params).edges(to_vector(gates))
    places = edge_places(config.model, every)
    run = jax.jit(lambda model, gates, kept: ablate_edges(model, gates, places, kept).answer_logits(gates, batch))
    kept = np.ones(len(places), np.float32)
    plain = jax.jit(lambda model, gates: model.answer_logits(gates, batch))(model, gates)
    np.testing.assert_allclose(run(model, gates, kept), plain, rtol=1e-4, atol=1e-4)
    kept[: len(every) // 2] = 0
    assert not np.allclose(run(model, gates, kept), plain, atol=1e-2)


def test_a_head_without_a_closed_channel_keeps_its_edges() -> None:
    config = circuits_model.config()
    params = circuits_model.params(config)
    gates = circuits_model.random_gates(config, seed=1)
    gates["attn_v"][:] = 1
    gates["attn_v"][0, 1] = 0  # layer 0, head 0 has a closed channel
    every = ModelGraph(config.model, params).edges(to_vector(gates))
    may_go = {(e.source.layer, e.source.channel // 4) for e in every if e.target.site == "attn_out"}
    free = removable(config.model, every, gates)
    assert {(0, 0), (0, 1), (1, 0), (1, 1)} == may_go
    assert all(free[i] for i, e in enumerate(every) if e.target.site != "attn_out" or e.source[0:3:2] < (0, 4))
    assert not any(free[i] for i, e in enumerate(every) if e.target.site == "attn_out" and e.source[0:3:2] >= (0, 4))
    # An evaluator agrees: masks on edges that cannot go are ignored.
    model = gated_model(config, params, circuits_model.random_vectors(config))
    evaluator = Evaluator(model, circuits_model.batch(8, 0), NO_TOKENS)
    vector = circuits.gates_of(circuits.nodes_of(gates), config.model)
    stuck = np.array([[e.target.site != "attn_out" or e.source[0:3:2] < (0, 4) for e in every]], np.float32)
    flat = np.concatenate([vector[site].reshape(-1) for site in vector])[None]
    found = evaluator.logits(Masks(flat, edge_places(config.model, every), stuck))
    np.testing.assert_allclose(found, evaluator.logits(Masks(flat)), rtol=1e-4, atol=1e-4)


def test_node_is_a_plain_triple() -> None:
    assert list(Node(1, "attn_q", 3)) == [1, "attn_q", 3]
