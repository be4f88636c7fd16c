"""The prune script, on a model with random weights."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sparse_gpt import config as configs
from sparse_gpt.circuits.circuit import load
from sparse_gpt.data import train_tokenizer
from sparse_gpt.training.checkpoint import save_params
from sparse_gpt.training.manifest import params_sha256
from tests import circuits_model
from tests.inprocess import launch_here


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with random weights and a small tokenizer."""
    workdir = tmp_path_factory.mktemp("untrained")
    words = [first + second for first in "abcdefgh" for second in "nopqrst"]
    texts = [f"for {word} in {word}_list:\n    pass\nwhile {word} != 3:\n    pass\n" for word in words]
    tokenizer = train_tokenizer(texts, 300)
    config = circuits_model.config(vocab_size=tokenizer.vocab_size, context=128)
    (workdir / "config.json").write_text(json.dumps(configs.to_dict(config)))
    tokenizer.save(workdir / "tokenizer")
    save_params(workdir, circuits_model.params(config))
    return workdir


SMALL = (
    "--config.prune.ablation=zero",
    "--config.prune.steps=2",
    "--config.prune.seeds=8",
    "--config.prune.tune_trials=8",
    "--config.prune.evaluation_pairs=8",
)


@pytest.mark.slow
def test_prune_writes_the_files(untrained: Path) -> None:
    task = "for_while"
    done = launch_here("prune", f"--workdir={untrained}", f"--task={task}", *SMALL, "--config.prune.target_loss=50")
    assert done.returncode == 0, done.stderr
    assert f"{task}: " in done.stdout
    assert "held-out task loss" in done.stdout
    assert re.search(r"\d+ of \d+ rows of its card pass", done.stdout)
    assert "  necessity          shifted  " in done.stdout
    folder = untrained / "circuits" / task
    assert sorted(path.name for path in folder.iterdir()) == [
        "ablation.npz",
        "card.json",
        "circuit.json",
        "search.json",
        "study.db",
        "traces.json",
    ]
    assert not (untrained / "searches").exists()
    trials = json.loads((folder / "search.json").read_text())["trials"]
    assert len(trials) == 16
    assert len({trial["learning_rate"] for trial in trials}) == 9  # eight tuned ones
    config = configs.load(untrained)
    circuit = load(folder)
    assert circuit.ablation == "zero"
    assert {"agreement", "shifted_task_loss", "shifted_agreement"} <= set(circuit.metrics)
    assert circuit.params_sha256 == params_sha256(circuits_model.params(config))
    before = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    again = launch_here("prune", f"--workdir={untrained}", f"--task={task}", *SMALL, "--config.prune.target_loss=50")
    assert again.returncode == 0, again.stderr
    assert again.stdout == f"{task}: {folder} is complete for these weights and settings; delete it to search again\n"
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task=for_while",), "circuit.json: not found; python -m launch.prune --workdir="),
        (("--task=for_while", "--rows=loss"), "--rows=loss: no such row; choose from task_loss, accuracy"),
        (("--task=for_while", "--rows=norms", "--full"), "give one of them; --full is all rows"),
        (("--task=juggling",), "unknown task 'juggling'"),
    ],
)
def test_card_refuses(untrained: Path, flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(untrained, other, ignore=shutil.ignore_patterns("circuits", "searches"))
    done = launch_here("card", f"--workdir={other}", *flags)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_prune_says_why_a_circuit_is_not_refined(untrained: Path) -> None:
    flags = (*SMALL, "--config.prune.tune_trials=0", "--config.prune.target_loss=50", "--config.prune.card=none")
    strict = "--config.prune.selection_margin=1e-9"
    done = launch_here("prune", f"--workdir={untrained}", "--task=for_while", *flags, strict)
    assert "for_while: not refined, for nothing reached 5e-08 on the samples it was chosen on\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--task=for_while", *SMALL), "the model itself has task loss"),
        (("--task=juggling",), "unknown task 'juggling'"),
        (("--task=,",), "no task"),
        (("--task=for_while", "--shared"), "--shared: needs a list of two or more tasks"),
        (("--task=for_while,if_equals", "--shared", "--config.prune.batch_pairs=3"), "must be a multiple of the 2"),
        (("--task=for_while,if_equals", "--shared", "--config.prune.families=all"), "on one family each, not on main,"),
        (
            ("--task=for_while", "--config.prune.search=path", "--config.prune.starts="),
            "prune.starts=: name at least one",
        ),
        (("--config.model.d_model=32",), "fixed by the trained model"),
        (("--config.prune.steps=0",), "must be at least 1"),
        (("--task=for_while",), "corpus"),  # mean ablation needs one
    ],
)
def test_prune_refuses(untrained: Path, flags: tuple[str, ...], message: str) -> None:
    done = launch_here("prune", f"--workdir={untrained}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (untrained / "circuits" / "juggling").exists()
