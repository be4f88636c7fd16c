"""Whatever opens a circuit for its model refuses one that the model cannot have, before anything that takes time."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparse_gpt import tasks
from sparse_gpt.circuits import circuit
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation import samples, transfer
from sparse_gpt.io import write_json
from sparse_gpt.page.gallery import build_gallery
from sparse_gpt.page.page import build_pages
from sparse_gpt.workdir import Workdir
from tests.page_workdir import TASK, write_workdir

NAMED: Any = SimpleNamespace(names=(TASK,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """Its circuit, of these very weights, shifts the logit of a token that the model does not have."""
    folder = write_workdir(tmp_path_factory.mktemp("misfit") / "run")
    path = folder / "circuits" / TASK / "circuit.json"
    tree = json.loads(path.read_text())
    write_json(path, {**tree, "calibration": {"scale": 1.0, "shift": [[5000, 0.5]]}})
    return Workdir(folder)


def task_of(folder: Path) -> Any:
    return tasks.find(str(folder / f"{TASK}.jsonl"))


@pytest.mark.parametrize(
    "opened",
    [
        lambda run: build_pages(run, [[task_of(run.folder)]]),
        lambda run: build_gallery(run, [[task_of(run.folder)]]),
        lambda run: run.judge_circuit(NAMED),
        lambda run: run.formation(NAMED),
        lambda run: samples.searched_samples(run, [task_of(run.folder)]),
        lambda run: transfer.load_circuit(run.folder, task_of(run.folder), run.params_sha256, run.config.model),
    ],
    ids=["page", "gallery", "card", "formation", "samples", "steer"],
)
def test_one_line_about_the_file(run: Workdir, opened: Callable[[Workdir], object]) -> None:
    with pytest.raises(
        InputError, match=r"circuit\.json: the model has no token 5000; delete it or make it again"
    ) as e:
        opened(run)
    assert "\n" not in str(e.value)


def test_where_there_is_no_circuit_those_that_are_there_are_named(tmp_path: Path) -> None:
    wanted = tmp_path / "circuits" / "quotes"
    way = f"python -m launch.prune --workdir={tmp_path} --task=quotes writes it"
    with pytest.raises(InputError, match=f"circuit.json: not found; {way}$"):
        circuit.load(wanted)
    for name in ("loops", "brackets"):
        (tmp_path / "circuits" / name).mkdir(parents=True)
        (tmp_path / "circuits" / name / "circuit.json").touch()
    (tmp_path / "circuits" / "empty").mkdir()
    with pytest.raises(InputError, match=f"{way}; there are: brackets, loops$"):
        circuit.load(wanted)
