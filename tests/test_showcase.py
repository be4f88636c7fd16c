"""Predictions on unusual inputs: what the prompts are, and how a circuit is measured beside its model."""

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_gpt import stored
from sparse_gpt.circuits import Circuit, Node
from sparse_gpt.experiments import laptop_circuits, predictions
from sparse_gpt.io import write_json
from sparse_gpt.model.taps import site_widths
from sparse_gpt.workdir import Workdir
from tests import report_workdirs

BY_TASK = {prediction.task: prediction for prediction in predictions.PREDICTIONS}


def test_levels_count_what_they_say() -> None:
    pair = predictions.quotes(2, random.Random(1))
    assert (pair.first.prompt.count('"'), pair.first.prompt.count("'")) == (4, 1)
    assert (pair.second.prompt.count('"'), pair.second.prompt.count("'")) == (1, 4)
    assert pair.first.prompt.translate({39: 34}) == pair.second.prompt.translate({39: 34})
    pair = predictions.entries(2, random.Random(1))
    assert (pair.first.prompt.count('": '), pair.second.prompt.count('", ')) == (2, 2)
    assert pair.first.prompt.replace("{", "[").replace('":', '",') == pair.second.prompt
    assert pair.first.prompt.count('"') == 5  # the last string is open
    pair = predictions.beginnings(3, random.Random(1))
    assert (pair.first.prompt.count("set()"), pair.first.prompt.count('""')) == (1, 3)
    assert (pair.second.prompt.count("set()"), pair.second.prompt.count('""')) == (3, 1)
    assert 'current = ""\nfor ' in pair.second.prompt
    pair = predictions.brackets(5, random.Random(1))
    assert pair.first.prompt.count(",") == 4
    assert pair.second.prompt == pair.first.prompt.replace("[", "[[")
    pair = predictions.distances(3, random.Random(1))
    assert pair.first.prompt.replace(", ", "_") == pair.second.prompt
    assert pair.first.prompt.split(", ")[1].count("_") == 3
    pair = predictions.swaps(3, random.Random(1))
    lines, others = pair.first.prompt.splitlines(), pair.second.prompt.splitlines()
    assert lines[:-1] == others[:-1]
    assert len(lines) == 4
    first, second = lines[-1].removesuffix(",").split(" = ")[0].split(", ")
    assert lines[-1] == f"{first}, {second} = {second},"
    assert others[-1] == f"{second}, {first} = {first},"
    assert (pair.first.answer, pair.second.answer) == (f" {first}", f" {second}")


def test_the_margin_is_that_of_one_side_or_of_both() -> None:
    rows = [
        {"level": level, "model": model, "logit_difference": 10.0 * level + value}
        for level in (0, 1)
        for model, values in (("circuit", (7.0, 7.0)), ("full model", (1.0, 3.0)))
        for value in values
    ]
    assert [predictions.mean_margin(rows, 1, side) for side in (None, 0, 1)] == [12.0, 11.0, 13.0]


@pytest.mark.parametrize("task", BY_TASK)
def test_the_answer_of_one_is_the_foil_of_the_other(task: str) -> None:
    for level in BY_TASK[task].levels:
        pair = BY_TASK[task].pair(level, random.Random(level))
        assert (pair.first.answer, pair.first.foil) == (pair.second.foil, pair.second.answer)
        assert pair.first.prompt != pair.second.prompt


@pytest.mark.slow
def test_sizes_of_the_laptop_models_circuits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Means over the tasks that the short search refined; the quote circuit of the preset's own search beside them."""
    circuit, _ = report_workdirs.quote_circuit()
    edges = {"single_double_quote": (40, 20, 10), "for_while": (90, 80, 40), "class_init": (999,)}  # by stage

    def finish(name: str, *flags: str) -> None:
        if name == "prune":
            assert set(laptop_circuits.SHORTER) < set(flags)
            for task, sizes in edges.items():
                place = tmp_path / "laptop" / "circuits" / task
                named = zip(laptop_circuits.STAGES, sizes, strict=False)
                stages = [{"stage": stage, "nodes": 1, "edges": count} for stage, count in named]
                write_json(place / "circuit.json", {**circuit, "task": task})
                write_json(place / "search.json", {**report_workdirs.search(circuit), "task": task, "stages": stages})

    def prune(workdir: Path, task: str, *flags: str) -> SimpleNamespace:
        assert (workdir, task, flags) == (tmp_path / "single_double_quote", "single_double_quote", ())
        return SimpleNamespace(edges=26 * ["an edge"])

    monkeypatch.setattr(laptop_circuits, "finish", finish)
    monkeypatch.setattr(laptop_circuits, "prune", prune)
    found = {x.name: (x.measured, x.holds) for x in laptop_circuits.laptop_circuits(tmp_path)}
    assert found["tasks with a circuit"] == (3, False)
    assert found["edges of circuits that were not refined"] == ("class_init: 999", True)
    assert found["edges of the quote circuit"] == (26, False)
    means = [value for name, (value, _) in found.items() if "geometric mean" in name]
    assert means == pytest.approx([60, 40, 20])
    assert (tmp_path / "laptop-circuits.csv").read_text().count("\n") == 4


@pytest.mark.slow
def test_a_circuit_of_all_nodes_is_the_model(workdir: Path) -> None:
    """Calibration included: scale 2 doubles every logit difference, a shift moves those of its token."""
    stored.unpack("laptop", workdir)
    run = Workdir(workdir)
    widths, m = site_widths(run.config.model), run.config.model
    nodes = tuple(Node(i, site, c) for site, width in widths.items() for i in range(m.n_layer) for c in range(width))
    answer = run.tokenizer.encode("x')\n")[-1]
    circuit = Circuit(
        task="single_double_quote",
        params_sha256=run.params_sha256,
        ablation="mean",
        norm="live",
        target_loss=0.15,
        scale=2.0,
        shift=((answer, 0.5),),
        edge_pruned=False,
        nodes=nodes,
        edges=(),
        metrics={},
        values={site: np.zeros((m.n_layer, width), np.float32) for site, width in widths.items()},
    )
    circuit.save(workdir / "circuits" / "single_double_quote")
    rows = predictions.measure(dataclasses.replace(BY_TASK["single_double_quote"], levels=(0,)), run)
    found = {(row["model"], row["answer"]): row["logit_difference"] for row in rows}
    for text, sign in (("')\n", 1), ('")\n', -1)):
        assert found["circuit", text] == pytest.approx(2 * found["full model", text] + sign * 0.5, rel=1e-4)
    assert all(found["full model", text] > 1 for text in ("')\n", '")\n'))
