"""The circuit of a task from a file: it is found, kept, shown, and belongs to the file as it was."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.circuits import pipeline, storage
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.card.card import merged
from sparse_gpt.circuits.evidence.formation import made_for
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import PruneConfig
from sparse_gpt.data import train_tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation import transfer
from sparse_gpt.evaluation.samples import require_same_pairs, searched_samples
from sparse_gpt.experiments import rankings
from sparse_gpt.records import Card, Search, converted
from sparse_gpt.records.card import CardRow
from sparse_gpt.training.checkpoint import save_params
from tests import circuits_model
from tests.inprocess import launch_here
from tests.json_readers import READERS, SHA
from tests.own_files import WORDS, jsonl, split_entries

FLAGS = (
    "--config.prune.ablation=zero",
    "--config.prune.steps=2",
    "--config.prune.seeds=1",
    "--config.prune.batch_pairs=4",
    "--config.prune.evaluation_pairs=8",
    "--config.prune.target_loss=50",
    "--config.prune.refine_trials=1",
    "--config.prune.edges=false",
    "--config.prune.random_draws=2",
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with random weights and a small tokenizer, and pairs.jsonl in it."""
    workdir = tmp_path_factory.mktemp("untrained")
    tokenizer = train_tokenizer([f"for {word} in {word}_list:\n    pass\nwhile {word}:\n" for word in WORDS], 300)
    config = circuits_model.config(vocab_size=tokenizer.vocab_size)
    (workdir / "config.json").write_text(json.dumps(configs.to_dict(config)))
    tokenizer.save(workdir / "tokenizer")
    save_params(workdir, circuits_model.params(config))
    (workdir / "pairs.jsonl").write_bytes(jsonl(split_entries()))
    return workdir


@pytest.mark.slow
def test_prune_keeps_the_circuit_of_a_file_until_the_file_changes(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = untrained / "pairs.jsonl", untrained / "circuits" / "pairs"

    def prune() -> str:
        done = launch_here("prune", f"--workdir={untrained}", f"--task={file}", *FLAGS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pairs: " in prune()
    task, circuit = tasks.find(str(file)), load(folder)
    assert circuit.task == "pairs"
    model = configs.load(untrained).model
    assert "shifted_task_loss" in circuit.metrics
    search = json.loads((folder / "search.json").read_text())
    assert (search["task"], search["samples_sha256"]) == ("pairs", task.samples_sha256)
    assert prune() == f"pairs: {folder} is complete for these weights and settings; delete it to search again\n"

    assert launch_here("report", f"--workdir={untrained}").returncode == 0
    assert 'id="circuit-pairs"' in (untrained / "report" / "index.html").read_text()
    (folder / "traces.json").rename(untrained / "traces.json")
    assert launch_here("report", f"--workdir={untrained}").returncode == 0
    assert "--task=…/pairs.(jsonl|csv)<" in (untrained / "report" / "index.html").read_text()
    (untrained / "traces.json").rename(folder / "traces.json")

    assert transfer.load_circuit(untrained, task, circuit.params_sha256, model).nodes == circuit.nodes
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(rankings, "finish", lambda *args: asked.append(args))
    assert rankings.find_search(untrained, task).samples_sha256 == task.samples_sha256
    assert not asked

    file.write_bytes(file.read_bytes() + b"\n")
    changed = tasks.find(str(file))
    with pytest.raises(InputError, match=r"circuits/pairs was searched on other pairs; python -m launch\.prune"):
        transfer.load_circuit(untrained, changed, circuit.params_sha256, model)
    rankings.find_search(untrained, changed)
    assert asked[0][:3] == ("prune", f"--workdir={untrained}", f"--task={file}")
    sha, settings = circuit.params_sha256, configs.from_dict({"prune": search["hyperparameters"]}).prune
    assert storage.is_complete(folder, sha, settings, task.samples_sha256)
    assert not storage.is_complete(folder, sha, settings, changed.samples_sha256)
    assert not storage.is_complete(folder, sha, settings)
    made_for: list[dict[str, object]] = []

    def stages(folder: Path, inputs: dict[str, object]) -> Stages:
        made_for.append(inputs)
        return Stages(folder, inputs)

    monkeypatch.setattr(pipeline, "Stages", stages)
    assert "complete" not in prune()
    assert made_for[0]["samples_sha256"] == changed.samples_sha256
    assert json.loads((folder / "search.json").read_text())["samples_sha256"] == changed.samples_sha256


@pytest.mark.slow
def test_prune_takes_files_in_a_list(untrained: Path) -> None:
    task = f"--task=for_while,{untrained / 'pairs.jsonl'}"
    done = launch_here("prune", f"--workdir={untrained}", task, "--shared", "--config.prune.batch_pairs=3", *FLAGS[:3])
    assert done.returncode == 2
    assert "batch_pairs=3: must be a multiple of the 2 tasks that share a circuit" in done.stderr
    low = launch_here("prune", f"--workdir={untrained}", f"--task={untrained / 'pairs.jsonl'}", FLAGS[0])
    assert "error: task pairs: the model itself has task loss" in low.stderr


def test_other_pairs_are_no_samples_of_the_search(tmp_path: Path) -> None:
    """The circuit's card and formation are asked for with a file that has changed since, and with it as it was."""
    place = tmp_path / "circuits" / "pairs"
    place.mkdir(parents=True)
    next(reader for reader in READERS if reader.name == "circuit").make(place)
    run: Any = SimpleNamespace(folder=tmp_path, params_sha256=SHA, config=SimpleNamespace(model=None))
    task: Any = SimpleNamespace(name="pairs", source="/own/pairs.csv", samples_sha256="ab" * 32)
    with pytest.raises(
        InputError, match=r"--task=/own/pairs\.csv: .*circuits/pairs was searched on other pairs; python"
    ):
        searched_samples(run, [task])
    search = json.loads((place / "search.json").read_text())
    (place / "search.json").write_text(json.dumps({**search, "samples_sha256": task.samples_sha256}))
    require_same_pairs(tmp_path, [task], Search.read(place / "search.json"))
    two = [task, SimpleNamespace(name="others", source="/own/others.csv", samples_sha256="cd" * 32)]
    with pytest.raises(InputError, match=r"--task=/own/pairs\.csv,/own/others\.csv --shared searches on these"):
        require_same_pairs(tmp_path, two, Search.read(place / "search.json"))


def test_what_is_kept_of_a_formation_or_card_is_of_one_file() -> None:
    problem: Any = SimpleNamespace(settings=PruneConfig(), samples=SimpleNamespace(sha256=""))
    final: Any = SimpleNamespace(sha256="1", params_sha256="2")
    plain = made_for(problem, final, [3])
    problem.samples.sha256 = "4"
    assert made_for(problem, final, [3]) == {**plain, "samples_sha256": "4"}
    criterion = {"name": "task_loss", "samples": "main", "role": "heldout", "criticism": "", "value": 0.1}
    row = converted({**criterion, "sense": "at most", "threshold": 0.2, "verdict": "pass"}, CardRow)
    old = Card(task="pairs", rows=(row,), samples_sha256="4")
    for sha256, rows in (("4", 1), ("5", 0)):
        assert len(merged(old, Card(task="pairs", rows=(), samples_sha256=sha256)).rows) == rows
