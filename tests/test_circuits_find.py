"""From weights and samples to circuit.json, and the prune script."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt.circuits import (
    FoundCircuit,
    Problem,
    TaskSamples,
    find_circuit,
    full_task_loss,
    pretraining_means,
    storage,
)
from sparse_gpt.circuits.circuit import nodes_of
from sparse_gpt.circuits.evidence import baselines, controls
from sparse_gpt.circuits.evidence.controls import leave_one_out
from sparse_gpt.circuits.evidence.curves import loss_versus_size
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import empty, from_vector, to_vector
from sparse_gpt.circuits.problem import LoadedModel
from sparse_gpt.circuits.run import calibration, evaluator
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import agreement, task_loss
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_length, few, joined, rows, without_longest
from sparse_gpt.circuits.search import populations, ranking
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import model_comparison
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params
from sparse_gpt.records import Record
from tests import circuits_model

pytestmark = pytest.mark.optimized  # its searches take longer to run than to compile
SLOW_FIXTURES = {"result"}  # a whole search with its evidence: tests/budget.py
PRUNE = dataclasses.replace(circuits_model.SEARCH, k_coefs=(1e-3, 1e-2), refine_trials=2, seed=4)
CONFIG = circuits_model.config(activation_fraction=0.5, prune=PRUNE)
PARAMS = circuits_model.params(CONFIG)


def as_json(record: Record) -> dict[str, Any]:
    """A record as a JSON reader gives it."""
    return json.loads(json.dumps(record.tree()))


@functools.cache
def toy_samples() -> TaskSamples:
    """Made when first asked for: not when tests are collected, by every process of a parallel run."""
    return circuits_model.samples(CONFIG, PARAMS)


@pytest.fixture(scope="module")
def means() -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, circuits_model.VOCABULARY, (4, 8, 16)).astype(np.int32)
    return pretraining_means(build(CONFIG), PARAMS, tokens)


def token_text(token: int) -> str:
    return f"<{token}>"


def problem(
    means: dict[str, np.ndarray],
    config: Config = CONFIG,
    params: Params = PARAMS,
    samples: TaskSamples | None = None,
    token_text: Callable[[int], str] | None = None,
) -> Problem:
    model = LoadedModel(config, params, "ab" * 32, token_text)
    return Problem.build(model, samples or toy_samples(), means)


@pytest.fixture(scope="module")
def result(means: dict[str, np.ndarray]) -> FoundCircuit:
    return find_circuit(problem(means, token_text=token_text), progress=False)


@pytest.mark.slow
def test_every_loss_can_be_recomputed_from_the_files(result: FoundCircuit, tmp_path: Path) -> None:
    result.save(tmp_path)
    circuit = json.loads((tmp_path / "circuit.json").read_text())
    with np.load(tmp_path / "ablation.npz") as stored:
        ablation = dict(stored)
    metrics, heldout = circuit["metrics"], toy_samples().heldout
    assert circuit["edge_pruned"]

    def loss(**changes: object) -> float:
        changed = {**circuit, **changes}
        return task_loss(circuits_model.reference_answer_logits(CONFIG, PARAMS, heldout, changed, ablation))

    identity = {"scale": 1.0, "shift": []}
    kept = {(node["layer"], node["site"], node["channel"]) for node in circuit["nodes"]}
    every = [
        {"layer": layer, "site": site, "channel": channel}
        for site, value in empty(CONFIG.model).items()
        for layer, channel in np.ndindex(value.shape)
    ]
    others = [node for node in every if (node["layer"], node["site"], node["channel"]) not in kept]
    assert loss() == pytest.approx(metrics["task_loss"], abs=2e-4)
    assert loss(calibration=identity) == pytest.approx(metrics["task_loss_uncalibrated"], abs=2e-4)
    plain = {"calibration": identity, "edge_pruned": False}
    assert loss(nodes=others, **plain) == pytest.approx(metrics["ablated_task_loss"], abs=2e-3)
    assert loss(nodes=every, **plain) == pytest.approx(metrics["full_model_task_loss"], abs=2e-4)

    def logits(batch: TaskBatch, **changes: object) -> np.ndarray:
        return circuits_model.reference_answer_logits(CONFIG, PARAMS, batch, {**circuit, **changes}, ablation)

    assert toy_samples().shifted is not None
    for prefix, batch in (("", toy_samples().heldout), ("shifted_", toy_samples().shifted)):
        own, full = logits(batch), logits(batch, nodes=every, **plain)
        same = np.mean((own[:, 0] > own[:, 1]) == (full[:, 0] > full[:, 1]))
        assert metrics[f"{prefix}agreement"] == same
        assert metrics[f"{prefix}accuracy"] == np.mean(own[:, 0] > own[:, 1])
        assert metrics[f"{prefix}task_loss"] == pytest.approx(task_loss(own), abs=2e-4)
        assert metrics[f"{prefix}full_model_task_loss"] == pytest.approx(task_loss(full), abs=2e-4)
    assert metrics["shifted_task_loss"] != metrics["task_loss"]


def test_importance_is_the_loss_without_one_node_or_edge(result: FoundCircuit) -> None:
    tree, described = result.circuit.to_dict(), as_json(result.search)["importance"]

    def loss(nodes: list[dict[str, object]], edges: list[dict[str, object]]) -> float:
        changed = {**tree, "nodes": nodes, "edges": edges}
        values = dict(result.circuit.values)
        return task_loss(circuits_model.reference_answer_logits(CONFIG, PARAMS, toy_samples().heldout, changed, values))

    assert [{k: n[k] for k in ("layer", "site", "channel")} for n in described["nodes"]] == tree["nodes"]
    for i, node in enumerate(described["nodes"]):
        name = [node["layer"], node["site"], node["channel"]]
        edges = [e for e in tree["edges"] if name not in (e["from"], e["to"])]
        assert node["task_loss"] == pytest.approx(loss(tree["nodes"][:i] + tree["nodes"][i + 1 :], edges), abs=2e-3)
    assert 0 < len(described["edges"]) <= len(tree["edges"])
    for edge in described["edges"]:
        ends = (edge["from"], edge["to"])
        rest = [e for e in tree["edges"] if (e["from"], e["to"]) != ends]
        assert len(rest) == len(tree["edges"]) - 1
        assert edge["task_loss"] == pytest.approx(loss(tree["nodes"], rest), abs=2e-3)
    assert max(item["task_loss"] for item in described["nodes"]) > 2 * result.circuit.metrics["task_loss"]


def test_the_circuit_is_minimal_on_selection_samples(result: FoundCircuit) -> None:
    selection = joined([toy_samples().validation, toy_samples().train])
    target = PRUNE.selection_margin * PRUNE.target_loss
    circuit, stages = result.circuit, as_json(result.search)["stages"]
    assert result.reached
    assert [stage["stage"] for stage in stages] == ["search", "nodes", "edges"]
    sizes = [(stage["nodes"], stage["edges"]) for stage in stages]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == (len(circuit.nodes), len(circuit.edges)) == (circuit.metrics["nodes"], circuit.metrics["edges"])

    def loss(nodes: list[object], edges: list[object]) -> float:
        tree = {**circuit.to_dict(), "nodes": nodes, "edges": edges}
        return task_loss(circuits_model.reference_answer_logits(CONFIG, PARAMS, selection, tree, dict(circuit.values)))

    tree = circuit.to_dict()
    assert loss(tree["nodes"], tree["edges"]) <= target + 1e-4
    # Minimality is with a calibration of its own for every candidate, so it can only be stricter with this one.
    for gone in tree["edges"]:
        assert loss(tree["nodes"], [edge for edge in tree["edges"] if edge != gone]) > target - 1e-4


def test_search_record(result: FoundCircuit) -> None:
    record = as_json(result.search)
    assert record["format"] == "sparse_gpt.search/1"
    assert [trial["k_coef"] for trial in record["trials"]] == pytest.approx([1e-3, 1e-2] * 2)
    assert [trial["trial"] for trial in record["trials"]] == [0, 1, 2, 3]
    assert record["history"][-1]["step"] == 29
    assert len(record["history"][0]["loss"]) == len(record["history"][0]["open_nodes"]) == 4
    curve = record["loss_versus_size"]
    assert curve[0]["nodes"] == 1
    assert curve[-1]["task_loss"] < 0.1 < curve[0]["task_loss"]
    assert len(record["random_circuit"]["task_loss"]) == 4
    points = record["size_versus_target"]["points"]
    assert [p["target_loss"] for p in points] == [0.5, 0.3, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005]
    reached = [p for p in points if p["reached"]]
    assert len(reached) >= 3
    assert [p["nodes"] for p in reached] == sorted(p["nodes"] for p in reached)
    chosen = record["trials"][record["best_trial"]]  # cut at half of 0.3, which is one of the targets
    assert [p["nodes"] for p in points if p["target_loss"] == 0.15] == [chosen["nodes"]]
    for p in reached:  # what the coarse curve knows brackets every size
        assert min(c["nodes"] for c in curve if c["selection_task_loss"] <= p["target_loss"]) >= p["nodes"]
    assert result.circuit.metrics["random_circuit_task_loss"] == np.median(record["random_circuit"]["task_loss"])
    json.dumps(record, allow_nan=False)


def test_baselines_are_cut_at_the_same_target(result: FoundCircuit) -> None:
    described = {entry["ranking"]: entry for entry in as_json(result.search)["baselines"]}
    assert list(described) == ["attribution", "integrated_gradients", "weight_magnitude", "random"]
    target = PRUNE.selection_margin * PRUNE.target_loss
    learned = as_json(result.search)["trials"][as_json(result.search)["best_trial"]]["nodes"]
    for entry in described.values():
        assert entry["reached"]
        assert entry["edges"] > 0
        curve = entry["loss_versus_size"]
        enough = [point["nodes"] for point in curve if point["selection_task_loss"] <= target]
        assert max([0, *(p["nodes"] for p in curve if p["nodes"] < enough[0])]) < entry["nodes"] <= enough[0]
        assert entry["task_loss"] < 0.3
    starts = {f"trial {t['trial']}": t["edges"] for t in as_json(result.search)["trials"] if t["reached"]}
    starts |= {entry["ranking"]: entry["edges"] for entry in described.values()}
    few = sorted(starts.values())[PRUNE.refine_trials - 1]  # what is refined has few edges, wherever it came from
    assert as_json(result.search)["stages"][0]["edges"] == starts[as_json(result.search)["refined_from"]] <= few
    assert learned < described["random"]["nodes"]  # gradients rank this random model's nodes hardly better than chance


@pytest.mark.slow
def test_the_searches_alone(
    result: FoundCircuit, means: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the frontier compares is the smallest of a search's trials, found once for these weights."""
    opened: list[str] = []

    def run(folder: Path, config: Config) -> SimpleNamespace:
        del folder, config
        opened.append("" if len(opened) < 2 else "other weights")

        def activations() -> dict[str, np.ndarray]:
            if len(opened) == 2:
                raise AssertionError("searched again")
            return means

        return SimpleNamespace(
            config=dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, **AT_TARGET)),
            params=PARAMS,
            params_sha256=opened[-1],
            tokenizer=None,
            token_text=None,
            pretraining_activations=activations,
        )

    AT_TARGET = {name.removeprefix("prune."): value for name, value in model_comparison.AT_TARGET.items()}
    monkeypatch.setattr(model_comparison, "Workdir", run)
    monkeypatch.setattr(configs, "load", lambda folder: CONFIG)
    monkeypatch.setattr(model_comparison, "find", lambda name: name)
    monkeypatch.setattr(model_comparison, "task_samples", lambda *_: toy_samples())
    rows, again, anew = (model_comparison.searched_sizes(tmp_path, ["copy"]) for _ in range(3))
    assert rows == again == anew
    assert json.loads((tmp_path / "sizes" / "copy.json").read_text())["made_for"]["params_sha256"] == "other weights"
    assert [row["target_loss"] for row in rows] == [0.5, 0.3, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005]
    ready = problem(means, dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, selection_margin=1.0)))
    trials = populations.search(ready, progress=False).trials
    order, cut = trials.orders[np.argmin(trials.edges)], rows[1]  # trials are cut at PRUNE's target, 0.3
    assert (cut["task"], cut["reached"]) == ("copy", True)
    gates = ranking.truncate([order] * 2, np.array([cut["nodes"], cut["nodes"] - 1]), ready.graph.tied)
    assert cut["edges"] == ready.graph.count_edges(gates[0])
    enough, fewer = ready.selection(Masks(gates)).loss
    assert enough <= 0.3 < fewer
    trials = populations.search(problem(means), progress=False).trials
    assert trials.edges.tolist() == [trial["edges"] for trial in as_json(result.search)["trials"]]


