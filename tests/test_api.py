"""The front door: every public name has an example, and every example runs."""

import dataclasses
import doctest
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest

import sparse_gpt as sg
from sparse_gpt import presets
from sparse_gpt.api import compare, interventions, losses, model, runs
from sparse_gpt.circuits import pipeline, storage
from sparse_gpt.circuits.nodes import empty

SLOW_FIXTURES = {"small"}  # a short search with its evidence: tests/budget.py
WITH_EXAMPLES = (model, runs, interventions, compare, losses, pipeline, presets)
LONG = ("train",)
NEEDS_A_CIRCUIT = (
    "find_circuit",
    "circuit",
    "keep",
    "compare",
    "draw",
    "view",
)  # whose examples run on the small model
SEARCH = {"steps": 5, "evaluation_pairs": 16, "random_draws": 2, "refine_most": 1, "target_loss": 1.0}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> sg.Model:
    """The stored model."""
    return sg.open("laptop", tmp_path_factory.mktemp("laptop") / "workdir")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> sg.Model:
    """A model of preset tiny that has learned nothing, and a circuit in it."""
    fields = {"model__n_layer": 1, "model__context": 128, "sparsity__activation_fraction": 0.0, "train__steps": 2}
    corpus = {"data__sources": "idioms:1", "data__tokens": 20_000, "train__evaluate_tasks": False}
    trained = sg.train(tmp_path_factory.mktemp("small"), "tiny", progress=False, **fields, **corpus)
    trained.find_circuit("single_double_quote", progress=False, **SEARCH)
    return trained


def examples() -> Iterator[Any]:
    found = [test for module in WITH_EXAMPLES for test in doctest.DocTestFinder(exclude_empty=True).find(module)]
    for method in (sg.Circuit.draw, sg.Circuit.view):
        found += doctest.DocTestFinder().find(method, f"sparse_gpt.{method.__qualname__}")
    for test in found:
        slow = _needs_a_circuit(test) or test.name.rpartition(".")[2] in LONG
        marks = [pytest.mark.slow] if slow else []  # the first of them waits for the small model
        if test.examples:
            yield pytest.param(test, id=test.name.removeprefix("sparse_gpt."), marks=marks)


def _needs_a_circuit(example: doctest.DocTest) -> bool:
    return example.name.rpartition(".")[2] in NEEDS_A_CIRCUIT


@pytest.mark.slow
@pytest.mark.parametrize("example", list(examples()))
def test_the_example_runs(
    example: doctest.DocTest,
    laptop: sg.Model,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    used = request.getfixturevalue("small") if _needs_a_circuit(example) else laptop
    example.globs |= {"sg": sg, "model": used, "getfixture": {"tmp_path": tmp_path}.get}
    printed: list[str] = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=printed.append)
    assert tried
    assert not failed, "".join(printed)


def test_every_public_function_and_method_has_an_example() -> None:
    functions = [getattr(sg, name) for name in sg.__all__ if inspect.isfunction(getattr(sg, name))]
    methods = [value for name, value in vars(sg.Model).items() if inspect.isfunction(value) and name[0] != "_"]
    without = [f.__qualname__ for f in [*functions, *methods] if ">>>" not in (f.__doc__ or "")]
    assert without == []


def test_names_are_imported_when_they_are_asked_for() -> None:
    assert len(sg.__all__) <= 30
    assert all(getattr(sg, name) is not None for name in sg.__all__)
    assert set(sg.__all__) <= set(dir(sg))
    with pytest.raises(AttributeError, match="no attribute 'search'"):
        sg.search  # noqa: B018


def test_opening_a_stored_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's cache, once; a folder of one's own; what is neither gets one line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = sg.open("laptop")
    assert opened.folder.parent == tmp_path / "sparse_gpt"
    before = sorted(path.stat().st_mtime_ns for path in opened.folder.rglob("*"))
    assert sg.open("laptop").folder == sg.open(opened.folder).folder == opened.folder
    assert sorted(path.stat().st_mtime_ns for path in opened.folder.rglob("*")) == before
    with pytest.raises(sg.InputError, match=r"^sg.open\('nowhere'\): no workdir and no .zip"):
        sg.open("nowhere")


