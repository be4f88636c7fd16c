"""The formation script, on a model with random weights: what it writes, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.nodes import empty
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.records import Formation
from sparse_gpt.training.checkpoint import Checkpoints, kept_steps, load_params
from sparse_gpt.workdir import Workdir
from tests.inprocess import launch_here
from tests.page_workdir import TASK, write_workdir

STEP = 7  # of the newest checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A workdir with a circuit, and its weights as checkpoint 0; any task loss will do."""
    folder = write_workdir(tmp_path / "run")
    config = configs.load(folder)
    prune = dataclasses.replace(config.prune, target_loss=50.0, ablation="zero", evaluation_pairs=8)
    (folder / "config.json").write_text(json.dumps(configs.to_dict(dataclasses.replace(config, prune=prune))))
    circuit = load(folder / "circuits" / TASK)
    few = circuit.nodes[:6]
    edges = tuple(edge for edge in circuit.edges if {edge.source, edge.target} <= set(few))
    changed = {"nodes": few, "edges": edges, "ablation": "zero", "target_loss": 50.0, "values": empty(config.model)}
    dataclasses.replace(circuit, **changed).save(folder / "circuits" / TASK)
    return folder


def keep_another(run: Path) -> None:
    """The same weights as the newest checkpoint."""
    params, _ = load_params(run, configs.load(run).model)
    with Checkpoints(run) as checkpoints:
        checkpoints.save(STEP, params)


def form(run: Path, task: str = "") -> "tuple[int, str, str]":
    done = launch_here("formation", f"--workdir={run}", f"--task={task or run / TASK}{'' if task else '.jsonl'}")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_it_writes_a_record_and_a_picture(run: Path) -> None:
    keep_another(run)
    assert kept_steps(run) == [0, STEP]
    code, out, err = form(run)
    assert code == 0, err
    folder = run / "circuits" / TASK
    found = Formation.read(folder / "formation.json")
    assert [each.step for each in found.checkpoints] == [0, STEP]
    assert found.checkpoints[0].params_sha256 == found.checkpoints[1].params_sha256
    assert found.checkpoints[1].circuit is not None
    assert found.checkpoints[1].circuit.nodes == load(folder).nodes
    assert found.checkpoints[1].tokens == STEP * 32 * 32  # batch and context
    assert all(node.correlation[0] in (None, pytest.approx(1)) for node in found.nodes)
    assert (folder / "formation.png").read_bytes().startswith(b"\x89PNG")
    assert not (run / "searches" / f"{TASK}.formation").exists()
    assert "nodes of the final circuit that stay: " in out
    assert out.splitlines()[1].split()[:3] == ["step", "tokens", "model"]


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_one_line(run: Path) -> None:
    code, _, err = form(run)
    assert (code, err.count("\n")) == (2, 1)
    assert "step 0 alone is kept; train with --config.train.keep_every=N" in err
    code, _, err = form(run, "single_double_quote")
    assert (code, err.count("\n")) == (2, 1)
    assert "circuit.json: not found; python -m launch.prune --workdir=" in err
    code, _, err = form(run, "nonsense")
    assert (code, err.count("\n")) == (2, 1)
    keep_another(run)
    path = run / "config.json"
    path.write_text(path.read_text().replace('"target_loss": 50.0', '"target_loss": 1e-9'))
    code, _, err = form(run)
    assert (code, err.count("\n")) == (2, 1)
    assert "the model itself has task loss" in err


def test_natural_text_is_searched_on_where_the_final_circuit_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint has the families of the final circuit's search, this one too."""
    keep_another(run)
    (task,), workdir = tasks.select(f"{run / TASK}.jsonl"), Workdir(run)
    asked = dataclasses.replace(task_samples(task, workdir.tokenizer, workdir.config), natural="natural")

    class Read(Exception):
        """The text was read."""

    def read(self: Workdir, samples: object) -> None:
        assert samples is asked
        raise Read

    monkeypatch.setattr(Workdir, "with_natural", read)
    with pytest.raises(Read):
        workdir.formation(asked, progress=False)