@pytest.mark.slow
def test_evidence_is_the_same_within_the_support(
    result: FoundCircuit, means: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "WORTH_COMPILING", 0)
    monkeypatch.setattr(evaluator, "FEW", 1)
    ready, circuit = problem(means), result.circuit
    support = Support(ready.graph, to_vector(circuit.gates(CONFIG.model)), circuit.edges)
    within = ready.within(support)
    assert None not in (within.selection.subcircuits, within.heldout.subcircuits)
    fitted = calibration.Calibration(np.float32(circuit.scale), np.array([value for _, value in circuit.shift]))
    worth, described = leave_one_out(within, Candidate(support, fitted, reached=True)), result.search
    for part in ("nodes", "edges"):
        losses = [[item.task_loss for item in getattr(each, part)] for each in (worth, described.importance)]
        np.testing.assert_allclose(*losses, atol=1e-4)
    drawn = controls.redrawn_weights(within, support)
    for part in ("task_loss", "task_loss_calibrated"):
        np.testing.assert_allclose(getattr(drawn, part), getattr(described.redrawn_values, part), atol=1e-3)


@pytest.mark.slow
def test_rankings_at_every_target(result: FoundCircuit, means: dict[str, np.ndarray]) -> None:
    """What the experiment finds for many targets is, at the search's own, what the search found."""
    found = baselines.at_targets(problem(means))
    kept = {entry.ranking: entry for entry in result.search.baselines}
    assert [entry.ranking for entry in found] == list(kept)
    for entry in found:
        (point,) = (p for p in entry.points if p.target_loss == PRUNE.selection_margin * PRUNE.target_loss)
        same = kept[entry.ranking]
        assert (point.nodes, point.edges, point.reached) == (same.nodes, same.edges, same.reached)
        assert point.task_loss == pytest.approx(same.task_loss, abs=1e-5)