def test_losses_of_a_circuit_are_those_in_its_file(small: sg.Model) -> None:
    circuit = small.circuit("single_double_quote")
    batch = small.problem("single_double_quote", **SEARCH).samples.heldout
    found = losses.measure(small.config, small.params, batch, circuit)
    assert found.task_loss == pytest.approx(circuit.metrics["task_loss"], abs=1e-4)
    assert found.by_prompt.mean() == pytest.approx(found.task_loss)
    full = losses.measure(small.config, small.params, batch)
    assert full.task_loss == pytest.approx(circuit.metrics["full_model_task_loss"], abs=1e-4)


@pytest.mark.slow
def test_keeping_all_nodes_is_the_model_and_ablating_all_is_keeping_none(small: sg.Model) -> None:
    ones = {site: np.ones_like(value) for site, value in empty(small.config.model).items()}
    circuit = small.circuit("single_double_quote")
    nodes = [(layer, site, channel) for site, x in ones.items() for layer, channel in np.ndindex(x.shape)]
    everything = circuit.__class__(**{**vars(circuit), "nodes": tuple(sg.Node(*node) for node in nodes)})
    nothing = circuit.__class__(**{**vars(circuit), "nodes": ()})
    prompt = "for i in range(10"
    plain = small.run(prompt).logits
    np.testing.assert_allclose(small.run(prompt, sg.keep(everything)).logits, plain, atol=1e-5)
    none = small.run(prompt, sg.keep(nothing)).logits
    assert np.abs(none - plain).max() > 1e-3
    np.testing.assert_allclose(small.run(prompt, sg.ablate(everything)).logits, none, atol=1e-5)


def test_a_finished_circuit_is_loaded_as_it_was_found(small: sg.Model) -> None:
    """With what `launch.prune` writes beside it: the report shows the same, whichever found it."""
    folder = small.folder / "circuits" / "single_double_quote"
    assert {path.name for path in folder.iterdir()} >= {"search.json", "traces.json", "contexts.json", "ablation.npz"}
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    found = small.find_circuit("single_double_quote", progress=False, **SEARCH)
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before
    assert found.reached == found.search.reached
    assert len(found.contexts.nodes) == len(found.circuit.nodes)
    for reached in (True, False):
        (folder / "search.json").write_text(json.dumps(found.search.tree() | {"reached": reached}))
        assert storage.load_found(folder).reached is reached
    older = {key: value for key, value in found.search.tree().items() if key != "reached"}
    for trial in older["trials"]:
        trial["reached"] = False
    for start, reached in (("trial 0", False), ("attribution", True)):
        baselines = [b | {"reached": b["ranking"] == "attribution"} for b in older["baselines"]]
        (folder / "search.json").write_text(json.dumps(older | {"refined_from": start, "baselines": baselines}))
        assert storage.load_found(folder).reached is reached
    found.search.write(folder / "search.json")


@pytest.mark.slow
def test_a_patch_puts_the_other_run_in_place_of_nodes(laptop: sg.Model) -> None:
    """Of all of a site's nodes in one layer, of some of them, and of none; logits follow."""
    one, other = "x = 'hello", 'x = "hello'
    source, plain = laptop.run(other, record=["attn_out"]), laptop.run(one, record=["attn_out"])
    differs = np.flatnonzero((source["attn_out", 1] != plain["attn_out", 1]).any(axis=(0, 1)))
    assert len(differs) > 3
    for channels in (differs, differs[:2], differs[:0]):
        patched = laptop.run(one, sg.patch([(1, "attn_out", int(c)) for c in channels], source), record=["attn_out"])
        expected = plain["attn_out", 1].copy()
        expected[..., channels] = source["attn_out", 1][..., channels]
        np.testing.assert_array_equal(patched["attn_out", 1], expected)
        assert (np.abs(patched.logits - plain.logits).max() > 1e-3) == (len(channels) > 0)
    with pytest.raises(sg.InputError, match="not recorded"):
        laptop.run(one, sg.patch([(1, "mlp_out", 0)], source))


