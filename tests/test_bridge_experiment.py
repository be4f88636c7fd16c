"""The experiment on bridges: its figures and pictures, and going on without a circuit."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_gpt.errors import InputError
from sparse_gpt.experiments import (
    bridge_plots,
    bridges,
)
from sparse_gpt.experiments.registry import EXPERIMENTS
from sparse_gpt.records import Bridge, Steering, Transport
from sparse_gpt.report.mixture_grids import mixture_grids
from tests import report_workdirs


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


def test_a_hybrid_without_a_loss_is_a_miss() -> None:
    """Whatever is not known of the untrained bridges: infinity by infinity is no number."""
    held = report_workdirs.bridge()
    for each in held["bridges"]:
        each["untrained"] |= {"loss_to_sparse": None, "loss_to_dense": 4.0}
        each["trained"] |= {"loss_to_sparse": 2.0, "loss_to_dense": 2.0}
    held["bridges"][-1]["trained"]["loss_to_sparse"] = None
    furthest, closer = bridges.check_hybrids(Bridge.from_tree(held))
    assert (furthest.measured, furthest.holds) == (math.inf, False)
    assert (closer.measured, closer.holds) == (0, False)


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
        assert (workdir, task) == (bridged, "single_double_quote")

    def solves(run: SimpleNamespace, task: str, target: float) -> bool:
        assert (run.folder, target) == (bridged, 0.2)
        return task == "single_double_quote"

    def fail(*_: object) -> None:
        raise InputError("launch.prune ended with exit code -9")

    monkeypatch.setattr(bridges, "finish", finish)
    monkeypatch.setattr(bridges, "prune", prune)
    config = SimpleNamespace(prune=SimpleNamespace(target_loss=0.2))
    monkeypatch.setattr(bridges, "Workdir", lambda folder: SimpleNamespace(folder=folder, config=config))
    monkeypatch.setattr(bridges, "is_solved", solves)
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
    monkeypatch.setattr(bridges, "prune", fail)
    with pytest.raises(InputError, match="exit code -9"):  # a search that was killed is no task without a circuit
        EXPERIMENTS["bridge"].run(tmp_path)


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
