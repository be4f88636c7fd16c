"""Numbers, charts and pictures of the report."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt.drawing.text import compact, number, script_json, visible_token, weight
from sparse_gpt.records import Circuit, MetricsRow, Search, read_metrics
from sparse_gpt.report.chart_svg import chart_svg
from sparse_gpt.report.charts import loss_versus_size, search_history, training_charts
from sparse_gpt.report.figures import LINES, Axis, Chart, Figure, Heat, Line, ends, plotted, ticks
from tests import report_workdirs as workdirs
from tests.inprocess import launch_here


def test_metrics_of_a_resumed_run_and_of_a_running_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": 3}\n{"step": 10, "loss": 2}\n{"step": 10, "loss": 1}\n{"step": 20, "lo')
    assert [(row.step, row.loss) for row in read_metrics(path)] == [(0, 3), (10, 1)]


def _rows_of(metrics: list[dict[str, Any]]) -> list[MetricsRow]:
    return [MetricsRow.from_tree(row) for row in metrics]


def test_charts_hold_the_numbers() -> None:
    metrics = workdirs.metrics(1000)
    charts = {chart.title: _lines(chart) for chart in training_charts(_rows_of(metrics))}
    assert list(charts) == [
        "Loss",
        "Density",
        "Nonzero weights",
        "Learning rate",
        "Dead neurons",
        "Gradient RMS",
        "Speed",
    ]
    assert list(charts["Loss"].lines[0].y) == [row["loss"] for row in metrics]
    assert list(charts["Loss"].lines[1].x) == [row["step"] for row in metrics if "val_loss" in row]
    assert charts["Density"].y.log
    last = metrics[-1]["nonzeros"]
    assert charts["Nonzero weights"].lines[0].y[-1] == last["h_0/mlp/c_fc/kernel"] + last["wte"]  # not the bigram table

    circuit, _ = workdirs.quote_circuit()
    search = Search.from_tree(workdirs.search(circuit))
    chart = loss_versus_size(search, Circuit.from_tree(circuit))
    assert chart is not None
    figure = _lines(chart)
    assert figure.x.log
    assert {round(value, 3) for value, _ in figure.levels} == {0.693, 0.15}
    # sizes with edges of the search and of three baselines, random draws, the circuit
    assert [len(line.x) for line in figure.lines] == [11, 11, 11, 11, 20, 1]
    assert figure.lines[2].name == "ranked by weight magnitude"
    assert figure.x.bounds is not None
    assert figure.x.bounds[1] > 3 * max(figure.lines[0].x)
    assert [len(_lines(chart).lines) for chart in search_history(search)] == [8, 8]


def _lines(chart: Chart) -> Figure:
    assert isinstance(chart.figure, Figure)
    return chart.figure


def test_pictures_hold_the_numbers() -> None:
    """Points and ticks are where the scales that the picture states say they are."""
    line = Line("a < b", [1, 10, 100], [0.0, 5.0, 10.0], LINES[0], mark="dot")
    picture = chart_svg(Figure(Axis("n", log=True), Axis("loss", from_zero=True), lines=[line]), "one", wide=True)
    scales = {}
    for name in "xy":
        found = re.search(rf'data-{name}="(\w+) (\S+) (\S+) (\S+) (\S+)"', picture)
        assert found
        scales[name] = found[1], *map(float, found.groups()[1:])
    points = re.search(r'points="([^"]+)"', picture)
    assert points
    for place, x, y in zip(points[1].split(), line.x, line.y, strict=True):
        left, top = map(float, place.split(","))
        _, low, high, start, stop = scales["x"]
        assert low * (high / low) ** ((left - start) / (stop - start)) == pytest.approx(x, rel=0.01)
        _, low, high, start, stop = scales["y"]
        assert low + (high - low) * (top - start) / (stop - start) == pytest.approx(y, abs=0.02)
    assert "a &lt; b: 10: 5" in picture
    assert [text for _, text in ticks(1.5, 80, log=True)] == ["2", "5", "10", "20", "50"]
    assert [text for _, text in ticks(-0.0004, 0.0021, log=False, most=5)] == [
        "0",
        "0.0005",
        "0.001",
        "0.0015",
        "0.002",
    ]
    assert ends(Axis("", from_zero=True), [3.0, 3.0])[0] == 0
    low, high = ends(Axis(""), [3.0, 3.0])
    assert low < 3 < high


def test_tips_have_the_values_of_the_points() -> None:
    """Not what their places, rounded to a tenth of a pixel, come to."""
    line = Line("n", [600, 12345, 1e6], [0.0625, 93072, 1.23456e-7], LINES[0])
    assert plotted(Figure(Axis("step"), Axis("n"), lines=[line])) == [
        [[600, 12345, 1000000], [0.0625, 93072, 1.235e-7]]
    ]
    assert plotted(Heat(["a"], ["b"], [[1.0]], [["c"]], "", "", "")) == []
    assert (
        script_json(plotted(Figure(Axis(""), Axis(""), lines=[line])))
        == "[[[600,12345,1000000],[0.0625,93072,1.235e-07]]]"
    )


@pytest.mark.slow
def test_long_runs_are_thinned() -> None:
    metrics = [{"step": step, "loss": 1.0} for step in range(100_000)]
    (chart,) = training_charts(_rows_of(metrics))
    assert 700 < len(_lines(chart).lines[0].x) <= 1500


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234567, "1\u202f234\u202f567"),
        (0.0123, "0.012"),
        (0.00123, "0.00123"),
        (0.003, "0.003"),
        (3e-7, "3e−07"),
        (-1.5, "−1.50"),
        (16.0, "16"),
        (123.456, "123"),
        *((nothing, "–") for nothing in (None, float("nan"), True, "x")),
    ],
)
def test_numbers(value: object, shown: str) -> None:
    assert number(value) == shown


def test_weights_counts_and_tokens() -> None:
    assert [weight(v) for v in (1.234, -0.5, 0.0512, -0.003, 1e-5)] == ["+1.23", "−0.50", "+0.051", "−0.003", "+1e−05"]
    assert [compact(v) for v in (4_096_000, 950, 16_472, None)] == ["4.1\u202fM", "950", "16.5\u202fk", "–"]
    assert visible_token(" a\n\t\x00\ud800") == "·a↵⇥<00><U+D800>"
    assert visible_token("") == "∅"
    assert visible_token("abcdef", 4) == "abc…"
    assert script_json({"a": "</script>", "b": float("inf")}) == '{"a":"\\u003c/script\\u003e","b":null}'


def _launch(workdir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.report", f"--workdir={workdir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)


def test_script_writes_the_page_and_says_where(tmp_path: Path) -> None:
    done = _launch(workdirs.write_workdir(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "run/report/index.html") in done.stdout
    assert (tmp_path / "run/report/index.html").is_file()


def test_script_explains_itself() -> None:
    command = [sys.executable, "-m", "launch.report", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout.split("flags:")[1]


def test_script_refuses_a_folder_that_is_no_workdir(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = launch_here("report", f"--workdir={folder}")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert f"--workdir={folder}" in done.stderr
        assert list(tmp_path.iterdir()) == []