@pytest.mark.slow
def test_prompts_of_different_lengths_run_as_each_alone(laptop: sg.Model) -> None:
    """Padding, of the shorter and of both, changes nothing; nor does it meet the taps."""
    prompts = ["x = 'hello", "for i in range(10):\n    print("]
    tap = sg.steer([(1, "mlp_out", 3)], 4.0)
    together = laptop.run(prompts, tap, record=["attn_out"])
    alone = jax.jit(lambda params, ids: laptop.model.apply({"params": params}, ids, tap=tap))
    for i, prompt in enumerate(prompts):
        ids = np.array([laptop.tokenizer.encode(prompt)], np.int32)
        expected = alone(laptop.params, ids)
        length = ids.shape[1]
        assert (together.lengths[i], together.logits.shape[1]) == (length, max(together.lengths))
        np.testing.assert_allclose(together.logits[i, :length], expected[0], atol=2e-4)
        assert together["attn_out", 0].shape[1] == max(together.lengths)
    assert np.abs(together.logits - laptop.run(prompts).logits).max() > 1e-2


@pytest.mark.slow
def test_prompts_of_ones_own_have_the_losses_of_the_same_samples(laptop: sg.Model) -> None:
    pair = sg.TASKS["single_double_quote"].pairs("heldout", 1, 0, tokenizer=laptop.tokenizer)[0]
    samples = [(one.prompt, one.answer, one.foil) for one in (pair.first, pair.second)]
    batch = laptop.sample("single_double_quote", pairs=1)
    expected = losses.measure(laptop.config, laptop.params, batch)
    np.testing.assert_allclose(laptop.evaluate(samples).logits, expected.logits, atol=1e-4)
    assert laptop.evaluate(samples[:1]).by_prompt == pytest.approx(expected.by_prompt[:1], abs=1e-4)


@pytest.mark.slow
def test_a_notebook_shows_numbers_and_drawing(small: sg.Model) -> None:
    found = small.find_circuit("single_double_quote", progress=False, **SEARCH)
    for shown in (found._repr_html_(), found.circuit._repr_html_()):
        assert "held-out task loss" in shown
        assert "<svg" in shown
    assert len(found._repr_html_()) > len(found.circuit._repr_html_())  # it has tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.run(""), "prompts of 0 to 0 tokens"),
        (lambda m: m.run("x" * 9999), "the model takes 1 to its context, 144"),
        (lambda m: m.run(np.array([[99999]])), "the vocabulary has"),
        (lambda m: m.run("x", record=["mlp"]), "unknown site 'mlp'"),
        (lambda m: m.run("x")["mlp_out", 0], "not recorded"),
        (lambda m: m.sample("quotes"), "unknown task 'quotes'; choose"),
        (lambda m: m.find_circuit("quotes"), "unknown task 'quotes'; choose"),
        (lambda m: m.find_circuit("for_while", stepz=3), "prune.stepz"),
        (lambda m: m.problem(["for_while", "if_equals"], batch_pairs=3), "multiple of the 2 tasks"),
        (lambda m: m.problem(["for_while", "if_equals"], families="all"), "on one family each"),
        (lambda m: m.circuit("for_while"), "circuit.json: not found"),
        (lambda m: m.circuit("my/pairs.csv"), "/circuits/pairs/circuit.json: not found; python -m launch.prune"),
        (lambda m: m.evaluate([]), "no prompts to evaluate"),
    ],
)
def test_bad_input_gets_one_line(laptop: sg.Model, call: Any, message: str) -> None:
    with pytest.raises(sg.InputError, match=message):
        call(laptop)


def foreign(model: sg.Model, **fields: Any) -> sg.Circuit:
    """A circuit of no nodes, found in a model of other sizes; with none given, in one of the same."""
    values = empty(dataclasses.replace(model.config.model, **fields))
    return sg.Circuit("t", "", "zero", "live", None, 1.0, (), False, (), (), {}, values)


