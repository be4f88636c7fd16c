"""Resample ablation, q and k with one gate, one mask for several tasks: a search with all three, and its parts."""

import dataclasses
import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt.circuits import FoundCircuit, Problem, TaskBatch, find_circuit
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence import controls
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, from_vector, tied_nodes, to_vector
from sparse_gpt.circuits.problem import LoadedModel
from sparse_gpt.circuits.run.ablation_values import RESAMPLED, pretraining_draws
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator, Scores
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.circuits.run.samples import TaskSamples, share
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import interleave, joined, rows
from sparse_gpt.circuits.search import hyperparameters, mask_search, minimize, ranking
from sparse_gpt.circuits.search import select as selection
from sparse_gpt.circuits.search.minimize import minimize_nodes
from sparse_gpt.circuits.search.ranking import Trials
from sparse_gpt.circuits.search.select import select
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES
from sparse_gpt.interop.openai_config import to_fields
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.model.transformer import build
from tests import circuits_model, reference_model

SLOW_FIXTURES = {"result"}  # a whole search with its evidence: tests/budget.py
PRUNE = dataclasses.replace(circuits_model.SEARCH, random_draws=3, refine_trials=1, ablation="resample", tie_qk=True)
CONFIG = circuits_model.config(activation_fraction=0.5, prune=PRUNE)
PARAMS = circuits_model.params(CONFIG)
ANSWERS = {"one": (3, 7), "two": (5, 11)}
WINDOWS = np.random.default_rng(0).integers(0, circuits_model.VOCABULARY, (4, 8, 16)).astype(np.int32)


@functools.cache
def apart() -> dict[str, TaskSamples]:
    """Samples of each task, made when first asked for: not when tests are collected."""
    return {
        name: circuits_model.samples(CONFIG, PARAMS, 16, answers, shifted=name == "one")
        for name, answers in ANSWERS.items()
    }


@functools.cache
def together() -> TaskSamples:
    """Of both tasks."""
    return share(apart())


def _by_task(batch: TaskBatch) -> list[tuple[str, np.ndarray]]:
    """Rows of each task, by name."""
    return [(name, np.flatnonzero(batch.task == i)) for i, name in enumerate(together().names)]


@pytest.fixture(scope="module")
def draws() -> GateArrays:
    return pretraining_draws(build(CONFIG), PARAMS, WINDOWS, 1 + RESAMPLED + PRUNE.random_draws, seed=0)


@pytest.fixture(scope="module")
def result(draws: GateArrays) -> FoundCircuit:
    return find_circuit(Problem.build(LoadedModel(CONFIG, PARAMS, "ab" * 32), together(), draws), progress=False)


def _draw(draws: GateArrays, number: int) -> GateArrays:
    return {site: value[number] for site, value in draws.items()}


def _reference(batch: TaskBatch, gates: GateArrays, values: GateArrays) -> np.ndarray:
    """(B, 2) answer and foil logits by the reference model."""
    fields, weights = to_fields(CONFIG), to_tensors(CONFIG.model, PARAMS)
    support = reference_model.Support({site: gate > 0 for site, gate in gates.items()}, values)
    logits, _ = reference_model.forward(fields, weights, batch.tokens, support)
    choices = np.stack([batch.answer, batch.foil], axis=1)
    return np.take_along_axis(logits[np.arange(len(choices)), batch.positions], choices, axis=1)


@pytest.mark.slow
def test_a_draw_is_one_position_of_the_text(draws: GateArrays) -> None:
    """All nodes together, no position twice, all decided by the seed."""
    text = np.concatenate(list(WINDOWS))
    _, seen = reference_model.forward(to_fields(CONFIG), to_tensors(CONFIG.model, PARAMS), text)
    hooks = [reference_model.SITE_HOOKS[site].format(layer) for site in NODE_SITES for layer in range(2)]
    positions = np.concatenate([seen[hook].reshape(text.size, -1) for hook in hooks], axis=1)
    found = to_vector(draws)
    apart = np.max(np.abs(found[:, None, :] - positions[None]), axis=2)  # (draws, positions)
    nearest = np.argmin(apart, axis=1)
    assert apart[np.arange(len(found)), nearest].max() < 1e-3
    assert len(found) == 1 + RESAMPLED + 3
    # Windows that start with the same token start alike, so some positions cannot be told apart.
    assert (np.sum(nearest[:, None] == nearest, axis=1) <= np.sum(apart < 1e-3, axis=1)).all()
    assert len(set(nearest)) > RESAMPLED
    assert 0.2 < np.mean(nearest) / text.size < 0.8
    again, other = (to_vector(pretraining_draws(build(CONFIG), PARAMS, WINDOWS, len(found), seed)) for seed in (0, 1))
    np.testing.assert_array_equal(again, found)
    assert not np.array_equal(other, found)


