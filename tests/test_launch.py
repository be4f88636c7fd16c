"""What all launch scripts share: a quick start, and one line for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.inprocess import REPOSITORY, launch_here

SCRIPTS = sorted(path.stem for path in (REPOSITORY / "launch").glob("*.py") if "def define_flags" in path.read_text())
HEAVY = ("jax", "flax", "orbax", "optax", "matplotlib", "grain", "tokenizers", "datasets", "optuna")


def test_scripts_are_found() -> None:
    assert {"train", "prune", "report", "tasks", "reproduce"} <= set(SCRIPTS)
    assert len(SCRIPTS) >= 14


def test_flags_are_defined_without_what_takes_seconds_to_import() -> None:
    """`--help` and mistakes in flags are answered at once."""
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1].split(','):\n"
        "    importlib.import_module(f'launch.{name}')\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, ",".join(SCRIPTS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def one_line(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """Asserts that a run ended with exit code 2 and one line that holds all words."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_flag_is_one_line(script: str) -> None:
    one_line(launch_here(script, "--nosuch=1"), "nosuch")


def test_an_argument_that_is_no_flag_is_one_line() -> None:
    one_line(launch_here("report", "--workdir=x", "nosuch"), "'nosuch'", "--flag")


def test_one_run_leaves_no_flags_to_the_next(tmp_path: Path) -> None:
    """Values given once are not there in the next run of the same process, nor are another script's flags."""
    one_line(launch_here("train", f"--workdir={tmp_path}", "--config.model.d_model=-1"), "d_model=-1")
    one_line(launch_here("train", f"--workdir={tmp_path}", "--config.model.depth=3"), "depth: no such field")
    one_line(launch_here("train", f"--workdir={tmp_path}", "--config.model.n_layer=two"), "n_layer")
    one_line(launch_here("train", "--config.model.n_head=3"), "workdir")
    one_line(launch_here("report", f"--workdir={tmp_path}", "--preset=tiny"), "preset")
    one_line(launch_here("train", f"--workdir={tmp_path}", "--preset=nosuch"), "nosuch")


@pytest.mark.parametrize(
    ("script", "flags", "line"),
    [
        ("card", ["--workdir=x"], "error: --task: missing; --help says what it takes"),
        ("logits", ["--workdir=x"], "--tokens: missing; --help says what it takes; --logits: missing;"),
        ("train", ["--workdir=x", "--config.train.steps=1e3"], "--config.train.steps=1e3: must be a whole number"),
        ("train", ["--workdir=x", "--config.train.steps="], "--config.train.steps=: must be a whole number"),
        ("train", ["--workdir=x", "--config.optimizer.eps=a"], "--config.optimizer.eps=a: must be a number"),
        ("train", ["--workdir=x", "--distributed=yes"], "--distributed=yes: must be true or false"),
        ("prune", ["--workdir=x", "--config.prune.families=maain"], "no family 'maain' to search on; choose all, or"),
        ("prune", ["--workdir=x", "--config.prune.families=maain"], "and beside them natural"),
    ],
)
def test_what_flags_cannot_be_is_said_without_words_of_python(script: str, flags: list[str], line: str) -> None:
    done = launch_here(script, *flags)
    one_line(done, line)
    for word in ("None", "invalid literal", "could not convert", "Non-boolean"):
        assert word not in done.stderr


def test_stored_models_are_named_where_a_folder_was_asked_for() -> None:
    one_line(launch_here("page", "--workdir=laptop"), "a stored model: --init_from=laptop --workdir=NEW")
    one_line(launch_here("page", "--workdir=lapptop"), "train or import a model")
    for model in ("lapptop", "nowhere/run"):
        done = launch_here("reproduce", "--experiment=necessity", "--workdir=x", f"--model={model}")
        one_line(done, f"--model={model}: no workdir and no stored model", "laptop_half")
