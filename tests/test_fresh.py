"""Fresh samples accept a minimized circuit or have nodes given back, in a model whose circuit is known."""

import dataclasses
import functools
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sparse_gpt.circuits import FoundCircuit, find_circuit, summary
from sparse_gpt.circuits.circuit import Node, gates_of
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run import objective
from sparse_gpt.circuits.run.calibration import calibrate, choice_index
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import joined, rows
from sparse_gpt.circuits.search import fresh, integrated_gradients, select
from sparse_gpt.circuits.search.fresh import Held
from sparse_gpt.circuits.search.ranking import Trials
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.records import Search
from sparse_gpt.records.search import FreshCheck
from tests import ground_truth
from tests.ground_truth import CLEAN, SHORTCUT, TRUE

ATTENTION = {Node(1, "attn_in", 5), Node(1, "attn_k", 0)}  # what the shortcut, an average, does without
NOISE = tuple(Node(0, "mlp_neuron", channel) for channel in range(10, 24))


@functools.cache
def made(search: str = "path", noisy: bool = False, tie_qk: bool = False) -> Problem:
    """The marks, selected on samples without noisy words (or with them); all further training samples have them."""
    config = ground_truth.config(dataclasses.replace(ground_truth.PRUNE, search=search, tie_qk=tie_qk))
    first = ground_truth.batch("train", 64, 0, noisy=noisy)
    samples = TaskSamples(
        joined([first, ground_truth.batch("train", 192, 4)]),
        ground_truth.batch("train", 64, 1, noisy=noisy),
        ground_truth.batch("heldout", 64, 2),
    )
    return Problem.build(LoadedModel(config, ground_truth.params(config.model), "by hand"), samples)


def _support(problem: Problem, nodes: tuple[Node, ...]) -> Support:
    return Support(problem.graph, to_vector(gates_of(nodes, problem.graph.config)))


def _found(problem: Problem, nodes: tuple[Node, ...], stages: Stages | None = None) -> tuple[Held, list[str]]:
    said: list[str] = []
    minimize = functools.partial(select._minimize, problem, stages or Stages(), said.append)
    start = _support(problem, nodes)
    return fresh.minimized_until_it_holds(problem, start, problem.selection, minimize, said.append), said


def _nodes(problem: Problem, support: Support) -> set[Node]:
    kept = {edge.source for edge in support.edges}
    return kept | {edge.target for edge in support.edges}


