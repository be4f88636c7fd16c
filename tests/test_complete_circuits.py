"""The experiment on complete circuits: its settings, a row of its table from files, and what it asks of the rows."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.experiments import complete_circuits
from sparse_gpt.records import Card, Circuit, Search
from sparse_gpt.tasks import TASKS
from tests import report_workdirs

GOOD: dict[str, Any] = {
    "task": "a",
    "nodes": 20,
    "edges": 30,
    "minimal_edges": 20,
    "cut_edges": 40,
    "integrated_gradients_edges": 50,
    "scale": 4.0,
    "searched_worst": 0.1,
    "novel_worst": 0.12,
    "novel_accuracy": 0.97,
    "text_agreement": 0.95,
    "ablated_least": 0.8,
    "seconds": 100,
}


def test_a_good_table_holds_and_each_fault_is_found() -> None:
    assert all(check.holds for check in complete_circuits.checks([GOOD, GOOD]))
    faults = {
        "edges": 1000, "minimal_edges": 100, "cut_edges": None, "scale": 7.0, "searched_worst": 0.2, "novel_worst": 0.3,
        "novel_accuracy": 0.9, "text_agreement": 0.5, "ablated_least": 0.5, "seconds": 1000,
    }  # fmt: skip
    missed = {}
    for key, value in faults.items():
        found = complete_circuits.checks([GOOD | {key: value}])
        missed[key] = [i for i, check in enumerate(found) if not check.holds]
        assert len(missed[key]) == 1, key
    assert len({*map(tuple, missed.values())}) == len(faults), "no two faults are one check"
    worse = complete_circuits.checks([GOOD | {"novel_worst": 0.6}])
    assert [check.holds for check in worse].count(False) == 2


def test_shares_are_of_the_tasks_that_have_such_samples() -> None:
    without = GOOD | {"novel_worst": None, "novel_accuracy": None, "text_agreement": None}
    assert all(check.holds for check in complete_circuits.checks([GOOD, without, without]))
    found = {check.name: check for check in complete_circuits.checks([GOOD, GOOD | {"novel_worst": 0.3}, without])}
    novel = found["tasks at 0.15 on novel families (of 2)"]
    assert (novel.measured, novel.expected, novel.holds) == (1, "at least 1.5", False)
    nothing = complete_circuits.checks([without])
    assert [check.measured for check in nothing if "no task has samples" in check.name] == [None] * 4


def test_a_minimal_circuit_may_have_no_edge() -> None:
    found = complete_circuits.checks([GOOD | {"minimal_edges": edges} for edges in (0, 16, None)])
    assert found[1].measured == pytest.approx(4)


def test_a_loss_that_is_not_finite_is_no_missing_sample() -> None:
    assert complete_circuits._extreme(max, []) is None
    assert complete_circuits._extreme(max, [0.1, None]) == math.inf
    assert complete_circuits._extreme(min, [0.1, None]) == -math.inf


def test_flags_are_settings_of_the_prune_group() -> None:
    preset, given = presets.preset("laptop"), {}
    for name, text in (flag.removeprefix("--config.").split("=") for flag in complete_circuits.FLAGS):
        kind = type(getattr(preset.prune, name.removeprefix("prune.")))
        given[name] = kind(text) if kind in (int, float) else text
    found: Config = configs.replace(preset, given)
    assert (found.prune.search, found.prune.families, found.prune.largest_scale) == ("path", ("all", "natural"), 1)
    assert found.prune.starts == ("integrated_gradients",)


def test_one_process_searches_all_and_rows_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = report_workdirs.write_workdir(tmp_path / "model")
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(complete_circuits, "finish", lambda *command: ran.append(command))
    chosen = [TASKS[path.parent.name] for path in sorted(workdir.glob("circuits/*/circuit.json"))]
    complete_circuits.complete_circuits(tmp_path / "out", str(workdir), chosen)
    assert [command[0] for command in ran] == ["prune", "report"]
    assert f"--task={','.join(task.name for task in chosen)}" in ran[0]
    lines = (tmp_path / "out" / complete_circuits.TABLE).read_text().splitlines()
    assert len(lines) == 1 + len(chosen)
    for task, line in zip(chosen, lines[1:], strict=True):
        folder = workdir / "circuits" / task.name
        circuit, search = Circuit.read(folder / "circuit.json"), Search.read(folder / "search.json")
        row = complete_circuits.read_row(folder)
        assert line.startswith(f"{task.name},{circuit.metrics.nodes},{circuit.metrics.edges},")
        card = Card.read_if_any(folder / "card.json")
        assert row["card_judged"] == (0 if card is None else sum(r.verdict != "not applicable" for r in card.rows))
        reached = [trial.edges for trial in search.trials if trial.reached and trial.edges is not None]
        assert row["cut_edges"] == min(reached, default=None)


def test_a_search_that_reached_nothing_has_no_size(tmp_path: Path) -> None:
    workdir = report_workdirs.write_workdir(tmp_path / "model")
    folder = min(workdir.glob("circuits/*/circuit.json")).parent
    search = Search.read(folder / "search.json")
    assert complete_circuits.read_row(folder)["cut_edges"] is not None
    trials = tuple(msgspec.structs.replace(trial, reached=False) for trial in search.trials)
    msgspec.structs.replace(search, trials=trials).write(folder / "search.json")
    assert complete_circuits.read_row(folder)["cut_edges"] is None
