"""The report's section on bridges: tables, heat maps, steering curves, transported circuits, and broken files."""

import json
import re
from pathlib import Path

import pytest

from sparse_gpt.drawing.text import number
from sparse_gpt.errors import InputError
from sparse_gpt.records import Bridge, read_workdir
from sparse_gpt.report.bridge_section import bridge_section, mixture_charts, steering_chart
from sparse_gpt.report.figures import Figure, Heat
from sparse_gpt.report.page import render
from tests import report_workdirs as workdirs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return workdirs.write_bridge(workdirs.write_workdir(tmp_path / "run", steps=50))


def rows(text: str) -> list[str]:
    """Table rows as text."""
    return [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in re.findall("<tr>(.*?)</tr>", text)]


def test_every_bridge_stands_beside_both_controls(folder: Path) -> None:
    text = bridge_section(read_workdir(folder))
    shown = rows(text)
    first = json.loads((folder / "bridge.json").read_text())["bridges"][0]
    for kind, words in (("trained", "0 : 0 trained"), ("untrained", "untrained"), ("linear", "linear maps to an")):
        above = first[kind]["loss_to_sparse"] - 2.0
        assert any(row.startswith(words) and number(above) in row for row in shown), kind
    assert "Without the second control" not in text
    workdirs.write_json(folder / "bridge.json", workdirs.bridge(linear=False))
    assert "Without the second control" in bridge_section(read_workdir(folder))
    assert 'href="#bridges"' in render(read_workdir(folder))


def test_heat_maps_hold_every_path() -> None:
    blocks, whole = (chart.figure for chart in mixture_charts(Bridge.from_tree(workdirs.bridge())))
    assert isinstance(blocks, Heat)
    assert isinstance(whole, Heat)
    # Pieces: embedding, attention, MLP, unembedding. The sparse model alone runs attention: two switches.
    assert blocks.told[1][2] == "dsdd"
    assert blocks.values[1][2] == pytest.approx(0.02)
    assert blocks.told[2][1] == "sdss"
    assert (blocks.told[0][4], blocks.values[0][4]) == ("ssss", 0)
    assert blocks.values[3][3] is None
    assert (whole.rows[1], whole.columns[2], whole.told[1][2]) == ("ds", "sd", "dssd")
    assert [[round(100 * (value or 0)) for value in row] for row in whole.values] == [
        [0, 1, 2, 1],
        [2, 3, 2, 1],
        [1, 2, 3, 2],
        [1, 2, 1, 0],
    ]
    bridge = workdirs.bridge()
    bridge["mixtures"]["complete"] = False
    assert len(mixture_charts(Bridge.from_tree(bridge))) == 1


def test_steering_and_transport(folder: Path) -> None:
    workdir = read_workdir(folder)
    chart = steering_chart(workdir.circuits[0])
    assert chart is not None
    assert isinstance(chart.figure, Figure)
    ends = {line.name: line.y[-1] for line in chart.figure.lines}
    assert ends["dense model, its stream"] == pytest.approx(0.85 / 1.11)
    assert ends["dense model, one read"] == pytest.approx(0.76 / 1.092)
    assert ends["sparse model"] == pytest.approx(0.95 / 1.13)
    assert len(chart.figure.lines) == 19
    (row,) = (row for row in rows(bridge_section(workdir)) if row.startswith("single_double_quote 1: 3 of 64"))
    assert "0.020 0.812 0.040" in row
    for path in folder.glob("circuits/*/*"):
        if path.stem in ("steering", "transport"):
            path.unlink()
    assert "python -m launch.steer --workdir=run" in bridge_section(read_workdir(folder))


def test_files_of_other_weights_are_named(folder: Path) -> None:
    assert "belongs to" not in bridge_section(read_workdir(folder))
    for place, name, sha256 in (
        ("circuits/single_double_quote/steering.json", "params_sha256", "78" * 32),
        ("circuits/single_double_quote/transport.json", "dense_params_sha256", "9a" * 32),
    ):
        workdirs.write_json(folder / place, json.loads((folder / place).read_text()) | {name: sha256})
    text = bridge_section(read_workdir(folder))
    warnings = [" ".join(re.sub("<[^>]*>", "", said).split()) for said in re.findall('(?s)"warning">(.*?)</p>', text)]
    place, remedy = "circuits/single_double_quote", "delete it or make it again, by python -m launch.steer."
    assert warnings == [
        f"{place}/steering.json belongs to a sparse model of weights 787878787878, but that of this workdir is "
        f"efefefefefef: {remedy}",
        f"{place}/transport.json belongs to a dense model of weights 9a9a9a9a9a9a, but that of this workdir is "
        f"121212121212: {remedy}",
    ]
    manifest = workdirs.manifest() | {"params_sha256": "78" * 32, "dense_params_sha256": "9a" * 32}
    workdirs.write_json(folder / "manifest.json", manifest)
    text = bridge_section(read_workdir(folder))
    assert text.count("<code>bridge.json</code> belongs to a ") == 2
    assert "single_double_quote/" not in text


def test_files_that_do_not_fit_together(folder: Path) -> None:
    place = folder / "circuits/single_double_quote/steering.json"
    held = json.loads(place.read_text())
    held["curves"]["dense"]["foil"].pop()
    workdirs.write_json(place, held)
    with pytest.raises(InputError, match=r"steering\.json: a curve has 10 values for 11 strengths"):
        read_workdir(folder)
    place.unlink()
    bridge = workdirs.bridge()
    bridge["mixtures"]["paths"][0]["path"] = "ddd"
    workdirs.write_json(folder / "bridge.json", bridge)
    with pytest.raises(InputError, match=r"bridge\.json: path 'ddd' is not 4 letters d or s"):
        read_workdir(folder)
