"""Experiments that compare models: what is trained and searched for them, and the figures that they give."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.axes import Axes

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import (
    frontier,
    measures,
    model_comparison,
    plots,
    sparse_vs_dense,
)
from sparse_gpt.tasks import TaskError


def test_widths_are_tried_where_the_loss_is_expected() -> None:
    def loss(width: int) -> float:
        return 3.0 - 0.25 * math.log(width)

    assert measures.next_width({32: loss(32), 64: loss(64)}, loss(48)) == 48
    assert measures.next_width({32: loss(32), 64: loss(64), 48: 2.05}, 2.05) in (44, 52)  # never twice the same
    assert measures.next_width({32: loss(32), 64: loss(64)}, 0.0) == 512
    assert measures.next_width({32: 2.0, 64: 2.0}, 1.9) == 28  # a flat line says nothing
    assert measures.next_width({32: 2.00001, 64: 2.0}, 1.9) == 512  # one that is nearly flat ends nowhere
    assert measures.next_width({32: 2.00001, 64: 2.0}, 2.1) == 16


def test_the_dense_side_has_the_best_of_its_learning_rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As wide as it takes for the wanted loss at that rate; a bad rate is tried at one width only."""
    trained = []

    def dense_loss(folder: Path, preset: str, width: int, rate: float, corpus: Path) -> float:
        assert (preset, corpus) == ("tiny", tmp_path / "corpus")
        trained.append((width, rate))
        return 2 + 30 / width + abs(rate - 0.03)

    monkeypatch.setattr(sparse_vs_dense, "train_dense", dense_loss)
    wanted, rates = 2 + 30 / 40, (0.1, 0.03, 0.01)
    found, width = sparse_vs_dense.match_dense(tmp_path, wanted, "tiny", 64, rates, tmp_path / "corpus")
    assert abs((2 + 30 / width) / wanted - 1) <= 0.02
    assert found == sparse_vs_dense.dense_folder(tmp_path, width, 0.03)
    assert len(trained) == len(set(trained))
    assert {width for width, rate in trained if rate != 0.03} == {64}


def test_a_dense_model_is_dense_and_as_wide_as_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is trained is checked as a configuration, so that a flag cannot be misspelled."""
    ran = []
    monkeypatch.setattr(sparse_vs_dense, "finish", lambda *command: ran.append(command))
    monkeypatch.setattr(measures, "validation_loss", lambda workdir: 1.5)
    assert sparse_vs_dense.train_dense(tmp_path, "laptop", 48, 0.03, tmp_path / "corpus") == 1.5
    ((script, preset, workdir, *flags),) = ran
    folder = sparse_vs_dense.dense_folder(tmp_path, 48, 0.03)
    assert (script, preset, workdir) == ("train", "--preset=laptop", f"--workdir={folder}")
    given = dict(flag.removeprefix("--config.").split("=", 1) for flag in flags)
    assert given.pop("data.corpus") == str(tmp_path / "corpus")
    numbers = {name: json.loads(value) for name, value in given.items()}
    assert configs.replace(presets.preset("laptop"), numbers) == presets.preset("laptop_dense")


def test_tasks_that_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that every model solves, on held-out samples and on the validation samples that launch.prune looks at."""
    able = {"one": ["a", "b", "c", "d", "e"], "two": ["b", "c", "d", "e", "f"]}
    losses = {("one", "b"): 0.15, ("two", "c"): 0.16}  # on validation samples; 0.01 elsewhere

    def task_samples(task: str, tokenizer: None, config: str) -> SimpleNamespace:
        if (config, task) == ("two", "d"):
            raise TaskError("not enough names")
        return SimpleNamespace(validation=task)

    monkeypatch.setattr(measures, "solved", lambda workdir, target: able[workdir.name])
    monkeypatch.setattr(
        model_comparison, "Workdir", lambda path: SimpleNamespace(config=path.name, params=0, tokenizer=None)
    )
    monkeypatch.setattr(model_comparison, "find", lambda name: name)
    monkeypatch.setattr(model_comparison, "task_samples", task_samples)
    monkeypatch.setattr(
        model_comparison, "full_task_loss", lambda config, params, task: losses.get((config, task), 0.01)
    )
    folders = [tmp_path / "one", tmp_path / "two"]
    assert model_comparison.find_common_tasks(folders) == ["b", "e"]
    assert model_comparison.find_common_tasks(folders, 1) == ["b"]
    able["two"] = ["f"]
    with pytest.raises(InputError, match="no task is solved by all models"):
        model_comparison.find_common_tasks(folders)