@pytest.mark.slow
def test_the_loss_without_the_first_nodes_is_that_of_the_reference(means: dict[str, np.ndarray]) -> None:
    ready = problem(means)
    order = np.random.default_rng(0).permutation(ready.heldout.nodes)
    curve = loss_versus_size(ready, order, points=8)
    tree = {"norm": "live", "edge_pruned": False, "edges": [], "calibration": {"scale": 1.0, "shift": []}}
    assert len({round(point.ablated_task_loss, 3) for point in curve}) > 3
    for point in curve:
        left = np.ones(len(order), np.float32)
        left[order[: point.nodes]] = 0
        nodes = [node._asdict() for node in nodes_of(from_vector(left, CONFIG.model))]
        logits = circuits_model.reference_answer_logits(
            CONFIG, PARAMS, toy_samples().heldout, tree | {"nodes": nodes}, means
        )
        assert point.ablated_task_loss == pytest.approx(task_loss(logits), abs=2e-3)


def test_redrawn_values(result: FoundCircuit) -> None:
    """They stand at the circuit's edges, come from the same matrix, and the circuit does not survive them."""
    graph = ModelGraph(CONFIG.model, PARAMS)
    support = Support(graph, to_vector(result.circuit.gates(CONFIG.model)), result.circuit.edges)
    drawn, every = controls.redraw_weights(support, draws=5, seed=1), graph.edges(support.gates)
    assert drawn.kept is not None
    kept, changed = drawn.kept, 0
    for i, edge in enumerate(every):
        new = kept[:, i] * edge.weight
        if edge not in support.edges:
            assert (new == 0).all()
            continue
        pool = graph.matrix(edge.target.site, edge.target.layer)
        assert np.isclose(new[:, None], pool[pool != 0][None], rtol=1e-5).any(axis=1).all()
        changed += not np.allclose(new, edge.weight)
    assert changed > len(support.edges) / 2
    described, metrics = as_json(result.search)["redrawn_values"], result.circuit.metrics
    assert len(described["task_loss"]) == described["draws"] == 4
    assert metrics["redrawn_values_task_loss_calibrated"] > 1.1 * metrics["task_loss"]
    assert (
        metrics["redrawn_values_task_loss"]
        == described["quantiles"]["task_loss"][1]
        == np.median(described["task_loss"])
    )