@pytest.mark.slow
def test_a_search_step_has_its_draw_and_one_gate_for_q_and_k(draws: GateArrays) -> None:
    """Nothing is learned here, so each step's loss is that of the first gates, with the values of its own draw."""
    turns = {site: value[:3] for site, value in draws.items()}
    model = gated_model(CONFIG, PARAMS, _draw(draws, 9), turns)
    batch, h = (
        circuits_model.batch(24, seed=1),
        hyperparameters.population(dataclasses.replace(PRUNE, learning_rate=1e-9)),
    )
    h = h._replace(init_noise_scale=np.ones(2, np.float32), init_noise_bias=np.zeros(2, np.float32))
    may_open = searchable(CONFIG.model, PARAMS)
    prune = dataclasses.replace(PRUNE, steps=5, batch_pairs=4)
    problem = circuits_model.search_problem(dataclasses.replace(CONFIG, prune=prune), may_open, batch)
    problem = dataclasses.replace(problem, gated=model)
    found = mask_search.search(problem, h, progress=False, devices=jax.devices()[:1])
    np.testing.assert_array_equal(found.tau["attn_k"], found.tau["attn_q"])
    np.testing.assert_array_equal(found.attribution["attn_k"], found.attribution["attn_q"])
    for trial in range(2):
        gates = {site: (tau[trial] > 0).astype(np.float32) for site, tau in found.tau.items()}
        assert 0 < gates["attn_q"].sum() < gates["attn_q"].size
        np.testing.assert_array_equal(found.open_nodes[trial], to_vector(gates).sum())
        expected = [
            task_loss(_reference(rows(batch, (8 * step + np.arange(8)) % 24), gates, _draw(turns, step % 3)))
            for step in range(5)
        ]
        np.testing.assert_allclose(found.loss[trial], expected, rtol=1e-3)


@pytest.mark.slow
def test_samples_in_turn_have_the_values_of_their_draw(draws: GateArrays) -> None:
    model = gated_model(CONFIG, PARAMS, _draw(draws, 9), {site: value[:3] for site, value in draws.items()})
    batch = circuits_model.batch(ROWS + 12, seed=4)
    evaluator = Evaluator(model, batch, np.array([1, 2], np.int32))
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(3)])
    pieces = rows(batch, slice(ROWS)), rows(batch, slice(ROWS, None))
    expected = [
        np.concatenate([_reference(p, from_vector(g, CONFIG.model), _draw(draws, i)) for i, p in enumerate(pieces)])
        for g in sets
    ]
    np.testing.assert_allclose(evaluator.logits(Masks(sets)), expected, rtol=1e-3, atol=1e-3)
    scores = evaluator(Masks(sets))
    np.testing.assert_allclose(evaluator.losses_up_to(Masks(sets), 100.0), scores.loss, atol=1e-6)


@pytest.mark.slow
def test_the_loss_of_several_tasks_is_the_largest(draws: GateArrays) -> None:
    batch = together().heldout
    evaluator = Evaluator(gated_model(CONFIG, PARAMS, _draw(draws, 0)), batch, np.array([3, 5], np.int32))
    sets = np.stack([to_vector(circuits_model.random_gates(CONFIG, seed)) for seed in range(4)])
    scores = evaluator(Masks(sets))
    for i, logits in enumerate(scores.logits):
        shift = {3: scores.calibration.shift[i, 0], 5: scores.calibration.shift[i, 1]}
        own = scores.calibration.scale[i] * logits
        own[:, 0] += [shift.get(token, 0.0) for token in batch.answer]
        own[:, 1] += [shift.get(token, 0.0) for token in batch.foil]
        each = [task_loss(own[batch.task == task]) for task in (0, 1)]
        assert abs(each[0] - each[1]) > 1e-2
        assert scores.loss[i] == pytest.approx(max(each), abs=1e-5)
    bound = float(np.median(scores.loss))
    found = evaluator.losses_up_to(Masks(sets), bound)
    np.testing.assert_array_equal(found <= bound, scores.loss <= bound)


