"""A search on several template families of a task: equal shares, what the model cannot do, losses of every family."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt.circuits import Problem, TaskBatch, TaskSamples, keep_solved
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.metrics import by_family, describe
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.pipeline import minimal_circuit
from sparse_gpt.circuits.problem import LoadedModel
from sparse_gpt.circuits.run import calibration
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import accuracy, task_loss
from sparse_gpt.circuits.run.samples import FamilySamples, mixture, share
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.run.task_batch import joined, rows, without_longest
from sparse_gpt.circuits.solved import require_each_solved
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import PruneConfig
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import require_shareable, task_samples
from sparse_gpt.records import Circuit
from sparse_gpt.tasks import TASKS, TaskError
from tests import circuits_model

CONFIG = circuits_model.config(prune=dataclasses.replace(circuits_model.SEARCH, ablation="zero", target_loss=0.5))
PARAMS = circuits_model.params(CONFIG)
MODEL = LoadedModel(CONFIG, PARAMS, "ab" * 32)


def _swapped(batch: TaskBatch) -> TaskBatch:
    """The wrong answers."""
    return batch._replace(answer=batch.foil, foil=batch.answer)


@functools.cache
def plain() -> TaskSamples:
    """One family, and a novel one of which the model has everything wrong."""
    samples = circuits_model.samples(CONFIG, PARAMS, 16)
    return dataclasses.replace(samples, novel={"wrong": _swapped(samples.heldout)})


@functools.cache
def families() -> dict[str, FamilySamples]:
    """Three, of 16, 16 and 12 pairs; the model does not do the last."""
    one = plain()
    assert one.shifted is not None
    first = FamilySamples(one.train, one.validation, one.heldout)
    second = FamilySamples(one.shifted, one.train, one.validation)
    last = FamilySamples(*(_swapped(batch)._replace() for batch in first))
    return {"main": first, "other": second, "backwards": last}


def test_families_have_equal_shares_and_the_calibration_of_one_task() -> None:
    mixed = mixture(plain(), {name: families()[name] for name in ("main", "other")})
    np.testing.assert_array_equal(mixed.train.task, np.tile([0, 0, 1, 1], len(mixed.train.task) // 4))
    np.testing.assert_array_equal(mixed.heldout.answer[mixed.heldout.task == 1], families()["other"].heldout.answer)
    assert (mixed.names, mixed.parts) == (("toy",), ("main", "other"))
    problem = Problem.build(MODEL, mixed)
    assert problem.task == "toy"
    candidate = problem.candidate(Support(problem.graph, np.ones(problem.selection.nodes, np.float32)))
    assert len(problem.selection.shift_tokens) == np.asarray(candidate.calibration.shift).size == 2
    assert np.asarray(candidate.calibration.scale).shape == ()
    with pytest.raises(InputError, match="task a: several tasks can share one circuit on one family each, not on main"):
        share({"a": mixed, "b": plain()})


def test_natural_text_is_refused_for_a_circuit_that_tasks_share() -> None:
    chosen = [TASKS["for_while"], TASKS["else_elif"]]
    require_shareable(chosen, circuits_model.config(prune=PruneConfig(families=("main",))))
    config = circuits_model.config(prune=PruneConfig(families=("main", "natural")))
    with pytest.raises(
        InputError, match=r"prune.families=main,natural: several tasks can share .*; leave natural out$"
    ):
        require_shareable(chosen, config)


def test_training_samples_take_the_place_of_prompts_too_long_for_selection() -> None:
    ends = np.repeat([3, 4, 5, 6, 7, 3, 4, 5, 6, 30], 2).astype(np.int32)
    tokens = np.zeros((20, 31), np.int32)
    long = TaskBatch(tokens, ends, np.full(20, 1, np.int32), np.full(20, 2, np.int32))
    train = long._replace(tokens=np.zeros((20, 31), np.int32) + 9, positions=np.full(20, 5, np.int32))
    two = {name: FamilySamples(train, long, long) for name in ("a", "b")}
    mixed = mixture(TaskSamples(train, long, long), two)
    assert len(mixed.validation.positions) == 2 * 18
    config = circuits_model.config(prune=PruneConfig(ablation="zero"), context=64)
    chosen = Problem.build(LoadedModel(config, circuits_model.params(config)), mixed).selection.batch
    assert max(chosen.positions) == 7
    np.testing.assert_array_equal(np.bincount(chosen.task), [38, 38])
    assert int(np.sum(chosen.tokens[:, 0] == 9)) == 2 * 20


def test_a_family_that_the_model_cannot_do_is_left_out() -> None:
    said: list[str] = []
    kept = keep_solved(MODEL, mixture(plain(), families()), said.append)
    assert kept.parts == ("main", "other")
    assert list(kept.others) == ["backwards"]
    (line,) = said
    assert line.startswith("task toy: families above --config.prune.target_loss=0.5 are left out: backwards (the model")
    require_each_solved(Problem.build(MODEL, kept))
    with pytest.raises(InputError, match=r"task toy, family backwards: the model itself has task loss"):
        require_each_solved(Problem.build(MODEL, mixture(plain(), families())))
    alone = mixture(plain(), {"backwards": families()["backwards"]})
    with pytest.raises(InputError, match=r"task toy: the model itself has task loss"):
        require_each_solved(Problem.build(MODEL, alone))
    both = {"x": families()["backwards"], "y": families()["backwards"]}
    with pytest.raises(InputError, match=r"are all it was asked for: x \(the model has .*, y .*train it longer"):
        keep_solved(MODEL, mixture(plain(), both))
    only = keep_solved(MODEL, mixture(plain(), {n: families()[n] for n in ("main", "backwards")}), said.append)
    assert only.train.task is None
    assert only.parts == ("main",)


def test_losses_of_every_family_by_the_reference() -> None:
    samples = mixture(plain(), {name: families()[name] for name in ("main", "other")})
    samples = dataclasses.replace(samples, others={"aside": families()["backwards"].heldout})
    problem = Problem.build(MODEL, samples)
    gates = to_vector(circuits_model.random_gates(CONFIG, 3, share=0.9)) * problem.searchable_nodes
    candidate = Candidate(
        Support(problem.graph, gates), Calibration(np.float32(1.5), np.array([0.2, -0.1], np.float32)), False
    )
    entries = by_family(problem, candidate)
    roles = [(entry.family, entry.role, entry.pairs) for entry in entries]
    assert roles[:2] == [("main", "searched", 16), ("other", "searched", 16)]
    assert roles[2:] == [("aside", "left aside", 16), ("wrong", "novel", 16)]
    circuit = describe(problem, candidate)
    tree, values = circuit.to_dict(), {site: np.asarray(value) for site, value in circuit.values.items()}
    batches = [families()["main"].heldout, families()["other"].heldout, families()["backwards"].heldout]
    for entry, batch in zip(entries, [*batches, samples.novel["wrong"]], strict=True):
        logits = circuits_model.reference_answer_logits(CONFIG, PARAMS, batch, tree, values)
        assert entry.task_loss == pytest.approx(task_loss(logits), abs=5e-4)
        assert entry.accuracy == pytest.approx(accuracy(logits), abs=0.05)
    assert entries[0].full_model_accuracy == 1.0
    assert entries[3].full_model_accuracy == 0.0
    read = Circuit.from_tree(tree, "circuit.json")
    assert list(read.families) == entries
    assert circuit.tasks == ()


@pytest.mark.slow
def test_the_minimal_circuit_lies_inside_the_complete_one(tmp_path: Path) -> None:
    """It does the main family with less, each is at the target where it was chosen, and both survive their file."""
    samples = mixture(plain(), {name: families()[name] for name in ("main", "other")})
    nodes_only = dataclasses.replace(CONFIG, prune=dataclasses.replace(CONFIG.prune, edges=False))
    problem = Problem.build(LoadedModel(nodes_only, PARAMS, "ab" * 32), samples)
    complete = problem.candidate(Support(problem.graph, problem.searchable_nodes.astype(np.float32)))
    assert complete.reached
    inner = minimal_circuit(problem, complete, Stages(), progress=False)
    assert inner is not None
    circuit = dataclasses.replace(describe(problem, complete), minimal=inner)
    assert set(inner.nodes) < set(circuit.nodes)
    assert set(inner.edges) < set(circuit.edges)
    assert {each.family: each.role for each in inner.families} == {
        "main": "searched", "other": "left aside", "wrong": "novel"
    }  # fmt: skip
    chosen = joined([families()["main"].validation, rows(families()["main"].train, slice(32))])
    logits = circuits_model.reference_answer_logits(CONFIG, PARAMS, chosen, inner.to_dict(), inner.values)
    assert task_loss(logits) <= problem.selection_target * 1.02
    circuit.save(tmp_path)
    read = load(tmp_path)
    assert read.minimal is not None
    assert (read.minimal.nodes, read.minimal.edges) == (inner.nodes, inner.edges)
    assert (read.minimal.scale, read.minimal.shift) == (inner.scale, inner.shift)
    assert read.minimal.families == inner.families
    assert read.to_dict() == circuit.to_dict()
    one = Problem.build(MODEL, mixture(plain(), {"main": families()["main"]}))
    assert minimal_circuit(one, complete, Stages(), progress=False) is None
    assert minimal_circuit(problem, dataclasses.replace(complete, reached=False), Stages(), progress=False) is None
    small = dataclasses.replace(
        nodes_only, prune=dataclasses.replace(nodes_only.prune, refine_most=complete.support.size - 1)
    )
    of_small = Problem.build(LoadedModel(small, PARAMS, "ab" * 32), samples)
    assert minimal_circuit(of_small, complete, Stages(), progress=False) is None, "it was too large itself"


@pytest.mark.slow
def test_the_minimal_circuit_is_on_the_papers_terms() -> None:
    """Whatever the complete one must satisfy: a mean decides, and logits are multiplied by what fits best."""
    strict = dataclasses.replace(CONFIG.prune, edges=False, search="path", largest_scale=1.0, above_model=0.1)
    config = dataclasses.replace(CONFIG, prune=strict)
    samples = mixture(plain(), {name: families()[name] for name in ("main", "other")})
    problem = Problem.build(LoadedModel(config, PARAMS), samples)
    alone = problem.on_family("main")
    assert (alone.selection.largest_scale, alone.selection.upper_share) == (1, strict.selection_margin)
    loose = alone.on_paper_terms()
    assert (loose.selection.largest_scale, loose.selection.upper_share, loose.heldout.largest_scale) == (16, 0, 16)
    model = task_loss(loose.selection.full_logits())
    assert loose.selection.allowance == (max(0.0, model + 0.1 - loose.selection_target),)
    every = Masks(np.ones((1, alone.selection.nodes), np.float32))
    by_means, strictly = loose.selection(every), alone.selection(every)
    assert by_means.calibration.scale[0] > 1.01 > strictly.calibration.scale[0]
    (calibrated,) = calibration.calibrate(by_means.logits, by_means.calibration, loose.selection.index)
    mean = task_loss(calibrated)
    assert by_means.loss[0] == pytest.approx(mean - loose.selection.allowance[0], rel=1e-3)
    complete = problem.candidate(Support(problem.graph, problem.searchable_nodes.astype(np.float32)))
    assert complete.reached
    inner = minimal_circuit(problem, complete, Stages(), progress=False)
    assert inner is not None
    assert inner.scale > 1.01


def test_prune_families_restricts_and_widens(tokenizer_of_1024: Tokenizer) -> None:
    def of(*names: str) -> TaskSamples:
        prune = dataclasses.replace(CONFIG.prune, families=names, evaluation_pairs=40, steps=4, batch_pairs=6)
        model = dataclasses.replace(CONFIG.model, context=128)
        return task_samples(
            TASKS["for_while"], tokenizer_of_1024, dataclasses.replace(CONFIG, model=model, prune=prune)
        )

    narrow, wide, two = of(), of("all"), of("nested", "finished")
    assert narrow.parts == ("main",)
    assert narrow.train.task is None
    assert list(narrow.others) == ["elsewhere", "nested", "finished"]
    assert list(narrow.novel) == list(wide.novel) == ["comprehensions", "broken"]
    assert wide.parts == ("main", "elsewhere", "nested", "finished")
    assert not wide.others
    assert two.parts == ("nested", "finished")
    assert list(two.others) == ["main", "elsewhere"]
    assert len(narrow.validation.positions) == 80
    assert {len(family.validation.positions) for family in wide.families.values()} == {64}, "32 pairs of each at least"
    shorter = [without_longest(family.validation) for family in wide.families.values()]
    assert len(wide.validation.positions) == 4 * min(len(each.positions) for each in shorter)
    assert len(wide.families["nested"].heldout.positions) == 80
    np.testing.assert_array_equal(narrow.heldout.answer, wide.families["main"].heldout.answer)
    with pytest.raises(TaskError, match="family broken is novel"):
        of("main", "broken")