@pytest.mark.parametrize(("loss", "solved"), [(0.2, True), (0.21, False), (math.nan, False)])
def test_a_task_is_solved_at_the_target(monkeypatch: pytest.MonkeyPatch, loss: float, solved: bool) -> None:
    run: Any = SimpleNamespace(config=None, params=None, tokenizer=None)
    monkeypatch.setattr(model_comparison, "task_samples", lambda *_: SimpleNamespace(validation=None))
    monkeypatch.setattr(model_comparison, "full_task_loss", lambda *_: loss)
    assert model_comparison.is_solved(run, "while_return_true", 0.2) == solved


def test_the_stored_models_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Losses on the same text, one search for all of them, and its figures."""
    done: list[tuple[str, str]] = []
    losses = {"sparse": 1.5, "sparse_half": 1.65, "dense": 1.51}
    unreached = {"sparse": 0.02, "sparse_half": 0.02, "dense": 0.15}  # the target that task b misses
    edges = {"a": 5, "b": 20, "c": 10}

    def sizes(workdir: Path, tasks: list[str], settings: dict[str, object]) -> list[dict[str, object]]:
        assert settings["prune.k_coefs"] == "3e-4,1e-3,3e-3,1e-2"
        times = {"sparse": 2, "sparse_half": 1, "dense": 40}[workdir.name]
        return [
            {
                "model": "",
                "task": task,
                "target_loss": target,
                "nodes": 9,
                "edges": times * edges[task],
                "reached": reached,
            }
            for task in tasks
            for target in (0.15, 0.02)
            for reached in [task != "b" or unreached[workdir.name] != target]
        ]

    def run(workdir: Path) -> SimpleNamespace:
        config = SimpleNamespace(model=SimpleNamespace(d_model=48))
        return SimpleNamespace(name=workdir.name, corpus=f"corpus of {workdir.name}", config=config)

    def loss(run: SimpleNamespace, corpus: str) -> float:
        assert corpus == "corpus of sparse"
        return losses[run.name]

    monkeypatch.setattr(sparse_vs_dense.stored, "unpack", lambda name, folder: done.append((name, folder.name)))
    monkeypatch.setattr(sparse_vs_dense, "Workdir", run)
    monkeypatch.setattr(sparse_vs_dense, "measure_loss", loss)
    common = {("sparse", "dense"): ["a", "b", "c"], ("sparse_half",): ["a", "c", "d"]}
    monkeypatch.setattr(
        sparse_vs_dense, "find_common_tasks", lambda folders, most=6: common[tuple(each.name for each in folders)]
    )
    monkeypatch.setattr(sparse_vs_dense, "searched_sizes", sizes)
    found = {check.name.split(" of edges")[0]: check for check in sparse_vs_dense.sparse_vs_dense_laptop(tmp_path)}
    assert [check.holds for check in found.values()] == [True, True, True, True, False, True, True, True, True]
    assert found["pretraining losses apart by"].measured == pytest.approx(1 / 150)
    assert found["ratio"].measured == pytest.approx(20)
    assert found["searches that reached 0.15"].measured == 7
    half = [check.measured for name, check in found.items() if "half" in name]
    assert half == [pytest.approx(1.1), 2, "2.0 (2.0 to 2.0)", "40.0 (40.0 to 40.0)"]
    assert done == [("laptop", "sparse"), ("laptop_half", "sparse_half"), ("laptop_dense", "dense")]
    lines = (tmp_path / "sparse-vs-dense.csv").read_text().splitlines()
    assert lines[:2] == ["model,task,target_loss,nodes,edges,reached", "sparse,a,0.15,9,10,True"]
    assert len(lines) == 17


def test_ratio_of_geometric_means_and_its_interval() -> None:
    ratio, low, high = measures.ratio_with_interval([160, 320, 80], [10, 20, 5])
    assert (ratio, low, high) == pytest.approx((16, 16, 16))
    ratio, low, high = measures.ratio_with_interval([100, 400], [10, 10])
    assert ratio == pytest.approx(20)
    assert (low, high) == pytest.approx((10, 40))
    assert measures.geometric_mean([0, 100]) == pytest.approx(10)  # no edge counts as one


def test_sizes_are_drawn_and_written(tmp_path: Path) -> None:
    rows = [
        {"model": model, "task": task, "target_loss": target, "nodes": 9, "edges": edges, "reached": True}
        for model, edges in (("sparse", 10), ("dense", 200))
        for task in ("a", "b")
        for target in (0.5, 0.15)
    ]
    plots.write_csv(tmp_path / "new" / "sizes.csv", rows)
    lines = (tmp_path / "new" / "sizes.csv").read_text().splitlines()
    assert lines[:2] == ["model,task,target_loss,nodes,edges,reached", "sparse,a,0.5,9,10,True"]
    seen = {}

    def plot(axes: Axes) -> None:
        plots.sizes_against_targets(rows, axes)
        seen.update({line.get_label(): line.get_ydata()[0] for line in axes.lines})

    plots.draw(tmp_path / "sizes.png", "Sizes", "target", "edges", plot)
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
    assert seen["sparse: geometric mean of 2 tasks"] == pytest.approx(10)
    assert seen["dense: geometric mean of 2 tasks"] == pytest.approx(200)


def test_the_figures_of_the_frontier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nine models; loss falls with width and with nonzeros, edges grow with both: so half of the figures hold."""
    trained: list[tuple[str, ...]] = []

    def place(workdir: Path) -> tuple[int, int]:
        width, nonzeros = workdir.name[1:].split("_rate_")[0].split("_n")
        return int(width), int(nonzeros)

    def loss(workdir: Path) -> float:
        lower = "_rate_" in workdir.name  # better for one model, and worse for the other four
        return 5 - sum(place(workdir)) / 1e5 + lower * (-0.1 if place(workdir) == (96, 49_152) else 0.1)

    monkeypatch.setattr(frontier, "finish", lambda name, *flags: trained.append((name, *flags)))
    monkeypatch.setattr(frontier, "find_common_tasks", lambda workdirs: ["a", "b", "c"])
    monkeypatch.setattr(measures, "validation_loss", loss)
    monkeypatch.setattr(frontier, "Workdir", lambda workdir: workdir)
    monkeypatch.setattr(frontier, "kurtosis", lambda workdir: 3.0 + place(workdir)[0])
    monkeypatch.setattr(
        frontier,
        "searched_sizes",
        lambda workdir, tasks: [
            {
                "model": "",
                "task": task,
                "target_loss": 0.15,
                "edges": place(workdir)[0] * 2**i,
                "reached": place(workdir) != (64, 12_288),
            }
            for i, task in enumerate(tasks)
        ],
    )
    found = frontier.frontier(tmp_path)
    assert [check.holds for check in found] == [True, False] + 3 * [True, False]
    assert [check.measured for check in found[:4]] == [3, 24, pytest.approx(-64e-5), pytest.approx(2)]
    lines = (tmp_path / "frontier.csv").read_text().splitlines()
    assert lines[0] == "width,nonzeros,val_loss,edges,kurtosis"
    assert [float(cell) for cell in lines[9].split(",")] == pytest.approx([128, 49_152, 4.5072, 256, 131])
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("frontier", "kurtosis"))
    assert [float(line.split(",")[2]) for line in lines[6:8]] == pytest.approx([4.40752, 4.87584])
    block_weights = {64: 98_304, 96: 221_184, 128: 393_216}
    flags = {Path(given["--workdir"]): given for given in (dict(f.split("=", 1) for f in made[1:]) for made in trained)}
    rates: dict[tuple[int, int], list[str]] = {}
    for workdir, given in flags.items():
        width, nonzeros = place(workdir)
        rates.setdefault((width, nonzeros), []).append(given["--config.optimizer.learning_rate"])
        assert given["--config.model.d_model"] == str(width)
        assert float(given["--config.sparsity.density"]) * block_weights[width] == pytest.approx(nonzeros)
        first = tmp_path / "d64_n12288"
        assert given.get("--config.data.corpus") == (None if workdir == first else str(first / "corpus"))
    assert list(rates) == list(itertools.product(frontier.WIDTHS, frontier.NONZEROS))
    more = {(64, 12_288): 1, (64, 24_576): 2, (64, 49_152): 3, (96, 49_152): 1, (128, 49_152): 1}  # than the preset's
    assert rates == {key: ["0.1", "0.05", "0.025", "0.0125"][: 1 + more.get(key, 0)] for key in rates}
