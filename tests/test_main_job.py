"""The main job as a user runs it: train, prune, report on a tiny model; and what happens on bad input."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Launch = Callable[..., "subprocess.CompletedProcess[str]"]

# A tiny model does not learn a task, so the target is set above chance: the machinery is what is tested here.
TINY = (
    "--preset=tiny",
    "--config.model.vocab_size=1024",
    "--config.data.tokens=150000",
    "--config.prune.target_loss=5",
    "--config.prune.steps=10",
    "--config.prune.evaluation_pairs=16",
    "--config.prune.refine_trials=1",
    "--config.prune.edges=false",
)
README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def trained(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with a tiny trained model."""
    workdir = tmp_path_factory.mktemp("main job") / "work dir"
    done = launch("train", f"--workdir={workdir}", *TINY)
    assert done.returncode == 0, done.stderr
    assert "params_sha256" in done.stdout
    return workdir


def test_train_prune_report(launch: Launch, trained: Path) -> None:
    pruned = launch("prune", f"--workdir={trained}", "--task=for_while")
    assert pruned.returncode == 0, pruned.stderr
    circuit = json.loads((trained / "circuits" / "for_while" / "circuit.json").read_text())
    assert circuit["format"] == "sparse_gpt.circuit/1"
    assert circuit["params_sha256"] == json.loads((trained / "manifest.json").read_text())["params_sha256"]
    assert {"search.json", "traces.json", "ablation.npz"} <= {
        p.name for p in (trained / "circuits/for_while").iterdir()
    }
    reported = launch("report", f"--workdir={trained}")
    assert reported.returncode == 0, reported.stderr
    page = (trained / "report" / "index.html").read_text()
    assert "for_while" in page
    assert "<svg" in page


def test_the_notebook_of_the_readme(trained: Path) -> None:
    """The lines as they stand, on a smaller model and fewer samples."""
    (lines,) = (
        code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "Workdir(" in code
    )
    smaller = lines.replace('"runs/quickstart"', repr(str(trained))).replace("split, 256", "split, 16")
    assert smaller.count("\n") == lines.count("\n") < 20
    assert smaller != lines
    cells: dict[str, Any] = {}
    exec(smaller, cells)
    assert cells["logits"].shape[::2] == (8, 1024)
    assert {site for site, _ in cells["seen"]} >= {"attn_in", "mlp_neuron"}
    drawing = eval(lines.strip().splitlines()[-1], cells)
    assert "<svg" in drawing._repr_html_()


def test_a_finished_run_is_not_done_again(launch: Launch, trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_text()
    again = launch("train", f"--workdir={trained}", *TINY)
    assert again.returncode == 0, again.stderr
    assert (trained / "metrics.jsonl").read_text() == before


def test_logits_of_a_workdir(launch: Launch, trained: Path, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 1024, (3, 20))
    np.save(tmp_path / "tokens.npy", tokens)
    done = launch(
        "logits",
        f"--workdir={trained}",
        f"--tokens={tmp_path / 'tokens.npy'}",
        f"--logits={tmp_path / 'logits.npy'}",
        "--activations=0.mlp_neuron",
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "logits.npy").shape == (3, 20, 1024)
    assert np.load(tmp_path / "logits.activations.npz")["0.mlp_neuron"].shape == (3, 20, 64)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train", ["--preset=large"], "--preset=large: unknown; choose one of quickstart"),
        ("train", [*TINY, "--config.sparsity.density=0"], "sparsity.density=0"),
        ("train", [*TINY, "--config.sparsity.min_alive=60"], "lower min_alive to"),
        ("train", [*TINY, "--config.model.depth=3"], "depth"),
        ("train", [*TINY, "--unknown_flag=3"], "unknown_flag"),
        ("train", [*TINY, "--config.train.steps=50"], "train.steps is 40 there, 50 here"),
        ("train", [*TINY, "--config.model.n_layer=two"], "n_layer"),
        ("train", [*TINY, "--batches=/nowhere.npy"], "--batches=/nowhere.npy"),
        ("train", [*TINY, "surplus"], "surplus"),
        ("prune", ["--task=juggling"], "unknown task 'juggling'"),
        (
            "prune",
            ["--task=for_while", "--config.prune.target_loss=0.15"],
            "above --config.prune.target_loss=0.15",
        ),
        ("prune", ["--config.model.n_layer=3"], "fixed by the trained model"),
        ("logits", ["--tokens=/nowhere.npy", "--logits=never.npy"], "/nowhere.npy"),
        ("benchmark", ["--parts=everything"], "--parts=everything"),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, list) else value[:20],
)
def test_bad_input_is_one_line(launch: Launch, trained: Path, script: str, arguments: list[str], message: str) -> None:
    before = sorted(path.name for path in trained.rglob("*"))
    done = launch(script, f"--workdir={trained}", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in trained.rglob("*")) == before


def test_help_reads_well(launch: Launch) -> None:
    done = launch("train", "--help")
    assert done.returncode == 0
    assert "--init_from" in done.stdout
    assert "Trains a (sparse) transformer" in done.stdout


def test_a_corpus_without_files_is_named(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sources = f"--config.data.sources=python_source={tmp_path / 'empty'}:1"
    done = launch("train", f"--workdir={tmp_path / 'run'}", *TINY, sources)
    assert done.returncode == 2, done.stderr
    assert "empty" in done.stderr.splitlines()[-1]
