"""python -m launch.tasks: what a person sees, what is exported, and how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_gpt.data import idioms
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.tasks import SPLITS, VARIANTS
from tests.inprocess import launch_here

REPOSITORY = Path(__file__).resolve().parent.parent
FIELDS = ["task", "split", "variant", "family", "pair", "prompt", "answer", "foil", "tokens", "answer_id", "foil_id"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir whose tokenizer has 400 entries: enough for for_while, too few for class_init."""
    workdir = tmp_path_factory.mktemp("some runs")
    train_tokenizer(idioms.documents(0, 0, 300), 400).save(workdir / "tokenizer")
    return workdir


def _run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return launch_here("tasks", *map(str, arguments))


def _run_alone(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """As `_run`, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "launch.tasks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=300)


def test_show_prints_prompts_with_token_borders(folder: Path) -> None:
    done = _run(f"--tokenizer={folder / 'tokenizer'}", "--task=for_while,while_return_true", "--show=2", "--seed=1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("for_while: ")
    assert "  train, main, pair 1: answer ·in   foil :↵" in lines
    assert "  train, main, pair 2: answer :↵   foil ·in" in lines
    assert sum(line.endswith(" → ·in") for line in lines) == 2
    assert sum(line.endswith("|·True → ↵") for line in lines) == 2
    assert "\033" not in done.stdout


@pytest.mark.slow
def test_export_writes_pairs_that_follow_the_rule(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for target, run in ((first, _run), (second, _run_alone)):
        done = run(f"--workdir={folder}", "--task=for_while", f"--export={target}", "--pairs=3")
        assert (done.returncode, done.stderr) == (0, "")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["first.jsonl", "second.jsonl"]
    entries = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    seen, novel = (*VARIANTS, "elsewhere", "nested", "finished"), ("comprehensions", "broken")
    parts = [*((split, name) for split in SPLITS for name in seen), *(("heldout", name) for name in novel)]
    expected = [("for_while", *part, pair) for part in parts for pair in (0, 0, 1, 1, 2, 2)]
    assert [(e["task"], e["split"], e["variant"], e["pair"]) for e in entries] == expected
    for entry, other in zip(entries[::2], entries[1::2], strict=True):
        assert list(entry) == FIELDS
        assert entry["family"] == entry["variant"]
        assert (entry["answer"], entry["answer_id"]) == (other["foil"], other["foil_id"])
        assert entry["tokens"] == tokenizer.encode(entry["prompt"])
        assert tokenizer.encode(entry["prompt"] + entry["answer"]) == [*entry["tokens"], entry["answer_id"]]


@pytest.mark.slow
def test_families_are_listed_and_shown(folder: Path) -> None:
    done = _run(f"--workdir={folder}", "--task=for_while")
    assert "families main, elsewhere, nested, finished; novel comprehensions, broken\n" in done.stdout
    done = _run(f"--workdir={folder}", "--task=for_while", "--show=1", "--variant=broken")
    assert "  heldout, broken, pair 1: answer" in done.stdout
    assert " if|" in done.stdout.replace("·", " ")
    done = _run(f"--workdir={folder}", "--task=for_while", "--show=1", "--variant=brocken")
    assert done.returncode == 2
    assert "--variant=brocken: task for_while has main, shifted, elsewhere" in done.stderr


@pytest.mark.slow
def test_tasks_that_the_tokenizer_cannot_express(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "samples.jsonl"
    target.write_text("kept")
    done = _run(f"--workdir={folder}", "--task=for_while,class_init,enumerate_range", f"--export={target}", "--show=1")
    assert done.returncode == 2
    assert done.stdout == ""
    one, two, last = done.stderr.splitlines()
    assert one.startswith("task class_init: only ")
    assert two.startswith("task enumerate_range: answer ' enumerate' is ")
    assert last.startswith("error: 2 of 3 tasks (class_init, enumerate_range) cannot be expressed")
    assert last.endswith("--task=for_while")
    assert target.read_text() == "kept"
    assert os.listdir(tmp_path) == ["samples.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer={}/tokenizer", "--task=fur_while"], "error: unknown task 'fur_while'; choose all"),
        (["--tokenizer={}/tokenizer", "--task=all,pairs.jsonl"], "error: all stands alone, not beside other tasks"),
        (["--task=for_while"], "error: give either --tokenizer=DIR"),
        (["--tokenizer={}/nothing"], "no tokenizer there"),
        (["--workdir={}", "--task=for_while", "--export={}/no/folder.jsonl"], "not a file in an existing folder"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    done = _run(*(argument.format(folder) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