@pytest.mark.slow
def test_a_shortcut_gets_back_what_it_lacks_on_fresh_samples() -> None:
    problem = made()
    (supports, joined_samples, checks), said = _found(problem, (*TRUE, *NOISE))
    assert list(supports) == ["nodes", "edges", "given back 1", "edges 1"]
    assert not ATTENTION & _nodes(problem, supports["edges"]), "else the selection had no shortcut"
    assert set(TRUE) >= _nodes(problem, supports["edges 1"]) >= ATTENTION
    assert supports["given back 1"].size <= len(TRUE) + 3, "the steepest slopes are not those of noise"
    assert any("nodes and" in line and "edges given back" in line for line in said)
    (check,) = checks
    assert (check.accepted, check.given_back) == (False, supports["given back 1"].size - supports["edges"].size)
    assert check.task_loss > problem.settings.target_loss
    assert joined_samples is not None
    (batch,) = fresh.fresh_samples(problem, 1)
    every_second = [row for pair in range(0, len(batch.positions) // 2, 2) for row in (2 * pair, 2 * pair + 1)]
    np.testing.assert_array_equal(joined_samples.tokens, batch.tokens[every_second])
    last = supports["edges 1"]
    calibration = problem.selecting_on(joined_samples).candidate(last).calibration
    logits = calibrate(problem.heldout.logits(last.masks)[0], calibration, problem.heldout.index)
    assert objective.largest_loss(logits, problem.heldout.batch) < problem.settings.target_loss


@pytest.mark.slow
def test_what_is_given_back_holds_and_without_it_nothing_does() -> None:
    problem = made()
    (supports, _, _), _ = _found(problem, (*TRUE, *NOISE))
    back = supports["given back 1"]
    evaluator = problem.selection
    (batch,) = fresh.fresh_samples(problem, 1)
    for fewer in (supports["edges"].gates, supports["nodes"].gates):
        assert np.all(back.gates >= fewer)
        loss, order = fresh._loss(Support(problem.graph, fewer).masks, evaluator, evaluator.on(batch))
        assert loss > problem.settings.target_loss
    enlarged = evaluator.and_on(rows(batch, np.arange(len(order)) // 2 % 2 == 0))
    assert fresh._loss(back.masks, enlarged, evaluator.on(batch))[0] <= problem.settings.target_loss
    assert enlarged(back.masks).loss[0] <= problem.selection_target
    assert enlarged(supports["edges 1"].masks).loss[0] <= problem.selection_target
    assert sorted(order) == list(range(len(batch.positions)))
    np.testing.assert_array_equal(order[::2] + 1, order[1::2])


@pytest.mark.slow
def test_what_is_given_back_is_at_the_target_of_the_larger_selection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = made()
    (batch,) = fresh.fresh_samples(problem, 1)
    monkeypatch.setattr(fresh, "_loss", lambda *args: (0.0, None))  # fresh samples say yes to everything
    start, short = _support(problem, (*TRUE, *NOISE)), _support(problem, SHORTCUT)
    enlarged = problem.selection.and_on(batch)
    larger = fresh.give_back(problem, short, start, enlarged, problem.selection.on(batch))
    assert larger is not None
    assert enlarged(larger.masks).loss[0] <= problem.selection_target
    assert enlarged(short.masks).loss[0] > problem.selection_target


def _pruned(problem: Problem, nodes: tuple[Node, ...]) -> Support:
    """All but the first two edges between nodes."""
    whole = _support(problem, nodes)
    return dataclasses.replace(whole, pruned_to=whole.edges[2:])


def test_further_nodes_bring_their_edges_and_pruned_ones_stay_so() -> None:
    problem, further = made(), Node(0, "mlp_neuron", 10)
    short, graph = _pruned(problem, SHORTCUT), problem.graph
    larger = fresh.with_nodes(short, _support(problem, (*SHORTCUT, further)).gates)
    assert set(larger.edges) > set(short.edges)
    assert all(further in (edge.source, edge.target) for edge in set(larger.edges).difference(short.edges))
    assert len(graph.edges(larger.gates)) == len(larger.edges) + 2
    whole = fresh.with_nodes(_support(problem, SHORTCUT), larger.gates)
    assert whole.pruned_to is None
    np.testing.assert_array_equal(whole.gates, larger.gates)


def test_edges_that_cannot_be_removed_from_a_filled_head_come_back_with_its_last_node() -> None:
    problem = made()
    values, written = [Node(1, "attn_v", i) for i in range(4)], [Node(1, "attn_out", i) for i in range(16)]
    whole = _support(problem, (*values[:3], Node(1, "attn_v", 4), *written))
    short = dataclasses.replace(whole, pruned_to=())
    larger = fresh.with_nodes(short, _support(problem, (*values, Node(1, "attn_v", 4), *written)).gates)
    of_head = [edge for edge in larger.every if edge.source.channel < 4]
    assert 0 < len(of_head) < len(larger.every)
    assert set(larger.edges) == set(of_head)
    np.testing.assert_array_equal(larger.kept, [edge.source.channel < 4 for edge in larger.every])


def test_as_little_as_holds_comes_back_with_pruned_edges_or_without(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, tried = made(), []
    start, short, graph = _support(problem, (*TRUE, *NOISE)), _pruned(problem, SHORTCUT), problem.graph
    every = len(short.edges) + 2

    def holds(problem: Problem, one: Masks, *rest: object) -> bool:
        gates = one.gates[0]
        pruned = 0 if one.kept is None else int((one.kept == 0).sum())
        tried.append((int(gates.sum()), graph.count_edges(gates) - pruned, pruned))
        return gates.sum() > len(SHORTCUT) + 3 and not pruned

    monkeypatch.setattr(fresh, "_holds", holds)
    (batch,) = fresh.fresh_samples(problem, 1)
    back = fresh.give_back(problem, short, start, problem.selection.and_on(batch), problem.selection.on(batch))
    assert back is not None
    assert (back.size, back.pruned_to) == (len(SHORTCUT) + 4, None)
    assert tried[0] == (len(SHORTCUT), every - 2, 2)
    assert (len(SHORTCUT), every, 0) in tried
    items = [nodes + edges for nodes, edges, _ in tried]
    assert items == sorted(items)
    assert {pruned for *_, pruned in tried} == {0, 2}


def test_the_upper_end_counts_in_a_path_search_alone() -> None:
    assert made().selection.upper_share == made().settings.selection_margin
    assert made("paper").selection.upper_share == made().heldout.upper_share == 0


def test_what_holds_is_accepted_as_it_is() -> None:
    (supports, joined_samples, checks), said = _found(made(noisy=True), (*TRUE, *NOISE))
    assert list(supports) == ["nodes", "edges"]
    assert joined_samples is None
    assert not any("fresh" in line for line in said)
    assert [check.accepted for check in checks] == [True]


def test_where_all_of_the_start_fails_other_nodes_come_back() -> None:
    (supports, _, _), _ = _found(made(), SHORTCUT)
    assert list(supports) == ["nodes", "edges", "given back 1", "edges 1"]
    assert _nodes(made(), supports["edges 1"]) >= ATTENTION


@pytest.mark.parametrize("start", [range(20), range(3)], ids=["larger", "smaller"])
def test_what_an_earlier_round_gave_back_stays(start: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes from outside the start of the search; of all that is tried, the second set holds."""
    graph, opened = made().graph, (0, 1, 2, 30, 31, 32, 33)
    everything = np.arange(len(graph.tied))
    supports = [Support(graph, np.isin(everything, some).astype(np.float32)) for some in (opened, start)]
    tried: list[np.ndarray] = []

    def holds(problem: Problem, one: Masks, evaluator: Evaluator, fresh: Evaluator) -> bool:
        tried.append(one.gates[0])
        return len(tried) == 2

    monkeypatch.setattr(fresh, "_holds", holds)
    slopes = np.random.default_rng(0).standard_normal(len(graph.tied))
    monkeypatch.setattr(fresh, "path_gradient", lambda *arguments: slopes)
    found = fresh.give_back(made(), supports[0], supports[1], made().selection, made().selection)
    assert found is not None
    assert np.all(found.gates[list(opened)] == 1)
    assert found.size >= len(opened)


def test_no_more_come_back_than_can_be_minimized() -> None:
    problem = made()
    prune = dataclasses.replace(problem.settings, refine_most=len(SHORTCUT))
    config = dataclasses.replace(problem.model.config, prune=prune)
    small = dataclasses.replace(problem, model=LoadedModel(config, problem.model.params, "by hand"))
    (supports, joined_samples, checks), _ = _found(small, (*TRUE, *NOISE))
    assert (list(supports), joined_samples) == (["nodes", "edges"], None)
    assert [(check.accepted, check.given_back) for check in checks] == [(False, None)]


def test_tied_nodes_come_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though alone the query of an unneeded pair would come last."""
    problem, pair = made(tie_qk=True), (Node(1, "attn_k", 1), Node(1, "attn_q", 1))
    start, short = _support(problem, (*TRUE, *NOISE, *pair)), _support(problem, SHORTCUT)
    slopes = -5 * _support(problem, TRUE).gates
    slopes += -9 * _support(problem, pair[:1]).gates + _support(problem, pair[1:]).gates
    monkeypatch.setattr(fresh, "path_gradient", lambda *args: slopes)
    (batch,) = fresh.fresh_samples(problem, 1)
    larger = fresh.give_back(problem, short, start, problem.selection.and_on(batch), problem.selection.on(batch))
    assert larger is not None
    assert larger.size < start.size
    assert _support(problem, pair).gates @ larger.gates == 2
    np.testing.assert_array_equal(larger.gates, larger.gates[problem.graph.tied])


def test_slopes_are_those_of_the_samples_with_the_largest_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, seen = made(), []

    def path_gradient(evaluator: Evaluator, *rest: Any) -> np.ndarray:
        seen.append(evaluator.batch)
        return integrated_gradients.path_gradient(evaluator, *rest)

    monkeypatch.setattr(fresh, "path_gradient", path_gradient)
    held, _ = _found(problem, (*TRUE, *NOISE))
    (worst,) = seen
    assert len(worst.positions) == fresh.WORST
    (batch,) = fresh.fresh_samples(problem, 1)
    one = held.supports["edges"].masks
    logits = calibrate(
        problem.selection.on(batch).logits(one)[0],
        problem.selection.calibration(one),
        choice_index(batch, problem.selection.shift_tokens),
    )
    loss = objective.losses(logits[:, 0] - logits[:, 1]).reshape(-1, 2).max(axis=1)
    chosen = {row.tobytes() for row in worst.tokens}
    among = np.array([row.tobytes() in chosen for row in batch.tokens[::2]])
    assert loss[among].min() >= loss[~among].max()


def test_an_accepted_circuit_is_taken_before_a_smaller_refused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = made(noisy=True)
    prune = dataclasses.replace(problem.settings, refine_trials=2)
    config = dataclasses.replace(problem.model.config, prune=prune)
    problem = dataclasses.replace(problem, model=LoadedModel(config, problem.model.params, "by hand"))
    gates = {"small": _support(problem, SHORTCUT).gates, "large": _support(problem, TRUE).gates}
    verdicts = {gates[name].sum(): FreshCheck(task_loss=0.1, accepted=name == "large") for name in gates}

    def held(problem: Problem, start: Support, *rest: object) -> Held:
        return Held({"nodes": start}, None, (verdicts[start.gates.sum()],))

    monkeypatch.setattr(select, "minimized_until_it_holds", held)
    trials = SimpleNamespace(edges=np.zeros(0), reached=[], gates=[], scores=SimpleNamespace(loss=np.ones(1)))
    assert select.select(problem, cast(Trials, trials), gates).start == "large"
    verdicts = {size: FreshCheck(task_loss=0.1, accepted=True) for size in verdicts}
    assert select.select(problem, cast(Trials, trials), gates).start == "small"


def test_where_the_whole_model_fails_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of course it then would be allowed to; here it is asked for more than the model can."""
    monkeypatch.setattr(Evaluator, "allowing", lambda evaluator, *_: evaluator)
    problem = made()
    reversed_pairs = problem.train._replace(answer=problem.train.foil, foil=problem.train.answer)
    impossible = dataclasses.replace(problem, train=reversed_pairs)  # of the selection they are not
    (supports, joined_samples, checks), said = _found(impossible, (*TRUE, *NOISE))
    assert list(supports) == ["nodes", "edges"]
    assert joined_samples is None
    assert "no nodes that could come back help" in said[-1]
    assert [(check.accepted, check.given_back) for check in checks] == [(False, None)]


@pytest.mark.parametrize(
    ("checks", "problem", "number"),
    [
        ((), "", ""),
        ((FreshCheck(task_loss=0.1, accepted=True),), "", ""),
        ((FreshCheck(task_loss=0.2, accepted=False),), "refused the circuit (0.2 nats on them); no nodes", ""),
        (
            (
                FreshCheck(task_loss=0.3, accepted=False, given_back=7),
                FreshCheck(task_loss=0.2, accepted=False, given_back=3),
            ),
            "refused the circuit (0.2 nats on them); some came back, and no check",
            "minimized: 7, then 3 nodes",
        ),
        (
            (FreshCheck(task_loss=0.3, accepted=False, given_back=7), FreshCheck(task_loss=0.1, accepted=True)),
            "",
            "minimized: 7 nodes",
        ),
    ],
    ids=["none", "accepted", "refused", "given back, no more samples", "given back, accepted"],
)
def test_the_summary_says_what_fresh_samples_say(checks: tuple[FreshCheck, ...], problem: str, number: str) -> None:
    search = Search(trials=(), fresh=checks, refined_from="trial 0", seconds=1.0)
    circuit = SimpleNamespace(task="marks", metrics=defaultdict(float), scale=1.0, tasks=())
    lines = "\n".join(summary.search_problems(search))
    assert problem in lines
    assert ("fresh" in lines) == bool(problem)
    found = cast(FoundCircuit, SimpleNamespace(circuit=circuit, search=search))
    numbers = "\n".join(summary._numbers(found))
    assert number in numbers
    assert ("given back" in numbers) == bool(number)


def test_fresh_samples_are_in_no_selection_and_in_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, words = made(), set(CLEAN["train"]) | {*ground_truth.MARKS, 0}  # 0 is padding
    assert set(np.unique(problem.selection.batch.tokens)) <= words
    (every,) = fresh.fresh_samples(problem, 5)
    assert len(every.positions) == 2 * 192
    assert not set(np.unique(every.tokens)) <= words
    monkeypatch.setattr(fresh, "FRESH", 100)
    parts = list(fresh.fresh_samples(problem, 9))
    assert [len(part.positions) for part in parts] == [100, 100, 100, 84]
    np.testing.assert_array_equal(np.sort(joined(parts).tokens, axis=0), np.sort(every.tokens, axis=0))
    assert len(list(fresh.fresh_samples(problem, 2))) == 2
    monkeypatch.setattr(fresh, "FRESH", 350)
    assert len(list(fresh.fresh_samples(problem, 9))) == 1, "34 samples are too few"
    assert list(fresh.fresh_samples(made("paper"), 9)) == []


def test_stages_of_every_round_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages, problem = Stages(tmp_path / "kept", {}), made()
    (first, _, _), _ = _found(problem, (*TRUE, *NOISE), stages)
    for name in ("minimize_nodes", "minimized"):
        monkeypatch.setattr(select, name, lambda *args: pytest.fail("was there"))
    (again, _, _), _ = _found(problem, (*TRUE, *NOISE), Stages(tmp_path / "kept", {}))
    assert list(again) == list(first)
    for name, support in first.items():
        np.testing.assert_array_equal(again[name].gates, support.gates)
        assert again[name].edges == support.edges


def test_what_began_at_the_same_nodes_with_other_samples_is_minimized_again() -> None:
    stages, problem, start = Stages(), made(), _support(made(), (*TRUE, *NOISE))
    (batch,) = fresh.fresh_samples(problem, 1)
    first, again = (
        select._minimize(problem, stages, lambda line: None, start, evaluator, failed)["edges"]
        for failed, evaluator in enumerate((problem.selection, problem.selection.and_on(batch)))
    )
    assert not ATTENTION & _nodes(problem, first)
    assert _nodes(problem, again) >= ATTENTION


@pytest.mark.slow
def test_a_circuit_that_fresh_samples_refused_is_found_and_recorded_with_them() -> None:
    problem = made()
    found = find_circuit(problem, progress=False)
    (check, *others) = found.search.fresh
    assert (check.accepted, others) == (False, [])
    assert check.given_back is not None
    assert {(node.layer, node.site, node.channel) for node in found.circuit.nodes} >= {
        tuple(node) for node in ATTENTION
    }
    stages = {stage.stage: stage for stage in found.search.stages}
    assert list(stages) == ["search", "nodes", "edges", "given back 1", "edges 1"]
    last, metrics = stages["edges 1"], found.circuit.metrics
    assert (last.nodes, last.edges) == (metrics["nodes"], metrics["edges"])
    assert last.task_loss == pytest.approx(metrics["task_loss"], abs=1e-4), "both are calibrated on what joined, too"
    assert metrics["task_loss"] < problem.settings.target_loss