def test_losses_with_redrawn_values_are_those_of_the_reference_model(result: FoundCircuit) -> None:
    """Every draw is run by the reference, whose edges carry the new value's multiple of what their source adds."""
    graph = ModelGraph(CONFIG.model, PARAMS)
    support = Support(graph, to_vector(result.circuit.gates(CONFIG.model)), result.circuit.edges)
    drawn, every = controls.redraw_weights(support, PRUNE.random_draws, PRUNE.seed), graph.edges(support.gates)
    assert drawn.kept is not None
    tree = {**result.circuit.to_dict(), "calibration": {"scale": 1.0, "shift": []}}
    described, selection = (
        as_json(result.search)["redrawn_values"],
        joined([toy_samples().validation, toy_samples().train]),
    )
    shifted = np.array(sorted(circuits_model.ANSWERS), np.int32)
    index = {"selection": calibration.choice_index(selection, shifted)}
    index["heldout"] = calibration.choice_index(toy_samples().heldout, shifted)
    assert any(edge.target.site == "attn_out" for edge in every)  # what goes through attention is the hard part
    for draw, factors in enumerate(drawn.kept):
        edges = [
            {"from": list(edge.source), "to": list(edge.target), "factor": float(factor)}
            for edge, factor in zip(every, factors[: len(every)], strict=True)
        ]
        heldout, chosen = (
            circuits_model.reference_answer_logits(
                CONFIG, PARAMS, batch, {**tree, "edges": edges}, dict(result.circuit.values)
            )
            for batch in (toy_samples().heldout, selection)
        )
        assert described["task_loss"][draw] == pytest.approx(task_loss(heldout), abs=2e-3)
        scale, shift, _ = calibration.fit_many(chosen[None].astype(np.float32), index["selection"], len(shifted))
        corrected = calibrate(heldout, calibration.Calibration(scale[0], shift[0]), index["heldout"])
        assert described["task_loss_calibrated"][draw] == pytest.approx(task_loss(corrected), abs=5e-3)