PAIR = ("x = 'hello", "'", '"')
ACTIVATION = np.zeros((1, 2, 9), np.float32)
A_RUN = runs.Run(np.array([[1, 2]]), np.array([2]), ACTIVATION, {("mlp_out", 0): ACTIVATION}, cast(Any, None))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: sg.ablate([(0, "mlp_ot", 3)]), "'mlp_ot', 3.: unknown site 'mlp_ot'; choose from attn_in"),
        (lambda m: sg.steer([("mlp_out", 0, 3)], 1.0), r"node \('mlp_out', 0, 3\): not \(layer, site, channel\)"),
        (lambda m: sg.ablate([(-1, "mlp_out", 3)]), r"node \(-1, 'mlp_out', 3\): .* counted from 0"),
        (lambda m: sg.ablate([(0, "mlp_out", -3)]), r"node \(0, 'mlp_out', -3\): .* counted from 0"),
        (lambda m: sg.ablate([(0, "mlp_out", 1.5)]), r"node \(0, 'mlp_out', 1.5\): not \(layer"),
        (lambda m: sg.ablate((0, "mlp_out", 3)), "node 0: not .* give a list"),
        (lambda m: sg.ablate("0.mlp_out.3"), "nodes '0.mlp_out.3': give a circuit, or a list"),
        (lambda m: sg.ablate(["0.mlp_out"]), "node '0.mlp_out': not"),
        (lambda m: sg.ablate(3), "nodes 3: give a circuit, or a list"),
        (lambda m: sg.keep([(0, "mlp_out", 3)]), "keep .*: give a circuit"),
        (lambda m: m.run("x", sg.ablate([(99, "mlp_out", 3)])), r"node \(99, 'mlp_out', 3\): layers .* are 0 to"),
        (lambda m: m.run("x", sg.steer([(0, "resid_final", 3)], 1.0)), r"node \(0, 'resid_final', 3\): layers"),
        (lambda m: m.run("x", sg.steer([(0, "mlp_out", 99999)], 1.0)), "'mlp_out', 99999.: channels there are 0 to"),
        (lambda m: m.run("x", sg.ablate([(0, "mlp_out", 3)], {})), "values of mlp_out are missing"),
        (lambda m: m.run("x", sg.ablate([(0, "mlp_out", 3)], {"mlp_out": np.zeros(9)})), r"mlp_out are \(9,\); give"),
        (lambda m: m.run("x = 1", sg.patch([(0, "mlp_out", 3)], m.run("x", record=["mlp_out"]))), "as many tokens"),
        (lambda m: m.run("x", foreign(m)), "not a tap; sg.ablate"),
        (
            lambda m: m.run("x", sg.ablate(foreign(m, n_layer=99))),
            "circuit t .* does not fit this model: its values of",
        ),
        (lambda m: m.run("x", sg.keep(foreign(m, d_mlp=7))), "does not fit this model: its values of mlp_neuron are"),
        (lambda m: m.evaluate([PAIR], foreign(m, d_model=7)), "does not fit this model: its values of"),
        (
            lambda m: m.evaluate([PAIR], dataclasses.replace(foreign(m), nodes=(sg.Node(0, "mlp_out", 99999),))),
            "the model has no node 0.mlp_out.99999",
        ),
        (lambda m: m.evaluate([PAIR], dataclasses.replace(foreign(m), shift=((99999, 0.5),))), "no token 99999"),
        (lambda m: m.evaluate([PAIR[:2]]), "not a .prompt, answer, foil.; give a list"),
        (lambda m: m.evaluate(PAIR), '"x = \'hello": not a .prompt, answer, foil.; give a list'),
        (lambda m: m.evaluate([(*PAIR, "rest")]), "each of three texts"),
        (lambda m: m.evaluate([{"prompt": "x", "answer": "y"}]), "each of three texts"),
        (lambda m: m.evaluate(5), "no prompts to evaluate"),
        (lambda m: m.evaluate(Path("nowhere.jsonl")), "nowhere.jsonl"),
        (lambda m: m.run(np.zeros((1, 2, 3), int)), r"prompts: int64 of shape \(1, 2, 3\); give"),
        (lambda m: m.run(np.array([1.7, 2.2])), "prompts: float64 .* whole token ids"),
        (lambda m: m.run(np.array([2**32 + 5])), "token ids 4294967301 to"),
        (lambda m: m.run(b"x"), "prompts: b'x': give a text"),
        (lambda m: m.run([[1, 2]]), "prompts: ..1, 2..: give a text"),
        (lambda m: m.run(5), "prompts: 5: give a text"),
        (lambda m: m.run("x").most_likely(5), "prompt 5: the run has 1, counted from 0; .* `count`"),
        (lambda m: m.run("x").most_likely(count=-1), "count -1: give how many tokens"),
        (lambda m: m.run("x", record=None), "record None: give a node site"),
        (lambda m: sg.patch([(0, "mlp_out", 3)], None), "patch from None: give a run"),
        (lambda m: sg.steer([(0, "mlp_out", 3)], None), "steer by None: give a number"),
        (
            lambda m: sg.steer([(0, "mlp_out", 3)], [[1.0], [1.0, 2.0]]),
            r"steer by \[\[1.0\], \[1.0, 2.0\]\]: give a num",
        ),
        (lambda m: sg.steer([(0, "mlp_out", 3)], np.array([["a"], ["b"]])), "steer by array.*: give a number"),
        (
            lambda m: sg.steer([(0, "mlp_out", 3)], np.ones(7))("mlp_out", 0, jax.numpy.zeros((1, 5, 9))),
            r"steer by an array \(7,\): mlp_out of layer 0 has \(1, 5, 1\) .prompts, tokens, nodes. to add to; give",
        ),
        (lambda m: sg.ablate([(0, "mlp_out", 3)], 0.0), "values 0.0: give site -> .* Model.node_means.. does; without"),
        (lambda m: sg.ablate([(0, "mlp_out", 3)], np.zeros((3, 9))), "values array.*: give site -> "),
        (lambda m: sg.ablate([(0, "mlp_out", 3)], {"mlp_out": [[0.0], [0.0, 1.0]]}), r"values of mlp_out: .* give num"),
        (
            lambda m: sg.ablate([(0, "mlp_out", 3)], {"mlp_out": [["a"]]}),
            r"values of mlp_out: \[\['a'\]\]; give numbers",
        ),
        (lambda m: A_RUN.probabilities(0.0), "prompt 0.0: the run has 1, counted from 0"),
        (lambda m: A_RUN.probabilities(None), "prompt None: the run has 1"),
        (lambda m: A_RUN.most_likely(np.array([0, 0])), r"prompt array\(\[0, 0\]\): the run has 1"),
        (lambda m: A_RUN[["mlp_out", 0]], r"\['mlp_out', 0\]: not recorded; recorded are \[\('mlp_out', 0\)\]"),
        (lambda m: m.circuit(None), "circuit None: give the name of a task"),
        (lambda m: m.problem(None), "task None: give the name of a task"),
        (lambda m: m.find_circuit(5), "task 5: give the name of a task"),
        (lambda m: m.evaluate([PAIR], "for_while"), "evaluate 'for_while': give a circuit"),
        (lambda m: sg.compare(foreign(m), None), "compare None: give a circuit"),
        (lambda m: sg.open(5), r"sg.open\(5\): give a folder, or a name from laptop"),
        (lambda m: sg.open(None), r"sg.open\(None\): give a folder"),
    ],
)
def test_what_does_not_fit_the_model_gets_one_line(laptop: sg.Model, call: Any, message: str) -> None:
    with pytest.raises(sg.InputError, match=message) as caught:
        call(laptop)
    assert "\n" not in str(caught.value)


