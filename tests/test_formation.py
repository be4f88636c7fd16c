"""Circuits at earlier checkpoints, on a model whose circuit is known: they start from known ones, and end at them."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse_gpt.circuits.circuit import Circuit, Node, nodes_of
from sparse_gpt.circuits.evidence import formation as formations
from sparse_gpt.circuits.evidence.formation import Moment, correlation, formation, jaccard
from sparse_gpt.circuits.evidence.metrics import describe
from sparse_gpt.circuits.nodes import from_vector
from sparse_gpt.circuits.pipeline import search_again
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.search import warm_start
from sparse_gpt.circuits.search.warm_start import Known, search_from
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import flatten, unflatten
from sparse_gpt.records import Formation
from tests import ground_truth

HEAD, BACKUP = ("h_1", "attn", "c_proj", "kernel"), 4  # rows 0 and 4 of layer 1's output: the heads that do the task


def trained(sha256: str = "by hand", keep: dict[int, float] | None = None) -> Problem:
    """The task in a model whose two heads that can do it are there with the given factors; default: the first alone."""
    made = ground_truth.problem(backup=True)
    leaves = flatten(made.model.params)
    for row, factor in (keep or {0: 1.0, BACKUP: 0.0}).items():
        leaves[HEAD][row] *= factor
    model = LoadedModel(made.model.config, unflatten(leaves), sha256, ground_truth.token_text)
    return Problem.build(model, made.samples)


@functools.cache
def last() -> Problem:
    return trained()


@functools.cache
def final() -> Circuit:
    candidate = search_again(last())
    assert candidate.reached
    assert candidate.support.edges is not None
    return describe(last(), candidate)


def known(problem: Problem, circuit: Circuit) -> Known:
    return Known.of(formations.candidate_of(problem, circuit).support)


def nodes(problem: Problem, support: Support) -> set[Node]:
    return set(nodes_of(from_vector(support.gates, problem.graph.config)))


@pytest.mark.slow
def test_a_search_from_a_circuit_in_its_own_model_gives_it_back() -> None:
    found = search_from(last(), known(last(), final()))
    assert found is not None
    assert nodes(last(), found.support) == set(final().nodes)
    assert found.support.edges == final().edges
    assert float(found.calibration.scale) == pytest.approx(final().scale)


@pytest.mark.slow
@pytest.mark.parametrize("dropped", [Node(1, "attn_v", 0), Node(0, "mlp_out", 4)])
def test_what_a_known_circuit_lacks_is_found_again(dropped: Node) -> None:
    start = known(last(), dataclasses.replace(final(), nodes=tuple(n for n in final().nodes if n != dropped)))
    found = search_from(last(), start)
    assert found is not None
    assert found.reached
    assert dropped in nodes(last(), found.support)


@pytest.mark.slow
def test_of_a_known_circuit_stays_what_was_removed_and_comes_what_is_new() -> None:
    removed = Known(np.ones_like(known(last(), final()).gates), known(last(), final()).removed)
    ends = {warm_start.ends(edge) for edge in removed.support(last()).edges}
    assert not ends & removed.removed
    assert ends > {warm_start.ends(edge) for edge in final().edges}


@functools.cache
def moments() -> tuple[Moment, ...]:
    """Nothing is learned at step 0; the other head does the task at 10, both at 20, the one that stays at 30 and 40."""
    weights: list[dict[int, float]] = [
        {0: 0.0, BACKUP: 0.0},
        {0: 0.0, BACKUP: 1.0},
        {0: 0.6, BACKUP: 0.6},
        {0: 0.9, BACKUP: 0.0},
    ]
    earlier = [
        Moment(10 * i, 1000 * i, functools.partial(trained, f"step {10 * i}", keep)) for i, keep in enumerate(weights)
    ]
    return (*earlier, Moment(40, 4000, last))


@functools.cache
def found() -> Formation:
    return formation(moments(), final(), progress=False)


@pytest.mark.slow
def test_circuits_of_all_checkpoints() -> None:
    steps = {each.step: each for each in found().checkpoints}
    assert list(steps) == [0, 10, 20, 30, 40]
    assert [each.solved for each in steps.values()] == [False, True, True, True, True]
    assert steps[0].circuit is None
    assert steps[0].model_task_loss == pytest.approx(np.log(2), abs=0.1)
    assert steps[40].circuit is not None
    assert steps[40].circuit.start == "final"
    assert steps[40].circuit.nodes == final().nodes
    assert steps[40].circuit.task_loss == pytest.approx(final().metrics["task_loss"])
    assert steps[40].final_circuit_task_loss == pytest.approx(final().metrics["task_loss"], abs=1e-4)
    assert [each.circuit.node_overlap for each in found().checkpoints if each.circuit][-2:] == [1, 1]
    for step in (10, 20, 30):
        circuit = steps[step].circuit
        assert circuit is not None
        assert circuit.start in ("later", "earlier")
        assert circuit.task_loss is not None
        assert circuit.task_loss < 0.15
    other = steps[10].circuit
    assert other is not None
    assert Node(1, "attn_out", 9) in other.nodes  # what the other head writes
    assert (other.node_overlap, other.edge_overlap) == (0, 0)  # the heads read and write other channels
    assert (steps[10].final_circuit_task_loss or 0) > 0.3  # the final circuit does nothing there


@pytest.mark.slow
def test_when_nodes_appear_and_what_they_did() -> None:
    assert [node.node for node in found().nodes] == list(final().nodes)
    circuits = {each.step: set(each.circuit.nodes) if each.circuit else set() for each in found().checkpoints}
    for node in found().nodes:
        assert all(node.node in circuits[step] for step in circuits if step >= node.from_step)
        before = [step for step in circuits if step < node.from_step]
        assert node.node not in circuits[before[-1]]
        assert node.correlation[-1] in (None, pytest.approx(1))
    written = next(node for node in found().nodes if node.node == Node(1, "attn_out", 8))
    assert written.from_step > 10
    assert written.correlation[3] == pytest.approx(1, abs=1e-3)  # scaled by 0.9


def test_the_smaller_of_both_directions_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A circuit that only the search from before finds, and one that only the search from after finds smaller."""
    sizes: dict[tuple[str, int], int] = {("later", 30): 9, ("earlier", 30): 7, ("later", 20): 5, ("earlier", 20): 8}
    walk = object.__new__(formations._Walk)
    walk.moments, walk.final = moments()[1:], formations._Found(None, "known")  # type: ignore[arg-type]

    def search(index: int, known: Any, start: str) -> Any:
        size = sizes.get((start, walk.moments[index].step))
        circuit = type("Sized", (), {"edges": range(size), "nodes": (), "start": start}) if size else None
        return circuit and formations._Found(circuit, known)  # type: ignore[arg-type]

    monkeypatch.setattr(walk, "_search", search, raising=False)
    best = walk.forwards([0, 1, 2], {**walk.backwards([0, 1, 2]), 0: formations._Found(None, "known")})  # type: ignore[arg-type]
    assert {walk.moments[i].step: best[i].circuit.start for i in (1, 2)} == {20: "later", 30: "earlier"}


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    searches, whole = formations.search_from, found()

    def interrupted(problem: Problem, *rest: Any) -> Any:
        calls.append(problem.model.params_sha256)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return searches(problem, *rest)

    monkeypatch.setattr(formations, "search_from", interrupted)
    folder = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        formation(moments(), final(), folder, progress=False)
    again = formation(moments(), final(), folder, progress=False)
    assert calls == ["step 30", "step 20", "step 10", "step 10", "step 20", "step 30"]
    assert again.tree() | {"seconds": 0} == whole.tree() | {"seconds": 0}
    formation(moments(), final(), folder, progress=False)
    assert len(calls) == 6
    formation(moments()[1:], final(), folder, progress=False)  # other checkpoints: everything anew
    assert len(calls) == 11


