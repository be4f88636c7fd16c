"""Stages: what is kept of one, when it is run again, and that what cannot be read is as none."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse_gpt.circuits.stages import Stages

RESULT = {"gates": np.array([0.0, 1.0], np.float32), "rows": [{"loss": 0.1 + 0.2, "reached": True, "none": None}]}


class Stage:
    """Counts how often it is run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> dict[str, Any]:
        self.runs += 1
        return RESULT


def assert_kept(found: Any) -> None:
    np.testing.assert_array_equal(found["gates"], RESULT["gates"])
    assert found["gates"].dtype == np.float32
    assert found["rows"] == RESULT["rows"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_stage_is_run_once_for_the_same_inputs(kept: bool, tmp_path: Path) -> None:
    stage, stages = Stage(), Stages(tmp_path / "task" if kept else None, {"weights": "ab"})
    for inputs, runs in (([1, 2], 1), ((1, 2), 1), ([1, 3], 2), ([1, 3], 2)):
        assert_kept(stages.run("name", inputs, stage))
        assert stage.runs == runs
    assert_kept(stages.run("another", [1, 3], stage))
    assert stage.runs == 3
    assert_kept(Stages(stages.folder, {"weights": "ab"}).run("name", [1, 3], stage))
    assert stage.runs == (3 if kept else 4)


def test_the_seconds_of_stages_that_an_earlier_process_finished_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 13.0, 20.0, 24.5])  # before and after each of two stages
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    first = Stages(tmp_path, {})
    for name in ("one", "two", "one"):
        first.run(name, None, Stage())
    assert first.seconds_before == 0
    later = Stages(tmp_path, {})
    for name in ("one", "two", "one"):
        later.run(name, None, Stage())
    assert later.seconds_before == 7.5


def test_a_folder_for_something_else_is_emptied(tmp_path: Path) -> None:
    stage, folder = Stage(), tmp_path / "task"
    for made_for, runs in (({"weights": "ab"}, 1), ({"weights": "ab"}, 1), ({"weights": "cd"}, 2), ({}, 3)):
        Stages(folder, made_for).run("name", None, stage)
        assert stage.runs == runs
    (folder / "made_for.json").write_text("{")
    Stages(folder, {}).run("name", None, stage)
    assert stage.runs == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"inputs", b"outputs"),
        lambda data: data.replace(b"array 0", b"array 7"),
        lambda data: b"not an archive",
    ],
    ids=["empty", "cut", "other keys", "another array", "text"],
)
def test_a_damaged_record_is_as_none(damage: Any, tmp_path: Path) -> None:
    stage = Stage()
    Stages(tmp_path, {}).run("name", 1, stage)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(damage(path.read_bytes()))
    assert_kept(Stages(tmp_path, {}).run("name", 1, stage))
    assert stage.runs == 2