def test_other_forms_of_the_same_input(laptop: sg.Model, tmp_path: Path) -> None:
    """Nodes by their keys, one site, rows as a file has them, the path of a file."""
    by_key = laptop.run("x = 1", sg.ablate(["0.mlp_out.3"]), record="mlp_out")
    as_tuple = laptop.run("x = 1", sg.ablate([(0, "mlp_out", np.int64(3))]), record=["mlp_out"])
    np.testing.assert_array_equal(by_key.logits, as_tuple.logits)
    assert set(by_key.activations) == set(as_tuple.activations)
    rows = [{"prompt": f"x{i} = {q}hello", "answer": q, "foil": f} for i in range(32) for q, f in ("'\"", "\"'")]
    as_rows = laptop.evaluate(rows[:2])
    expected = laptop.evaluate([(row["prompt"], row["answer"], row["foil"]) for row in rows[:2]])
    np.testing.assert_array_equal(as_rows.logits, expected.logits)
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    of_path, of_name = laptop.evaluate(tmp_path / "pairs.jsonl"), laptop.evaluate(str(tmp_path / "pairs.jsonl"))
    np.testing.assert_array_equal(of_path.logits, of_name.logits)


def test_lists_are_as_good_as_arrays() -> None:
    x, node = jax.numpy.zeros((1, 2, 3)), [(1, "mlp_out", 2)]
    values = [[0.0, 1.0, 2.0], [3, 4, 5]]
    for given in (values, np.array(values), jax.numpy.array(values)):
        assert sg.ablate(node, {"mlp_out": given})("mlp_out", 1, x)[..., 2].tolist() == [[5.0, 5.0]]
    for amount in ([[1.0], [2.0]], ((1,), (2,)), np.array([[1.0], [2.0]])):  # another one at every token
        assert sg.steer(node, amount)("mlp_out", 1, x)[..., 2].tolist() == [[1.0, 2.0]]
    for one in (3, np.float64(3), jax.numpy.float32(3), [3.0]):
        assert sg.steer(node, one)("mlp_out", 1, x)[..., 2].tolist() == [[3.0, 3.0]]
    for prompt in (0, -1, np.int64(0), np.array(0)):
        assert A_RUN.probabilities(prompt).tolist() == [1 / 9] * 9


