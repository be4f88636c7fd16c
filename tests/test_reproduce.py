"""launch.reproduce: the table, the exit codes, and kills that hit and are counted."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch import reproduce
from sparse_gpt import interruption
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import (
    harness,
    killed_runs,
    results,
)
from sparse_gpt.experiments.harness import at_least, at_most, equal
from sparse_gpt.experiments.killed_runs import disturb
from sparse_gpt.experiments.registry import EXPERIMENTS
from sparse_gpt.interruption import Interrupted
from tests import report_workdirs
from tests.inprocess import launch_here

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_table_is_shown() -> None:
    done = launch_here("reproduce", "--list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    for line, experiment in zip(lines, EXPERIMENTS.values(), strict=True):
        assert experiment.cost in line
        assert experiment.proves in line


@pytest.mark.parametrize(
    ("flags", "reported"),
    [
        (("--experiment=alchemy", "--workdir=x"), "alchemy: choose one of"),
        (("--experiment=torture",), "--workdir"),
        (
            ("--experiment=torture", "--workdir=x", "--task=for_while"),
            "--task=for_while: --experiment=torture takes none",
        ),
    ],
)
def test_bad_input_is_one_line(flags: tuple[str, ...], reported: str) -> None:
    done = launch_here("reproduce", *flags)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert reported in done.stderr


@pytest.mark.parametrize(("measured", "code"), [(0.1, 0), (0.2, 3)])
def test_a_miss_is_printed_written_and_ends_with_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: float, code: int
) -> None:
    made = [equal("bits", 1, 1), at_most("loss", measured, 0.15)]
    fake = harness.Experiment("nothing", "none", lambda folder: made)
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"fake": fake})
    done = launch_here("reproduce", "--experiment=fake", f"--workdir={tmp_path}")
    assert done.returncode == code, done.stderr
    word = "ok  " if code == 0 else "MISS"
    assert f"{word}  loss: {measured} (expected at most 0.15)" in done.stdout.splitlines()
    held = json.loads((tmp_path / "reproduce.json").read_text())
    assert [row["holds"] for row in held["figures"]] == [True, code == 0]


def test_a_page_of_results_has_command_numbers_and_tables_and_keeps_what_is_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> list[harness.Check]:
        (folder / "sizes.csv").write_text("task,edges,loss\ncopy,12,0.123456\n")
        return [at_most("loss", 0.2, 0.15), equal("bits", "ab", "ab")]

    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"fake": harness.Experiment("nothing", "none", run)})
    page = tmp_path / "page.md"
    page.write_text(f"# old\n\n{results.BY_HAND}\n\nWhat it means.\n")
    for _ in range(2):
        done = launch_here("reproduce", "--experiment=fake", f"--workdir={tmp_path / 'run'}", f"--page={page}")
        assert done.returncode == 3, done.stderr
    text, made = page.read_text(), (tmp_path / "run" / "results.md").read_text()
    assert made + f"\n{results.BY_HAND}\n\nWhat it means.\n" == text
    lines = text.splitlines()
    assert lines[0] == "# fake"
    assert lines[2] == "- Command: `python -m launch.reproduce --experiment=fake --workdir=DIR`"
    assert str(tmp_path) not in text
    assert "- Result: **misses** loss" in lines
    assert "| loss | 0.2 | at most 0.15 | **miss** |" in lines
    assert lines[lines.index("## sizes") + 2 :][:3] == [
        "| task | edges | loss |",
        "|---|---|---|",
        "| copy | 12 | 0.1235 |",
    ]


def test_a_page_without_the_marker_is_refused_before_the_experiment_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Path] = []

    def run(folder: Path) -> list[harness.Check]:
        ran.append(folder)
        return [equal("bits", 1, 1)]

    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"fake": harness.Experiment("nothing", "none", run)})
    page, new = tmp_path / "page.md", tmp_path / "new.md"
    page.write_text("# By hand\n")

    def reproduced(path: Path) -> "subprocess.CompletedProcess[str]":
        return launch_here("reproduce", "--experiment=fake", f"--workdir={tmp_path / 'run'}", f"--page={path}")

    done = reproduced(page)
    assert (done.returncode, ran, page.read_text()) == (2, [], "# By hand\n")
    assert len(done.stderr.splitlines()) == 1
    assert f"--page={page}: has no line {results.BY_HAND}; put that line above what is to stay" in done.stderr
    for _ in range(2):  # what it has made itself, it takes
        assert reproduced(new).returncode == 0
    assert new.read_text() == (tmp_path / "run" / "results.md").read_text() + f"\n{results.BY_HAND}\n"


def test_an_infinite_number_is_a_miss_and_null_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [at_most("high", math.inf, 0.15), at_least("low", math.inf, 5), at_most("none", math.nan, 1)]
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"fake": harness.Experiment("nothing", "none", lambda _: made)})
    done = launch_here("reproduce", "--experiment=fake", f"--workdir={tmp_path}")
    assert done.returncode == reproduce.MISSED, done.stderr
    assert [line.split("  ")[:2] for line in done.stdout.splitlines()[:3]] == [
        ["MISS", "high: inf (expected at most 0.15)"],
        ["MISS", "low: inf (expected at least 5)"],
        ["MISS", "none: nan (expected at most 1)"],
    ]
    held = json.loads((tmp_path / "reproduce.json").read_text())
    assert [row["measured"] for row in held["figures"]] == [None, None, None]
    assert "| high | inf | at most 0.15 | **miss** |" in (tmp_path / "results.md").read_text()


def test_limits_hold_on_their_edge() -> None:
    assert at_most("x", 0.15, 0.15).holds
    assert at_least("x", 50, 50).holds
    assert not at_most("x", 0.1501, 0.15).holds
    assert not at_least("x", 49, 50).holds
    assert not equal("x", "ab", "abc").holds


RUN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1]) / "checkpoints"
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
folder.mkdir(parents=True, exist_ok=True)
(folder / str(len(list(folder.iterdir())))).mkdir()
time.sleep(60 if len(list(folder.iterdir())) <= int(sys.argv[3]) else 0)
"""