@pytest.mark.slow
def test_the_circuit_is_recomputed_from_its_files(result: FoundCircuit, draws: GateArrays, tmp_path: Path) -> None:
    result.save(tmp_path)
    tree = json.loads((tmp_path / "circuit.json").read_text())
    assert (tree["task"], tree["ablation"], tree["tie_qk"]) == ("one+two", "resample", True)
    assert load(tmp_path) == result.circuit
    with np.load(tmp_path / "ablation.npz") as stored:
        values = dict(stored)
    for site in NODE_SITES:
        np.testing.assert_array_equal(values[site], draws[site][0])

    def loss(batch: TaskBatch, values: GateArrays, **changes: Any) -> float:
        return task_loss(circuits_model.reference_answer_logits(CONFIG, PARAMS, batch, {**tree, **changes}, values))

    metrics = tree["metrics"]
    assert "shifted_task_loss" not in metrics  # one of the tasks has no other templates
    for entry, (name, own) in zip(tree["tasks"], _by_task(together().heldout), strict=True):
        assert entry["task"] == name
        assert entry["task_loss"] == pytest.approx(loss(rows(together().heldout, own), values), abs=5e-4)
    assert metrics["task_loss"] == pytest.approx(np.mean([entry["task_loss"] for entry in tree["tasks"]]))
    others = [loss(together().heldout, _draw(draws, 1 + RESAMPLED + i)) for i in range(PRUNE.random_draws)]
    assert result.search.resampled.task_loss == pytest.approx(others, abs=5e-3)
    assert metrics["resampled_task_loss"] == pytest.approx(np.mean(others), abs=5e-3)


def test_random_circuits_are_tied_as_the_circuit_is(result: FoundCircuit, draws: GateArrays) -> None:
    gates = to_vector(result.circuit.gates(CONFIG.model))
    drawn = controls.random_gates(gates, CONFIG.model, PRUNE.random_draws, PRUNE.seed, tie_qk=True)
    assert not np.array_equal(drawn, controls.random_gates(gates, CONFIG.model, PRUNE.random_draws, PRUNE.seed))
    logits = [_reference(together().heldout, from_vector(each, CONFIG.model), _draw(draws, 0)) for each in drawn]
    assert result.search.random_circuit.task_loss == pytest.approx([task_loss(x) for x in logits], abs=2e-3)


def test_every_task_reaches_the_target_where_sizes_are_chosen(result: FoundCircuit, draws: GateArrays) -> None:
    """On selection samples, whose first ROWS have the values of one draw and the others those of the next."""
    selection = joined([together().validation, together().train])
    assert result.reached
    tree = result.circuit.to_dict()
    pieces = (slice(ROWS), slice(ROWS, None))
    logits = np.concatenate(
        [
            circuits_model.reference_answer_logits(
                CONFIG, PARAMS, rows(selection, piece), tree, _draw(draws, 1 + number)
            )
            for number, piece in enumerate(pieces)
        ]
    )
    for task in (0, 1):
        assert task_loss(logits[selection.task == task]) <= PRUNE.target_loss * PRUNE.selection_margin * 1.02


def test_q_and_k_stay_together(result: FoundCircuit) -> None:
    q, k = ({(n.layer, n.channel) for n in result.circuit.nodes if n.site == site} for site in ("attn_q", "attn_k"))
    assert q == k
    assert q
    for curve in (result.search.loss_versus_size, *(b.loss_versus_size for b in result.search.baselines)):
        assert [point.nodes for point in curve] == sorted(point.nodes for point in curve)


