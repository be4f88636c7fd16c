"""What was made for other weights than the workdir's model, or for another circuit, is said to be so."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_gpt.records import read_workdir
from sparse_gpt.report.overview import render_overview
from sparse_gpt.report.page import render
from sparse_gpt.report.sections import evaluation, summary
from tests import report_workdirs as workdirs

OWN, OTHER = "ef" * 32, "12" * 32
MADE_BY: dict[str, Callable[[Path], str]] = {
    "summary": lambda folder: summary(read_workdir(folder)),
    "index": lambda folder: render_overview(read_workdir(folder)).split('id="all"')[1].split("</section>")[0],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return workdirs.write_workdir(tmp_path / "run")


def change(path: Path, **fields: object) -> None:
    workdirs.write_json(path, json.loads(path.read_text()) | fields)


def shown(page: str) -> str:
    """The row of the judged circuit, as it is read."""
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*>single_double_quote\s*<.*?</tr>", page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", row).split())


@pytest.mark.parametrize("page", MADE_BY)
@pytest.mark.parametrize("field", ["circuit_sha256", "params_sha256"])
def test_a_card_of_another_circuit_does_not_count(folder: Path, page: str, field: str) -> None:
    assert "2 of 3 rows pass" in shown(MADE_BY[page](folder))
    card = folder / "circuits" / "single_double_quote" / "card.json"
    change(card, **{field: OTHER})
    row = shown(MADE_BY[page](folder))
    assert "rows pass" not in row
    assert "–" in row
    assert "This card belongs to another circuit of the task, or to other weights" in render(read_workdir(folder))
    change(card, **{field: ""})  # of an older version, which did not say it
    assert "2 of 3 rows pass" in shown(MADE_BY[page](folder))


def test_the_check_mark_does_not_come_from_a_card_of_another_circuit(folder: Path) -> None:
    card = workdirs.card()
    card["rows"][1]["verdict"] = "pass"
    place = folder / "circuits" / "single_double_quote" / "card.json"
    for own, sign in (("", "✓"), (OTHER, "✗")):  # the loss on other templates is above the target
        workdirs.write_json(place, card | {"circuit_sha256": own})
        assert all(f"0.046 {sign} 0.150" in shown(make(folder)) for make in MADE_BY.values())
    assert "This card belongs to another circuit" in render(read_workdir(folder))


@pytest.mark.parametrize("page", MADE_BY)
def test_a_circuit_of_other_weights_is_marked(folder: Path, page: str) -> None:
    assert "of other weights" not in MADE_BY[page](folder)
    change(folder / "circuits" / "single_double_quote" / "circuit.json", params_sha256=OTHER)
    text = MADE_BY[page](folder)
    assert text.count("of other weights") == 1
    assert "of other weights" in shown(text)
    assert f"found in weights {OTHER[:12]}; this model is {OWN[:12]}" in text
    change(folder / "manifest.json", params_sha256=None)  # of a training that goes on
    assert "of other weights" not in MADE_BY[page](folder)


def test_an_evaluation_of_other_weights_is_reported(folder: Path) -> None:
    assert "These numbers belong to" not in evaluation(read_workdir(folder))  # which weights, it does not say
    for weights, told in ((OWN, False), (OTHER, True)):
        change(folder / "evaluation.json", params_sha256=weights)
        text = re.sub(r"<[^>]+>", "", evaluation(read_workdir(folder)))
        said = f"These numbers belong to weights {OTHER[:12]}, but the model in this workdir is\n{OWN[:12]}: measure it"
        assert (said in text) == told
        assert ("python -m launch.evaluate --workdir=run" in text) == told
    assert evaluation(read_workdir(folder)) in render(read_workdir(folder))
