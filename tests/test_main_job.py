"""The main job as a user runs it: train, prune, report on a tiny model; and what happens on bad input."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets, tasks
from sparse_gpt.experiments import frontier, measures, sparse_vs_dense
from sparse_gpt.interop.openai_config import to_fields
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.io import write_json
from sparse_gpt.model.taps import recorder
from sparse_gpt.training import step
from sparse_gpt.training.checkpoint import save_params
from sparse_gpt.workdir import Workdir
from tests import reference_model
from tests.inprocess import launch_here

SLOW_FIXTURES = {"trained"}  # a run by processes of their own: tests/budget.py
Launch = Callable[..., "subprocess.CompletedProcess[str]"]

# A tiny model does not learn a task, so the target is set above chance: the machinery is what is tested here.
TINY = (
    "--preset=tiny",
    "--config.model.n_layer=1",  # what a search compiles grows with the layers
    "--config.model.vocab_size=1024",
    "--config.model.context=112",
    "--config.data.tokens=150000",
    "--config.train.evaluate_tasks=true",
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


@pytest.mark.slow
def test_train_prune_report(launch: Launch, trained: Path) -> None:
    # Its card is what the notebook's search has, below, and tests/test_prune.py.
    pruned = launch("prune", f"--workdir={trained}", "--task=for_while", "--config.prune.card=none")
    assert pruned.returncode == 0, pruned.stderr
    circuit = json.loads((trained / "circuits" / "for_while" / "circuit.json").read_text())
    assert circuit["format"] == "sparse_gpt.circuit/1"
    assert circuit["params_sha256"] == json.loads((trained / "manifest.json").read_text())["params_sha256"]
    assert {"search.json", "traces.json", "ablation.npz"} <= {
        p.name for p in (trained / "circuits/for_while").iterdir()
    }
    reported = launch_here("report", f"--workdir={trained}")
    assert reported.returncode == 0, reported.stderr
    page = (trained / "report" / "index.html").read_text()
    assert "for_while" in page
    assert "<svg" in page


@pytest.mark.slow
def test_the_notebook_of_the_readme(trained: Path) -> None:
    """The lines as they stand, on a smaller model."""
    (lines,) = (code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "sg.open" in code)
    smaller = lines.replace('"runs/quickstart"', repr(str(trained)))
    assert smaller != lines
    *first, last = smaller.strip().splitlines()
    assert len([line for line in (*first, last) if line]) == 4
    cells: dict[str, Any] = {}
    exec("\n".join(first), cells)
    assert len(cells["model"].run("x = 'hello").most_likely()) == 5
    found = eval(last, cells)
    assert "<svg" in found._repr_html_()
    assert (trained / "circuits" / "single_double_quote" / "circuit.json").is_file()


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(launch: Launch, trained: Path) -> None:
    before = [(trained / name).read_text() for name in ("metrics.jsonl", "evaluation.json")]
    again = launch("train", f"--workdir={trained}", *TINY)
    assert again.returncode == 0, again.stderr
    assert [(trained / name).read_text() for name in ("metrics.jsonl", "evaluation.json")] == before


@pytest.mark.slow
def test_from_a_folder_of_the_reference_to_a_circuit(trained: Path, tmp_path: Path) -> None:
    """The three lines of the guide, on an export of our own model; corpus and search are smaller. The search is the
    notebook's, above, so that its programs are there."""
    guide = README.parent / "docs" / "guides" / "reference_models.md"
    lines = guide.read_text().split("```")[1]
    exported = launch_here("export_openai", f"--workdir={trained}", f"--output={tmp_path / 'csp_yolo1'}")
    assert exported.returncode == 0, exported.stderr
    env = {**os.environ, "PYTHONPATH": str(README.parent)}
    smaller = {"data": ["--config.data.tokens=60000", "--config.data.sources=idioms"]}
    smaller["prune"] = [flag for flag in TINY if flag.startswith("--config.prune.")]
    for field in ("seeds", "k_coefs", "batch_pairs", "random_draws"):  # of an imported model they are the defaults
        value = configs.as_flag(getattr(presets.tiny().prune, field))
        smaller["prune"].append(f"--config.prune.{field}={value}")
    for line in re.findall(r"python -m launch\.(.*)", lines):
        script, *arguments = shlex.split(
            line.replace("runs/yolo1", "yolo1").replace("FOLDER", "csp_yolo1"), comments=True
        )
        done = launch_here(script, *arguments, *smaller.get(script, []), cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
    circuit = json.loads((tmp_path / "yolo1/circuits/single_double_quote/circuit.json").read_text())
    assert circuit["params_sha256"] == json.loads((trained / "manifest.json").read_text())["params_sha256"]


@pytest.mark.slow
def test_training_evaluates_the_tasks(trained: Path) -> None:
    """Losses against the float64 model; a task that cannot be expressed or read has a reason instead."""
    run = Workdir(trained)
    found = json.loads((trained / "evaluation.json").read_text())
    assert found["params_sha256"] == run.params_sha256
    rows = {row["task"]: row for row in found["tasks"]}
    assert set(rows) == set(tasks.TASKS)
    assert "exceed the model's context 112" in rows["set_or_string"]["reason"]
    for variant, prefix in (("main", ""), ("shifted", "shifted_")):
        batch = tasks.sample(tasks.TASKS["for_while"], run.tokenizer, "heldout", found["pairs"], 0, variant)
        fields, weights = to_fields(run.config), to_tensors(run.config.model, run.params)
        logits, _ = reference_model.forward(fields, weights, batch.tokens)
        each, row = np.arange(len(batch.tokens)), rows["for_while"]
        last = logits[each, batch.lengths - 1]
        answer, foil = last[each, batch.answer_id], last[each, batch.foil_id]
        expected = reference_model.task_loss(logits, batch.lengths, batch.answer_id, batch.foil_id)
        assert row[f"{prefix}task_loss"] == pytest.approx(expected, abs=1e-4)
        every = np.log(np.sum(np.exp(last), axis=1))
        assert row[f"{prefix}full_vocabulary_loss"] == pytest.approx(np.mean(every - answer), abs=1e-4)
        assert row[f"{prefix}accuracy"] == pytest.approx(np.mean(answer > foil), abs=0.02)


def test_logits_of_a_workdir(trained: Path, tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 1024, (3, 20))
    np.save(tmp_path / "tokens.npy", tokens)
    done = launch_here(
        "logits",
        f"--workdir={trained}",
        f"--tokens={tmp_path / 'tokens.npy'}",
        f"--logits={tmp_path / 'logits.npy'}",
        "--activations=0.mlp_neuron",
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "logits.npy").shape == (3, 20, 1024)
    assert np.load(tmp_path / "logits.activations.npz")["0.mlp_neuron"].shape == (3, 20, 64)


@pytest.mark.slow
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
def test_bad_input_is_one_line(trained: Path, script: str, arguments: list[str], message: str) -> None:
    before = sorted(path.name for path in trained.rglob("*"))
    done = launch_here(script, f"--workdir={trained}", *arguments)
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


def test_a_corpus_without_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sources = f"--config.data.sources=python_source={tmp_path / 'empty'}:1"
    done = launch_here("train", f"--workdir={tmp_path / 'run'}", *TINY, sources)
    assert done.returncode == 2, done.stderr
    assert "empty" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_text_in_which_something_is_sought_is_read_once(trained: Path) -> None:
    run = Workdir(trained)
    once = list(run.text("validation", 1000, once=True))
    assert len(list(run.text("validation", 1, once=True))) == 1
    *_, further = run.text("validation", len(once) + 1)
    read = {row.tobytes() for batch in once for row in batch}
    assert {row.tobytes() for row in further} <= read
    without_last = {row.tobytes() for batch in once[:-1] for row in batch}
    assert without_last < read


@pytest.mark.slow
def test_what_comparisons_measure_of_a_model(trained: Path, tmp_path: Path) -> None:
    """The loss that training logged, and kurtosis by its definition, in float64, of a model with two layers."""
    run = Workdir(trained)
    assert sparse_vs_dense.measure_loss(run, run.corpus) == pytest.approx(measures.validation_loss(trained), rel=1e-5)
    run = deeper(trained, tmp_path)
    found = []
    for number in range(2):
        tokens = run.corpus.batch("validation", run.config.data.seed, number, run.config.train.batch_size, 112)
        seen: dict[tuple[str, int], Any] = {}
        run.model.apply(
            {"params": run.params}, tokens[:, :-1].astype(np.int32), tap=recorder(seen, ("resid_post_mlp",))
        )
        for stream in seen.values():
            vectors = np.asarray(stream, np.float64).reshape(-1, run.config.model.d_model)
            found += [np.mean((v - v.mean()) ** 4) / np.var(v) ** 2 for v in vectors]
    assert frontier.kurtosis(run, batches=2) == pytest.approx(np.mean(found), rel=1e-4)


def deeper(trained: Path, folder: Path) -> Workdir:
    """A model of two layers that has learned nothing, with tokenizer and corpus of a trained one."""
    config = configs.replace(configs.load(trained), {"model.n_layer": 2})
    write_json(folder / "config.json", configs.to_dict(config))
    for name in ("tokenizer", "corpus"):
        (folder / name).symlink_to(trained / name)
    save_params(folder, step.make_state(config).params)
    return Workdir(folder)