def test_values_redrawn_from_equal_ones_change_nothing(result: FoundCircuit) -> None:
    """Every nonzero weight the same: then each draw is the circuit itself, edges removed and not."""
    flat = jax.tree.map(lambda x: np.where(x != 0, np.float32(0.5), 0), PARAMS)
    graph, kept = ModelGraph(CONFIG.model, flat), {(e.source, e.target) for e in result.circuit.edges}
    every = graph.edges(to_vector(result.circuit.gates(CONFIG.model)))
    edges = tuple(edge for edge in every if (edge.source, edge.target) in kept)
    support = Support(graph, to_vector(result.circuit.gates(CONFIG.model)), edges)
    drawn = controls.redraw_weights(support, draws=3, seed=0)
    expected = [(edge.source, edge.target) in kept for edge in every]
    assert 0 < sum(expected) < len(every)
    np.testing.assert_array_equal(drawn.kept, np.repeat([expected], 3, axis=0))


def test_used_edges_and_paths(result: FoundCircuit) -> None:
    described, circuit = result.circuit.to_dict()["bookkeeping"], result.circuit
    for entry, node in zip(described["nodes"], circuit.nodes, strict=True):
        assert (entry["layer"], entry["site"], entry["channel"]) == node
        assert entry["used_edges"] == sum((edge.source == node) + (edge.target == node) for edge in circuit.edges)
        assert entry["used_edges"] <= entry["total_edges"]
    v = next(n for n in described["nodes"] if n["site"] == "attn_v")
    attention, channel = PARAMS[f"h_{v['layer']}"]["attn"], v["channel"]
    into, out = attention["c_attn"]["kernel"][:, 2 * 8 + channel], attention["c_proj"]["kernel"][channel]
    assert v["total_edges"] == np.count_nonzero(into) + np.count_nonzero(out)
    assert described["paths"]["count"] > described["paths"]["chains"] > 0
    strengths = [path["strength"] for path in described["paths"]["strongest"]]
    assert strengths == sorted(strengths, reverse=True)
    assert all(path["token"] == f"<{path['token_id']}>" for path in described["paths"]["strongest"])


