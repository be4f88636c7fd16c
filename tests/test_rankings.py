"""The experiments on one model: tables, figures, and what they take from a finished search."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sparse_gpt.errors import InputError
from sparse_gpt.experiments import rankings
from sparse_gpt.experiments.rankings import SEARCH
from sparse_gpt.records import Search, read_workdir
from sparse_gpt.records.search import RankingSizes
from sparse_gpt.report.page import render
from sparse_gpt.tasks import TASKS, AnyTask
from tests import report_workdirs


def _row(model: str, task: str, edges: int, target: float = 0.15, reached: bool = True) -> dict[str, Any]:
    return {"model": model, "task": task, "target_loss": target, "edges": edges, "nodes": edges, "reached": reached}


def test_ratios_compare_what_reached_the_target() -> None:
    rows = [_row(SEARCH, "a", 10), _row(SEARCH, "b", 20), _row(SEARCH, "c", 5), _row(SEARCH, "a", 99, target=0.5)]
    rows += [_row("attribution", "a", 40), _row("attribution", "b", 180), _row("attribution", "c", 1, reached=False)]
    rows += [_row("random", "a", 5), _row("integrated gradients", "c", 5, reached=False)]
    found = rankings.check_ratios(rows)
    assert [(figure.measured, figure.holds) for figure in found] == [
        (pytest.approx(6), True),
        (pytest.approx(0.5), False),
        (0, False),
    ]
    assert "attribution over the mask search's (2 tasks)" in found[0].name


WEIGHTS = "ef" * 32


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workdir with circuits of two tasks, as `prune` leaves them; its weights are named and not there."""
    monkeypatch.setattr(rankings, "Workdir", lambda folder: SimpleNamespace(params_sha256=WEIGHTS))
    workdir = report_workdirs.write_workdir(tmp_path / "a model")
    for path in workdir.glob("circuits/*/search.json"):
        search = json.loads(path.read_text()) | {"task": path.parent.name, "params_sha256": WEIGHTS}
        for curve in (search["loss_versus_size"], *(entry["loss_versus_size"] for entry in search["baselines"])):
            for point in curve:
                point["ablated_task_loss"] = 0.05 * point["nodes"]
        path.write_text(json.dumps(search))
    return workdir


def test_necessity_of_a_finished_workdir(finished: Path, tmp_path: Path) -> None:
    """Written by `launch.report` at the end, which reads the new numbers too."""
    task = "bracket_counting"
    found = rankings.necessity(tmp_path / "out", str(finished), [TASKS[task]])
    search = json.loads((finished / "circuits" / task / "search.json").read_text())
    lines = (tmp_path / "out" / "necessity.csv").read_text().splitlines()
    assert lines[0] == "ranking,task,nodes,edges,ablated_task_loss"
    assert len(lines) == 1 + 4 * len(search["loss_versus_size"])
    assert (tmp_path / "out" / "necessity.png").read_bytes().startswith(b"\x89PNG")
    enough = min(p["nodes"] for p in search["loss_versus_size"] if p["nodes"] >= 14)  # 14 nodes reach 0.15
    assert [figure.measured for figure in found] == [0.81, pytest.approx(0.05 * enough)]
    assert "the model without them" in (finished / "report" / "index.html").read_text()


@pytest.mark.slow
def test_sizes_are_found_once(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, calls = "single_double_quote", []

    def found(workdir: Path, search: Search, task: AnyTask) -> tuple[RankingSizes, ...]:
        calls.append((workdir, task.name))
        assert search.size_versus_target is not None
        points = search.size_versus_target.points
        dearer = tuple(msgspec.structs.replace(point, edges=3 * point.edges) for point in points)
        return (
            RankingSizes(ranking=SEARCH, points=points),
            RankingSizes(ranking="integrated_gradients", points=dearer),
        )

    monkeypatch.setattr(rankings, "rank", found)
    for _ in range(2):
        (figure,) = rankings.attribution_vs_learned(tmp_path / "out", str(finished), [TASKS[task]])
    assert calls == [(finished, task)]
    assert (figure.measured, figure.holds) == (pytest.approx(3), True)
    lines = (tmp_path / "out" / "attribution-vs-learned.csv").read_text().splitlines()
    assert lines[0].startswith("model,task,target_loss,nodes,edges")
    assert len(lines) == 1 + 2 * 4
    page = (finished / "report" / "index.html").read_text()
    assert "Size versus target loss" in page
    assert "integrated gradients" in page

    path = finished / "circuits" / task / "search.json"  # another search: its sizes are found anew
    search = json.loads(path.read_text())
    path.write_text(json.dumps(search | {"hyperparameters": {"learning_rate": 1.0}}))
    monkeypatch.setattr(rankings, "finish", lambda *_: None)
    rankings.attribution_vs_learned(tmp_path / "out", str(finished), [TASKS[task]])
    assert len(calls) == 2


def test_a_circuit_of_other_weights_is_searched_anew(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, ran = TASKS["bracket_counting"], []
    path = finished / "circuits" / task.name / "search.json"
    of_these = path.read_text()
    path.write_text(of_these.replace(WEIGHTS, "cd" * 32))

    def finish(name: str, *flags: str) -> None:
        ran.append((name, flags[:2]))
        path.write_text(of_these)

    monkeypatch.setattr(rankings, "finish", finish)
    for _ in range(2):
        assert rankings.find_search(finished, task).params_sha256 == WEIGHTS
    assert ran == [("prune", (f"--workdir={finished}", f"--task={task.name}"))]


def test_a_circuit_that_is_older_than_sizes_at_targets_is_named(finished: Path, tmp_path: Path) -> None:
    task = TASKS["bracket_counting"]
    path = finished / "circuits" / task.name / "search.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size_versus_target": None}))
    for experiment in (rankings.necessity, rankings.attribution_vs_learned):
        with pytest.raises(
            InputError, match=r"bracket_counting/search\.json: size_versus_target is missing; delete it"
        ):
            experiment(tmp_path / "out", str(finished), [task])


def test_the_report_tells_how_a_circuit_was_searched(finished: Path) -> None:
    path = finished / "circuits" / "bracket_counting" / "circuit.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"tie_qk": True, "tasks": [{"task": "one_of_them", "task_loss": 0.1234}]}))
    reported = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", render(read_workdir(finished)))
    assert ("task loss, one_of_them", "0.123") in reported
    assert reported.count(("gates of q and k", "tied")) == 1  # not in the other circuit


def test_what_cannot_be_shown_is_reported(finished: Path, tmp_path: Path) -> None:
    search = json.loads((finished / "circuits" / "bracket_counting" / "search.json").read_text())
    del search["baselines"][1]["loss_versus_size"][0]["ablated_task_loss"]
    with pytest.raises(InputError, match=r"bracket_counting/search\.json: has no losses after ablation"):
        rankings.losses_without(Search.from_tree(search), "bracket_counting")
    with pytest.raises(InputError, match="--model=moon: no such folder; stored models are laptop"):
        rankings.necessity(tmp_path, "moon", [TASKS["bracket_counting"]])
