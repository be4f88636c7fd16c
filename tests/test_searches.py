"""The experiment that sets the path search beside the paper's and beside rankings: its table, and what it asks."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparse_gpt.config import Config
from sparse_gpt.experiments import searches
from sparse_gpt.experiments.harness import Check
from sparse_gpt.tasks import TASKS, AnyTask
from sparse_gpt.tasks.own import OwnTask
from tests import report_workdirs


def _rows(paper: int = 40, path: int = 20, ranking: int = 30, refined: tuple[int, int] = (20, 15)) -> list[Any]:
    """Of one task and seed."""
    place = {"task": "single_double_quote", "seed": 0, "cut_nodes": 9, "cut_loss": 0.05, "reached": 1}
    ran = {"nodes": 8, "loss": 0.1, "search_seconds": 10.0, "refine_seconds": 5.0, "searches": 4}
    return [
        place | ran | {"search": "paper", "cut_edges": paper, "edges": refined[0]},
        place | ran | {"search": "path", "cut_edges": path, "edges": refined[1], "search_seconds": 5.0},
        place | ran | {"search": "ranked", "cut_edges": path, "edges": refined[1], "search_seconds": 2.5},
        place | {"search": searches.RANKINGS, "ranking": "integrated_gradients", "cut_edges": ranking},
    ]


def _figures(rows: list[Any]) -> list[Check]:
    """Without those that count what did not reach the target."""
    return [check for check in searches.checks(rows) if "did not reach" not in check.name]


def test_half_of_the_edges_and_no_ranking_ahead() -> None:
    halved, ahead, refined, seconds, *ranked = _figures(_rows())
    assert (halved.measured, halved.holds) == (pytest.approx(2), True)
    assert (ahead.measured, ahead.holds) == (1, True)
    assert (refined.measured, refined.holds) == (pytest.approx(20 / 15), True)
    assert seconds.measured == pytest.approx(1.5)
    assert [check.measured for check in ranked] == [halved.measured, ahead.measured, refined.measured, pytest.approx(2)]
    assert not _figures(_rows(paper=39))[0].holds
    assert _figures(_rows(ranking=20))[1].holds, "as many edges are not more"
    *found, ranking = _rows(ranking=5)
    assert _figures([*found, ranking | {"reached": 0}])[1].holds, "a ranking that does not reach the target"
    assert not _figures([*found, ranking])[1].holds
    assert not _figures(_rows(refined=(15, 20)))[2].holds


def test_a_search_that_does_not_reach_the_target_is_never_ahead() -> None:
    """It has few edges, and as few after refinement, which had nothing to begin with."""
    paper, path, ranked, ranking = _rows(path=1, refined=(20, 1))
    failed = [paper, path | {"reached": 0}, ranked, ranking]
    for other in (ranking, ranking | {"reached": 0}):
        assert [check.measured for check in _figures([*failed[:3], other])[:3]] == [None, 0, None]
    halved, ahead, refined, *_ = _figures([*_rows(), *failed])
    assert (halved.measured, ahead.measured, refined.measured) == pytest.approx((2, 0.5, 20 / 15))
    lost = [paper | {"reached": 0, "cut_edges": 900}, *_rows()[1:]]
    assert [check.measured for check in _figures([*_rows(), *lost])[:3]] == pytest.approx([2, 1, 20 / 15])
    counts = [check for check in searches.checks([*_rows(), *failed]) if "did not reach" in check.name]
    assert [(check.name, check.measured) for check in counts] == [
        (f"{name}: did not reach the target, of 2 tasks and seeds", missed)
        for name, missed in (("paper", 0), ("path", 1), ("ranked", 0))
    ]
    assert "target missed" in searches._line(failed[1])
    assert "target missed" not in searches._line(paper)


def test_nine_of_ten_may_not_be_eight() -> None:
    most = [row for _ in range(9) for row in _rows()]
    assert _figures(most + _rows(ranking=19))[1].holds
    assert not _figures(most[4:] + _rows(ranking=19) + _rows(ranking=19))[1].holds


def test_the_table_has_a_line_for_every_task_seed_and_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def kept(folder: Path, workdir: Path, task: AnyTask, name: str, seed: int) -> Any:
        asked.append((task.name, seed, name))
        (row,) = (row for row in _rows() if row["search"] == name)
        return row | {"task": task.name, "seed": seed}

    def solved(run: object, task: str, batch: object) -> None:
        assert not asked
        checked.append(task)

    checked: list[str] = []
    monkeypatch.setattr(searches, "Workdir", lambda folder, config: SimpleNamespace(config=config, tokenizer=None))
    monkeypatch.setattr(searches, "task_samples", lambda *rest: SimpleNamespace(validation=None))
    monkeypatch.setattr(searches, "require_solved", solved)
    monkeypatch.setattr(searches, "_kept", kept)
    model = report_workdirs.write_workdir(tmp_path / "model")
    tasks: list[AnyTask] = [TASKS["single_double_quote"], TASKS["while_return_true"]]
    searches.path_vs_paper(tmp_path / "out", str(model), tasks)
    assert checked == [task.name for task in tasks]
    assert len(set(asked)) == len(asked) == 2 * 3 * 4
    with (tmp_path / "out" / searches.TABLE).open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["task"], int(line["seed"]), line["search"]) for line in lines] == asked
    ranking = next(line for line in lines if line["search"] == searches.RANKINGS)
    assert (ranking["ranking"], ranking["edges"]) == ("integrated_gradients", "")  # rankings are not refined
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(asked)
    assert "(integrated_gradients)" in shown[3]


def test_rows_are_kept_for_the_same_weights_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures them is replaced."""
    model = report_workdirs.write_workdir(tmp_path / "model")
    task: AnyTask = TASKS["single_double_quote"]
    weights, searched = ["ab" * 32], []

    def workdir(folder: Path, config: Config) -> SimpleNamespace:
        return SimpleNamespace(
            config=config, params_sha256=weights[0], tokenizer=None, pretraining_activations=lambda: None
        )

    def build(run: SimpleNamespace, *rest: object) -> SimpleNamespace:
        return SimpleNamespace(settings=run.config.prune)

    def found(problem: SimpleNamespace) -> dict[str, int]:
        searched.append((problem.settings.search, problem.settings.seed))
        return {"cut_edges": len(searched)}

    monkeypatch.setattr(searches, "Workdir", workdir)
    monkeypatch.setattr(searches, "Problem", SimpleNamespace(build=build))
    monkeypatch.setattr(searches, "task_samples", lambda *rest: None)
    monkeypatch.setattr(searches, "measured", found)
    monkeypatch.setattr(searches, "smallest_ranking", found)

    def kept(name: str, seed: int) -> Any:
        return searches._kept(tmp_path / "out", model, task, name, seed)["cut_edges"]

    asked = [(name, seed) for seed in (0, 1) for name in (*searches.SEARCHES, searches.RANKINGS)]
    assert [kept(*each) for each in asked] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [kept(*each) for each in asked] == [1, 2, 3, 4, 5, 6, 7, 8], "read from files"
    assert searched == [(name, seed) for seed in (0, 1) for name in ("paper", "path", "path", "path")]
    weights[0] = "cd" * 32
    assert kept("path", 0) == 9, "of another model"
    older = tmp_path / "out" / "rows" / f"{task.name} path 0.json"
    row = json.loads(older.read_text())
    assert row["made_for"].pop("samples_sha256") == ""
    older.write_text(json.dumps(row))
    assert kept("path", 0) == 9, "a row that does not say of which file its samples are"
    task = OwnTask(task.name, "pairs.jsonl", "aa" * 32, {})
    assert [kept("path", 0), kept("path", 0)] == [10, 10], "of a file"
    task = OwnTask(task.name, "pairs.jsonl", "bb" * 32, {})
    assert kept("path", 0) == 11, "the file has changed"