def test_traces(result: FoundCircuit) -> None:
    assert result.traces is not None
    sample = as_json(result.traces)["samples"][0]
    length = toy_samples().heldout.positions[0] + 1
    assert sample["tokens"] == [f"<{token}>" for token in toy_samples().heldout.tokens[0, :length]]
    assert {len(row) for row in sample["values"].values()} == {length}
    assert set(sample["values"]) == {f"{n.layer}.{n.site}.{n.channel}" for n in result.circuit.nodes}
    for weights in sample["attention"].values():
        assert np.shape(weights) == (length, length)
        assert (np.triu(weights, 1) == 0).all()
        assert (np.sum(weights, axis=1) < 1).all()  # the sink has its share
    both = [[s["logit_difference_circuit"], s["answer"]] for s in as_json(result.traces)["samples"]]
    assert all(difference > -5 for difference, _ in both)
    json.dumps(as_json(result.traces), allow_nan=False)


def test_traces_agree_with_the_reported_logits(result: FoundCircuit) -> None:
    assert result.traces is not None
    tree = result.circuit.to_dict()
    few = rows(toy_samples().heldout, slice(6))
    expected = circuits_model.reference_answer_logits(CONFIG, PARAMS, few, tree, dict(result.circuit.values))
    found = [sample["logit_difference_circuit"] for sample in as_json(result.traces)["samples"]]
    np.testing.assert_allclose(found, expected[:, 0] - expected[:, 1], rtol=1e-3, atol=1e-3)