def found_in(model: sg.Model) -> sg.FoundCircuit:
    """As `find_circuit` returns it."""
    nodes = tuple(sg.Node(0, "mlp_out", channel) for channel in range(9))
    return sg.FoundCircuit(dataclasses.replace(foreign(model), nodes=nodes), True, cast(Any, None), None)


def test_what_find_circuit_returns_stands_for_its_circuit(laptop: sg.Model) -> None:
    found = found_in(laptop)
    circuit = found.circuit
    assert sg.compare(found, circuit) == sg.compare(found, found) == sg.compare(circuit, circuit)
    source = laptop.run("y", record="mlp_out")
    x = jax.numpy.asarray(source["mlp_out", 0]) + 1
    for tap in (sg.keep, sg.ablate, lambda given: sg.patch(given, source), lambda given: sg.steer(given, 1.0)):
        changed = tap(found)("mlp_out", 0, x)
        np.testing.assert_array_equal(changed, tap(circuit)("mlp_out", 0, x))
        assert (changed != x).any()


@pytest.mark.slow
def test_what_find_circuit_returns_is_evaluated(laptop: sg.Model) -> None:
    found = found_in(laptop)
    logits = laptop.evaluate([PAIR], found).logits
    np.testing.assert_array_equal(logits, laptop.evaluate([PAIR], found.circuit).logits)
    assert np.abs(logits - laptop.evaluate([PAIR]).logits).max() > 1e-3


def test_a_circuit_of_the_same_sizes_runs(laptop: sg.Model) -> None:
    """Whichever weights it was found in."""
    circuit = foreign(laptop)
    assert np.isfinite(laptop.run("x", sg.keep(circuit), sg.ablate(circuit)).logits).all()
    assert np.isfinite(laptop.evaluate([PAIR], circuit).task_loss)
