"""launch.reproduce: the table, the exit codes, and kills that hit and are counted."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch import reproduce
from sparse_gpt import config as configs
from sparse_gpt import interruption, presets
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import (
    bridge_plots,
    bridges,
    frontier,
    harness,
    killed_runs,
    measures,
    model_comparison,
    plots,
    results,
    sparse_vs_dense,
)
from sparse_gpt.experiments.harness import at_least, at_most, equal
from sparse_gpt.experiments.killed_runs import disturb
from sparse_gpt.experiments.registry import EXPERIMENTS
from sparse_gpt.interruption import Interrupted
from sparse_gpt.records import Bridge, Steering, Transport
from sparse_gpt.report.mixture_grids import mixture_grids
from sparse_gpt.tasks import TaskError
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


def test_a_run_that_fails_is_no_kill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, code=1, stops=1)
    with pytest.raises(InputError, match="exit code 1 after SIGTERM"):
        disturb(tmp_path, [], [signal.SIGTERM], random.Random(0), early=0.0)


def test_widths_are_tried_where_the_loss_is_expected() -> None:
    def loss(width: int) -> float:
        return 3.0 - 0.25 * math.log(width)

    assert measures.next_width({32: loss(32), 64: loss(64)}, loss(48)) == 48
    assert measures.next_width({32: loss(32), 64: loss(64), 48: 2.05}, 2.05) in (44, 52)  # never twice the same
    assert measures.next_width({32: loss(32), 64: loss(64)}, 0.0) == 512
    assert measures.next_width({32: 2.0, 64: 2.0}, 1.9) == 28  # a flat line says nothing


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


def test_the_laptop_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The two stored models: losses on the same text, one search for both, and its figures."""
    done: list[tuple[str, str]] = []
    losses = {"sparse": 1.5, "dense": 1.51}
    unreached = {"sparse": 0.02, "dense": 0.15}  # the target that task b misses

    def sizes(workdir: Path, tasks: list[str], settings: dict[str, object]) -> list[dict[str, object]]:
        assert settings["prune.k_coefs"] == "3e-4,1e-3,3e-3,1e-2"
        times = 1 if workdir.name == "sparse" else 20
        return [
            {"model": "", "task": task, "target_loss": target, "nodes": 9, "edges": times * edges, "reached": reached}
            for task, edges in zip(tasks, (10, 40, 20), strict=True)
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
    monkeypatch.setattr(sparse_vs_dense, "find_common_tasks", lambda workdirs: ["a", "b", "c"])
    monkeypatch.setattr(sparse_vs_dense, "searched_sizes", sizes)
    found = {check.name.split(" of edges")[0]: check for check in sparse_vs_dense.sparse_vs_dense_laptop(tmp_path)}
    assert [check.holds for check in found.values()] == [True, True, True, True, False]
    assert found["pretraining losses apart by"].measured == pytest.approx(1 / 150)
    assert found["ratio"].measured == pytest.approx(20)
    assert found["searches that reached 0.15"].measured == 5
    assert done == [("laptop", "sparse"), ("laptop_dense", "dense")]
    lines = (tmp_path / "sparse-vs-dense.csv").read_text().splitlines()
    assert lines[:2] == ["model,task,target_loss,nodes,edges,reached", "sparse,a,0.15,9,10,True"]
    assert len(lines) == 13


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


def test_the_figures_of_bridges(tmp_path: Path) -> None:
    """One hybrid is 0.3 nats off, four times closer than untrained; the task's circuit carries over."""
    held = report_workdirs.bridge()
    for each in held["bridges"]:
        each["trained"] |= {"loss_to_sparse": 2.02, "loss_to_dense": 1.99}
        each["untrained"] |= {"loss_to_sparse": 4.0, "loss_to_dense": 3.2}
    held["bridges"][1]["trained"]["loss_to_dense"] = 2.3
    bridge = Bridge.from_tree(held)
    assert [(round(x.measured, 2), x.holds) for x in bridges.check_hybrids(bridge)] == [(0.3, False), (4.0, False)]
    found = (
        Steering.from_tree(report_workdirs.steering("quotes")),
        Transport.from_tree(report_workdirs.transport("quotes")),
    )
    assert [(round(x.measured, 2), x.holds) for x in bridges.check_task("quotes", found)] == [
        (0.76, True),
        (0.12, False),
        (0.77, True),
        (0.85, True),
        (0.7, True),
        (0.77, True),
        (0.19, True),
    ]
    assert [x.holds for x in bridges.check_task("quotes", None)] == [False]
    bridges.write_tables(tmp_path, bridge, [found])
    lines = {path.name: len(path.read_text().splitlines()) - 1 for path in tmp_path.iterdir()}
    assert lines == {"bridges.csv": 9, "mixtures.csv": 16, "steering.csv": 209, "transport.csv": 4}


@pytest.mark.slow
def test_the_experiment_on_bridges_goes_on_without_a_circuit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Scripts in their order, all with the preset; one of the two tasks is not solved."""
    bridged = tmp_path / "bridged"
    ran: list[tuple[str, tuple[str, ...]]] = []
    place = bridged / "circuits" / "single_double_quote"
    place.mkdir(parents=True)

    def finish(name: str, *flags: str) -> None:
        ran.append((name, flags))
        if name == "bridge":
            report_workdirs.write_json(bridged / "bridge.json", report_workdirs.bridge())
        if name == "steer":
            report_workdirs.write_json(place / "steering.json", report_workdirs.steering("single_double_quote"))
            report_workdirs.write_json(place / "transport.json", report_workdirs.transport("single_double_quote"))

    def prune(workdir: Path, task: str) -> None:
        assert workdir == bridged
        if task != "single_double_quote":
            raise InputError("the model does not solve it")

    monkeypatch.setattr(bridges, "finish", finish)
    monkeypatch.setattr(bridges, "prune", prune)
    found = EXPERIMENTS["bridge-quickstart"].run(tmp_path)
    assert [name for name, _ in ran] == ["train", "bridge", "steer", "report"]
    assert [flags[0] for _, flags in ran[:2]] == ["--preset=quickstart", "--preset=bridge_quickstart"]
    assert f"--config.bridge.init_from={tmp_path / 'sparse'}" in ran[1][1]
    ran.clear()
    EXPERIMENTS["bridge"].run(tmp_path)  # its sparse model starts as the stored one
    assert ran[0] == ("bridge", ("--preset=bridge_laptop", f"--workdir={bridged}"))
    assert [x.holds for x in found if x.name.startswith("while_return_true")] == [False]
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {"nmse.png", "mixtures.png", "steering_single_double_quote.png", "transport.png", "steering.csv"} <= written


@pytest.mark.slow
def test_the_pictures_of_bridges(tmp_path: Path) -> None:
    """What is drawn is what the files hold."""
    content = report_workdirs.bridge()
    held, other = Bridge.from_tree(content), Bridge.from_tree(report_workdirs.bridge(linear=False))
    found = (
        Steering.from_tree(report_workdirs.steering("quotes")),
        Transport.from_tree(report_workdirs.transport("quotes")),
    )
    names = ("nmse", "hybrids", "mixtures", "all_mixtures", "steering_quotes", "transport")
    assert [path.name for path in bridge_plots.write(tmp_path, held, [found])] == [f"{name}.png" for name in names]
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)

    def drawn(plot: Callable[..., None], content: object) -> tuple[Axes, dict[str, list[float]]]:
        axes = Figure().subplots()
        plot(content, axes)
        return axes, {str(line.get_label()): [float(y) for y in line.get_ydata()] for line in axes.lines}

    _, lines = drawn(bridge_plots.nmse, held)
    assert lines["linear, decoder"] == [each["linear"]["nmse_decoder"] for each in content["bridges"]]
    _, lines = drawn(bridge_plots.hybrids, held)
    above = [each["trained"]["loss_to_dense"] - content["dense_loss"] for each in content["bridges"]]
    assert lines["trained, ends dense"] == above
    assert len(drawn(bridge_plots.hybrids, other)[1]) == len(lines) - 2
    _, lines = drawn(bridge_plots.curves, found[0])
    ends = [lines[name][-1] for name in ("sparse model", "dense model, its stream", "dense model, one read")]
    assert ends == pytest.approx([0.95 / 1.13, 0.85 / 1.11, 0.76 / 1.092])
    _, lines = drawn(bridge_plots.transported, [found[1]])
    assert lines["without the circuit's image"] == [0.8125]
    (grid, _) = mixture_grids(held)
    axes, _ = drawn(bridge_plots.heat_map, grid)
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "embedding",
        "attention 0",
        "MLP 0",
        "unembedding",
        "end",
    ]
    assert axes.images[0].get_array()[1, 2] == pytest.approx(0.02)  # the sparse model alone runs attention
    assert len(axes.texts) == 20


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