def test_a_ranking_has_tied_nodes_side_by_side_and_no_truncation_parts_them() -> None:
    together = np.array([0, 3, 2, 1, 4])  # 1 and 3 share a gate
    tau, attribution = np.array([0.5, 1.0, 1.0, 1.0, -1.0]), np.zeros(5)
    order = ranking.rank(tau, attribution, np.ones(5), together)
    np.testing.assert_array_equal(order, [1, 3, 2, 0, 4])
    gates = ranking.truncate([order] * 5, np.arange(1, 6), together)
    np.testing.assert_array_equal(gates.sum(axis=1), [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(gates[:, 1], gates[:, 3])
    found = tied_nodes(CONFIG.model, tie_qk=True)
    np.testing.assert_array_equal(found[found], np.arange(len(found)))
    changed = from_vector(found != np.arange(len(found)), CONFIG.model)
    assert {site for site, value in changed.items() if value.any()} == {"attn_q", "attn_k"}
    np.testing.assert_array_equal(tied_nodes(CONFIG.model, tie_qk=False), np.arange(len(found)))


@pytest.mark.usefixtures("nothing_predicted")
def test_minimizing_removes_tied_nodes_together() -> None:
    """Loss: a k channel is needed, its q channel alone is not; and nothing else is."""
    graph = ModelGraph(CONFIG.model, PARAMS, tie_qk=True)
    needed = int(np.flatnonzero(to_vector({s: np.full((2, w), s == "attn_k") for s, w in _widths().items()}))[3])

    class Needs:
        def losses_up_to(self, masks: Masks, bound: float) -> np.ndarray:
            np.testing.assert_array_equal(masks.gates, masks.gates[:, graph.tied])
            return 1 - masks.gates[:, needed]

        def within_support(self, gates: np.ndarray) -> "Needs":
            return self

        def slopes(self, mask: Masks) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros(mask.gates.shape[1]), np.zeros(0)

        def margins(self, gates: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
            return np.zeros(2), np.zeros((2, len(gates))), None

    evaluator: Any = Needs()
    left = minimize_nodes(Support(graph, np.ones(len(graph.tied), np.float32)), evaluator, 0.5, lambda _: None)
    np.testing.assert_array_equal(np.flatnonzero(left.gates), sorted([needed, graph.tied[needed]]))


@pytest.fixture
def nothing_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluators made by hand have no model to predict with."""
    monkeypatch.setattr(minimize, "predictor", lambda evaluator, gates: None)


class Needs:
    """An evaluator. Loss: how many of the `needed` nodes are missing, and of the edges between open nodes."""

    def __init__(self, needed: np.ndarray):
        self.needed, self.edge_sets = needed, 0

    def within_support(self, gates: np.ndarray) -> "Needs":
        return self

    def hardest_first(self, mask: Masks) -> "Needs":
        return self

    def losses_up_to(self, masks: Masks, bound: float) -> np.ndarray:
        self.edge_sets += masks.kept is not None
        edges = 0.0 if masks.kept is None else np.sum(masks.kept == 0, axis=1)
        return np.sum(masks.gates[:, self.needed] == 0, axis=1) + edges

    def slopes(self, mask: Masks) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(mask.gates.shape[1]), np.zeros(len(mask.places))

    def margins(self, gates: np.ndarray) -> tuple[np.ndarray, np.ndarray, None]:
        return np.zeros(2), np.zeros((2, len(gates))), None


@pytest.mark.usefixtures("nothing_predicted")
def test_the_model_that_runs_candidates_follows_what_is_gone_not_what_was_tried() -> None:
    graph = ModelGraph(CONFIG.model, PARAMS)
    every = np.ones(len(graph.tied), np.float32)
    supports = [every]

    class Follows(Needs):
        def within_support(self, gates: np.ndarray) -> "Needs":
            if gates.sum() <= supports[-1].sum() / 2:
                supports.append(gates)
            return self

        def losses_up_to(self, masks: Masks, bound: float) -> np.ndarray:
            assert not np.any(masks.gates[:, supports[-1] == 0]), "masks of another support"
            return super().losses_up_to(masks, bound)

    # The last ones are needed, so that trying to remove all that are left fails.
    evaluator: Any = Follows(np.arange(len(every) - 60, len(every)))
    left = minimize_nodes(Support(graph, every), evaluator, 0.5, lambda _: None)
    np.testing.assert_array_equal(np.flatnonzero(left.gates), evaluator.needed)
    assert len(supports) == 2


def _nodes_and_problem(needed: int, **settings: Any) -> tuple[np.ndarray, Any]:
    """Searchable nodes in random order, of which the first `needed` are, and a problem."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(to_vector(searchable(CONFIG.model, PARAMS))))
    prune = dataclasses.replace(PRUNE, **settings)
    graph = ModelGraph(CONFIG.model, PARAMS)
    selection = Needs(order[:needed])
    return order, SimpleNamespace(
        graph=graph, settings=prune, selection=selection, selection_target=0.5, fresh=lambda most: iter(())
    )


def _trials(graph: ModelGraph, gates: np.ndarray) -> Trials:
    count, sizes = len(gates), gates.sum(axis=1).astype(int)
    edges = np.array([graph.count_edges(row) for row in gates])
    scores = Scores(np.zeros((count, 1, 2)), Calibration(np.ones(count), np.zeros((count, 0))), np.zeros(count))
    return Trials(np.zeros((count, 1)), sizes, edges, gates, np.ones(count, bool), scores)


def _gates(problem: Any, *sets: np.ndarray) -> np.ndarray:
    gates = np.zeros((len(sets), len(problem.graph.tied)), np.float32)
    for row, nodes in zip(gates, sets, strict=True):
        row[nodes] = 1
    return gates


@pytest.mark.usefixtures("nothing_predicted")
@pytest.mark.parametrize("kept", [False, True])
def test_what_ends_at_the_same_nodes_has_its_edges_minimized_once(kept: bool, tmp_path: Path) -> None:
    """Ten nodes and all edges between them are needed; two supports hold them and another ten each."""
    order, problem = _nodes_and_problem(10, refine_trials=2)
    gates = _gates(problem, order[:20], np.concatenate([order[:10], order[20:30]]))
    stages = Stages(tmp_path / "unfinished" if kept else None, {})
    selected = select(problem, _trials(problem.graph, gates), {}, stages)
    np.testing.assert_array_equal(np.flatnonzero(selected.support.gates), np.sort(order[:10]))
    assert set(selected.support.edges) == set(problem.graph.edges(selected.support.gates))
    once, problem.selection.edge_sets = problem.selection.edge_sets, 0
    select(problem, _trials(problem.graph, gates[:1]), {}, Stages())
    assert once == problem.selection.edge_sets > 0
    problem.selection.edge_sets = 0
    again = select(problem, _trials(problem.graph, gates), {}, Stages(stages.folder, {}))
    assert problem.selection.edge_sets == (0 if kept else once)  # what a stopped run has minimized is not done again
    assert again.start == selected.start
    assert again.support.edges == selected.support.edges
    np.testing.assert_array_equal(again.support.gates, selected.support.gates)


@pytest.mark.usefixtures("nothing_predicted")
def test_large_supports_are_not_minimized() -> None:
    """The first node is needed. Three supports hold it and 4, 9 or 19 others."""

    def found(most: int, other: bool = False) -> tuple[int, str, dict[str, int]]:
        order, problem = _nodes_and_problem(1, refine_trials=3, refine_most=most)
        gates = _gates(problem, order[:20], order[:10], order[:5])
        best, name, supports, *_ = select(
            problem, _trials(problem.graph, gates[:2]), {"other": gates[2]} if other else {}
        )
        return best, name, {stage: support.size for stage, support in supports.items()}

    assert found(10) == (1, "trial 1", {"search": 10, "nodes": 1, "edges": 1})
    assert found(9) == (1, "trial 1", {"search": 10})  # the one with the fewest edges, as it is
    assert found(9, other=True) == (1, "other", {"search": 5, "nodes": 1, "edges": 1})


@pytest.mark.usefixtures("nothing_predicted")
@pytest.mark.parametrize("edges", [True, False])
def test_of_many_edges_nodes_and_edges_are_removed_together(edges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten nodes, and all edges between them, are needed of twenty."""
    order, problem = _nodes_and_problem(10, edges=edges)
    gates = _gates(problem, order[:20])
    many = problem.graph.count_edges(gates[0])

    def found(limit: int) -> dict[str, Support]:
        monkeypatch.setattr(selection, "MANY", limit)
        return dict(select(problem, _trials(problem.graph, gates), {}).supports)

    together, apart = found(many - 1), found(many)
    assert list(apart) == ["search", "nodes", *(["edges"] if edges else [])]
    assert list(together) == (["search", "edges"] if edges else list(apart))
    for last in (found[list(found)[-1]] for found in (together, apart)):
        np.testing.assert_array_equal(np.flatnonzero(last.gates), np.sort(order[:10]))
        assert set(last.edges) == set(problem.graph.edges(last.gates))


def _widths() -> dict[str, int]:
    return {site: value.shape[1] for site, value in searchable(CONFIG.model, PARAMS).items()}


@pytest.mark.slow
def test_tasks_take_turns_pair_by_pair() -> None:
    first, second = circuits_model.batch(8, seed=1), circuits_model.batch(6, seed=2)
    both = interleave([first, second._replace(tokens=second.tokens[:, :6])])
    np.testing.assert_array_equal(both.task, np.tile([0, 0, 1, 1], 3))
    np.testing.assert_array_equal(both.answer[both.task == 0], first.answer[:6])
    np.testing.assert_array_equal(both.tokens[both.task == 1, :6], second.tokens[:, :6])
    assert not both.tokens[both.task == 1, 6:].any()
    assert isinstance(together(), TaskSamples)
    assert together().shifted is None
    for name, own in _by_task(together().heldout):
        batch = rows(together().heldout, own)._replace(task=None)
        jax.tree.map(np.testing.assert_array_equal, batch, apart()[name].heldout)