def pretend(monkeypatch: pytest.MonkeyPatch, workdir: Path, code: int, stops: int) -> None:
    """Replaces training by a process that writes one checkpoint, then waits, in each of its first `stops` starts."""

    def script(*_: str, **__: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-S", "-c", RUN, str(workdir), str(code), str(stops)])

    monkeypatch.setattr(killed_runs, "script", script)
    monkeypatch.setattr(harness, "script", script)


def test_kills_that_hit_are_counted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, interruption.EXIT_CODE, stops=3)
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    # The fourth start runs to its end (or is hit while it ends), so at least three hit.
    hits = disturb(tmp_path, [], signals, random.Random(0), early=0.0)
    assert hits in (3, 4)
    monkeypatch.setattr(killed_runs, "script", None)  # what is recorded is not done again
    assert disturb(tmp_path, [], signals, random.Random(0)) == hits


def test_kills_are_counted_as_they_happen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two kills, then reproduce itself is stopped: the next call sends only the rest."""
    pretend(monkeypatch, tmp_path, interruption.EXIT_CODE, stops=9)
    signals, sent = [signal.SIGKILL] * 4, []

    def wait_for(process: "subprocess.Popen[bytes]") -> int:
        code = harness.wait_for(process)
        sent.append("kill" if len(sent) != 2 else "stopped")
        if sent[-1] == "stopped":
            raise Interrupted("stopped")
        return code

    monkeypatch.setattr(killed_runs, "wait_for", wait_for)
    monkeypatch.setattr(killed_runs, "finish", lambda *_: None)
    with pytest.raises(Interrupted):
        disturb(tmp_path, [], signals, random.Random(0), early=0.0)
    assert disturb(tmp_path, [], signals, random.Random(0), early=0.0) == 4
    assert sent == ["kill", "kill", "stopped", "kill", "kill"]


def test_a_run_that_has_ended_uncounted_begins_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = report_workdirs.write_workdir(tmp_path / "disturbed", circuits=False)
    for step in range(5):  # as many as the process that stands for training has to stop at
        (workdir / "checkpoints" / str(step)).mkdir(parents=True)
    pretend(monkeypatch, workdir, interruption.EXIT_CODE, stops=1)
    assert disturb(workdir, [], [signal.SIGKILL], random.Random(0), early=0.0) == 1
    assert "begins anew" in capsys.readouterr().out
    (workdir / "metrics.jsonl").write_text("kept")
    assert disturb(workdir, [], [signal.SIGKILL], random.Random(0), early=0.0) == 1
    assert (workdir / "metrics.jsonl").is_file(), "what is counted stays"


def test_a_run_that_fails_is_no_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, code=1, stops=1)
    with pytest.raises(InputError, match="exit code 1 after SIGTERM"):
        disturb(tmp_path, [], [signal.SIGTERM], random.Random(0), early=0.0)


def test_a_signal_is_passed_on_to_the_script_that_runs_and_75_of_a_script_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, tmp_path, code=75, stops=1)
    parent = os.getpid()

    def tell() -> None:
        while not list((tmp_path / "checkpoints").glob("*")):
            time.sleep(0.01)
        os.kill(parent, signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    process = harness.script("train")
    with pytest.raises(Interrupted):
        harness.wait_for(process)
    thread.join()
    assert process.returncode == 75
    monkeypatch.setattr(
        harness, "script", lambda *_, **__: subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(75)"])
    )
    with pytest.raises(Interrupted):
        harness.finish("train")