def test_correlation_and_overlap() -> None:
    rng = np.random.default_rng(0)
    some, others = rng.standard_normal((2, 50)).astype(np.float32)
    assert correlation(some, others) == pytest.approx(np.corrcoef(some, others)[0, 1], abs=1e-6)
    assert correlation(some, -3 * some + 1) == pytest.approx(-1)
    assert correlation(some, np.ones(50, np.float32)) is None
    assert correlation(some, np.full(50, np.nan, np.float32)) is None
    assert jaccard({1, 2, 3}, {2, 3, 4, 5}) == 2 / 5
    assert jaccard(set(), set()) == 1


@pytest.mark.slow
def test_the_record_is_read_as_it_was_written_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "formation.json"
    found().write(path)
    assert Formation.read(path) == found()
    tree = found().tree()
    checkpoints = list(tree["checkpoints"])
    for broken, message in (
        ({**tree, "checkpoints": [*checkpoints[:-1], {**checkpoints[-1], "circuit": None}]}, "has no circuit"),
        ({**tree, "checkpoints": checkpoints[::-1]}, "no circuit|order"),
        ({**tree, "nodes": [{**tree["nodes"][0], "correlation": [1.0]}]}, "1 correlations, not 5"),
    ):
        with pytest.raises(InputError, match=message):
            Formation.from_tree(broken, "formation.json")