def test_a_circuit_is_kept_only_for_the_same_weights_and_settings(result: FoundCircuit, tmp_path: Path) -> None:
    folder, unfinished = tmp_path / "circuits" / "toy", tmp_path / "searches" / "toy"
    unfinished.mkdir(parents=True)
    assert not storage.is_complete(folder, "ab" * 32, PRUNE)
    storage.finish(result, unfinished, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["circuits"]
    assert storage.is_complete(folder, "ab" * 32, PRUNE)
    assert not storage.is_complete(folder, "cd" * 32, PRUNE)
    assert not storage.is_complete(folder, "ab" * 32, dataclasses.replace(PRUNE, target_loss=0.2))
    search = json.loads((folder / "search.json").read_text())
    del search["hyperparameters"]["tune_trials"]  # as a search wrote it before there was tuning
    (folder / "search.json").write_text(json.dumps(search))
    assert storage.is_complete(folder, "ab" * 32, PRUNE)
    assert not storage.is_complete(folder, "ab" * 32, dataclasses.replace(PRUNE, tune_trials=8))
    for name in ("circuit.json", "ablation.npz", "search.json", "traces.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        assert not storage.is_complete(folder, "ab" * 32, PRUNE) or name == "traces.json"
        (folder / name).unlink()
        assert not storage.is_complete(folder, "ab" * 32, PRUNE)
        (folder / name).write_bytes(whole)


def test_a_circuit_is_replaced_whole(result: FoundCircuit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, unfinished = tmp_path / "circuits" / "toy", tmp_path / "searches" / "toy"
    (tmp_path / "searches" / "other").mkdir(parents=True)
    for directory in (folder, unfinished):
        directory.mkdir(parents=True)
        (directory / "old.txt").write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FoundCircuit, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.finish(result, unfinished, folder)
    assert (folder / "old.txt").exists()
    assert (unfinished / "old.txt").exists()
    storage.finish(result, unfinished, folder)
    assert not (folder / "old.txt").exists()
    assert storage.is_complete(folder, "ab" * 32, PRUNE)
    assert [path.name for path in (tmp_path / "searches").iterdir()] == ["other"]


@pytest.mark.slow
def test_same_seed_same_circuit(result: FoundCircuit, means: dict[str, np.ndarray]) -> None:
    again = find_circuit(problem(means), progress=False)
    assert again.circuit == result.circuit
    assert again.traces is None


@pytest.mark.slow
def test_a_task_beyond_the_model_is_refused(means: dict[str, np.ndarray]) -> None:
    swapped = toy_samples().validation._replace(
        answer=toy_samples().validation.foil, foil=toy_samples().validation.answer
    )
    with pytest.raises(
        InputError, match=r"task toy: the model itself has task loss .* above --config.prune.target_loss=0.3"
    ):
        find_circuit(problem(means, samples=dataclasses.replace(toy_samples(), validation=swapped)), progress=False)


def strict(text: str) -> object:
    """Parsed JSON; NaN and infinities, which JSON has none of, fail."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
def test_where_biases_alone_are_enough_and_every_gate_closes_there_is_an_empty_circuit(
    means: dict[str, np.ndarray], tmp_path: Path
) -> None:
    prune = dataclasses.replace(PRUNE, target_loss=1e6, k_coefs=(1e6, 1e9))
    config = dataclasses.replace(CONFIG, prune=prune)
    found = find_circuit(problem(means, config, token_text=token_text), progress=False)
    assert found.reached
    assert (found.circuit.nodes, found.circuit.edges) == ((), ())
    assert found.search.history[-1].open_nodes == (0,) * 4
    assert found.circuit.metrics["random_circuit_task_loss"] == found.circuit.metrics["task_loss_uncalibrated"]
    found.save(tmp_path)
    for path in tmp_path.glob("*.json"):
        strict(path.read_text())


@pytest.mark.slow
def test_logits_that_overflow_where_nothing_is_chosen_give_a_result(
    means: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """The last token of reported samples has logits at the end of float32, and a calibration scales them further."""
    config = dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, target_loss=1e6))
    bigram = np.array(PARAMS["bigram"])
    bigram[0, list(circuits_model.ANSWERS)] = np.float32([3.3e38, -3.3e38])

    def ending(name: str, token: int) -> TaskBatch:
        batch = getattr(toy_samples(), name)
        tokens = np.array(batch.tokens)
        tokens[np.arange(len(tokens)), batch.positions] = token
        return batch._replace(tokens=tokens)

    overflowing = TaskSamples(ending("train", 1), ending("validation", 1), ending("heldout", 0), ending("shifted", 0))
    params = {**PARAMS, "bigram": bigram}
    found = find_circuit(problem(means, config, params, overflowing, token_text), progress=False)
    for name in ("task_loss", "shifted_task_loss"):
        assert 1e29 < found.circuit.metrics[name] < 1e32
    found.save(tmp_path)
    for path in tmp_path.glob("*.json"):
        strict(path.read_text())


def test_a_model_whose_logits_are_not_numbers_solves_nothing(means: dict[str, np.ndarray]) -> None:
    infinite = {**PARAMS, "final_logits_bias": np.full_like(PARAMS["final_logits_bias"], np.inf)}
    broken = {**infinite, "bigram": np.full_like(PARAMS["bigram"], -np.inf)}
    with pytest.raises(InputError, match=r"the model itself has task loss 2e\+30 .* above"):
        find_circuit(problem(means, params=broken), progress=False)


def test_activations_that_are_not_finite_are_refused(means: dict[str, np.ndarray]) -> None:
    broken = {**means, "mlp_out": np.full_like(means["mlp_out"], np.nan)}
    with pytest.raises(InputError, match="activations on pretraining text are not finite"):
        problem(broken)


def test_mean_ablation_needs_means() -> None:
    with pytest.raises(InputError, match="needs mean activations"):
        Problem.build(LoadedModel(CONFIG, PARAMS), toy_samples())


def test_agreement_counts_equal_choices_right_or_wrong() -> None:
    one, other = np.array([[1, 0], [0, 1], [1, 0], [0, 2]]), np.array([[9, 0], [0, 1], [0, 3], [5, 2]])
    assert agreement(one, other) == 0.5
    assert agreement(one, one) == 1


def test_full_task_loss() -> None:
    assert full_task_loss(CONFIG, PARAMS, toy_samples().heldout) < 0.1


def test_samples_for_selection_and_search() -> None:
    lengths = np.repeat([3, 9, 5, 20, 8, 7, 6, 4, 2, 30], 2)
    batch = TaskBatch(np.ones((20, 40), np.int32), lengths - 1, np.arange(20), np.arange(20) + 100)
    shorter = without_longest(batch)
    assert shorter.tokens.shape == (18, 24)  # 20 is the longest of nine in ten; its multiple of 8 is 24
    np.testing.assert_array_equal(shorter.answer, [i for i in range(20) if lengths[i] < 30])
    ordered = by_length(batch)
    np.testing.assert_array_equal(ordered.positions + 1, np.sort(lengths))
    np.testing.assert_array_equal(ordered.answer[::2] % 2, 0)
    np.testing.assert_array_equal(ordered.answer[1::2], ordered.answer[::2] + 1)
    np.testing.assert_array_equal(few(ordered, 20), np.arange(20))
    np.testing.assert_array_equal(rows(ordered, few(ordered, 19)).positions + 1, np.sort(lengths)[:18])
    np.testing.assert_array_equal(rows(ordered, few(ordered, 4)).positions + 1, [2, 2, 20, 20])
