"""The report: what it says, that it loads nothing, that it escapes, and what it does with broken files."""

import functools
import json
import operator
import random
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt.drawing.text import visible_token
from sparse_gpt.errors import InputError
from sparse_gpt.records import Card, read_workdir
from sparse_gpt.records.card import CardRow
from sparse_gpt.report import build_report
from sparse_gpt.report.page import render
from sparse_gpt.report.verdicts import sentence
from tests import report_workdirs as workdirs


class Page(HTMLParser):
    """Collects what a browser would act on: elements with their attributes, scripts, styles, and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.source, self.text = text, ""
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside == "script":
            self.scripts.append(data)
        else:
            self.text += re.sub(r"[ \n]+", " ", data)  # as a browser shows it


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = workdirs.write_workdir(tmp_path_factory.mktemp("run"))
    path = build_report(folder)
    assert path == folder / "report" / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def test_says_what_was_trained_and_the_numbers_of_every_task(page: Page) -> None:
    rows = [" ".join(cells) for cells in _rows(page)]
    quote = "single_double_quote 12 9 0.046 ✓ 0.150 0.310 2 of 3 rows pass 0.012 0.810 0.702 99.2\u202f% yes"
    assert any(row.startswith(quote) for row in rows)
    assert any(row.startswith("bracket_counting 60 80 0.149 ✗ 0.150 0.310 – ") for row in rows)
    assert "for_while 0.012 99.8\u202f% 0.310 0.200 93.0\u202f%" in rows
    assert "belongs to weights" not in page.text
    assert "refined 12 9 0.100" in rows
    assert "weight magnitude 180 400 0.200 yes" in rows
    assert "random 270 600 0.300 no" in rows
    assert "the circuit 0.116 0.046" in rows
    assert "logits scaled by1.80" in page.text
    for parts in ("Edges of the circuit, largest", "Nodes of the circuit, most needed"):
        assert f"{parts} first; with all of them, on the same samples, 0.137" in page.text
    assert "random nodes, as many at every site and layer 20 0.702 (0.691 to 0.733) 0.677 (0.651 to 0.684)" in rows
    assert "0.437 on average (95 % interval 0.412 to 0.468, bootstrap over searches)" in page.text
    assert any(row.endswith("L0 mlp_in 17 → L0 mlp_in 90 1.72") for row in rows)
    assert "L0 mlp_neuron 201 2 8 25.0\u202f%" in rows
    assert "Geometric mean of edges over the 2 tasks: 26.8" in page.text  # sqrt(9 * 80)
    for fact in ("2 layers", "1\u202f000 steps", "idioms:0.75,python_source:0.25", "3.12 % (1 in 32)", "cpu"):
        assert fact in page.text, fact


def _rows(page: Page) -> list[list[str]]:
    """Text of table rows, cell by cell: table cells are recognized by parsing the page again."""
    rows: list[list[str]] = []

    class Rows(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "tr":
                rows.append([])
            self.inside = tag in ("td", "a", "b", "span") and bool(rows)

        def handle_endtag(self, tag: str) -> None:
            self.inside = self.inside and tag != "td"

        def handle_data(self, data: str) -> None:
            if self.inside and data.strip():
                rows[-1].append(data.strip())

    Rows().feed(page.source)
    return rows


def test_has_charts_drawings_and_sections(page: Page) -> None:
    classes = [attrs.get("class") or "" for _, attrs in page.elements]
    assert classes.count("circuit-drawing") == 2
    assert classes.count("plot") == 7 + 2 * 3  # training; per circuit: loss versus size, two of the search
    anchors = {attrs["id"] for tag, attrs in page.elements if tag == "section"}
    assert anchors == {"summary", "evaluation", "training", "reading", "files"} | {
        "circuit-single_double_quote",
        "circuit-bracket_counting",
    }
    assert {attrs["href"] for tag, attrs in page.elements if tag == "a"} == {f"#{anchor}" for anchor in anchors}


def test_loads_nothing(page: Page) -> None:
    for tag, attrs in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "srcset", "action", "data", "xlink:href", "poster"):
            assert name not in attrs, (tag, name)
        assert (attrs.get("href") or "#").startswith("#"), attrs
        assert "url(" not in (attrs.get("style") or "")
        assert not any(name.startswith("on") for name in attrs), attrs
    assert not [style for style in page.styles if "url(" in style or "@import" in style]
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none';")
    assert "http" not in policies[0]
    assert len(page.source) < 1e6, "nothing large is inlined"


def test_escapes_what_comes_from_files(page: Page) -> None:
    assert workdirs.HOSTILE not in page.source
    assert visible_token(workdirs.HOSTILE) in page.text
    assert not [script for script in page.scripts if script.startswith("console.error")]
    assert "<00>" in page.text
    assert "\x00" not in page.source
    held = [json.dumps(json.loads(script), ensure_ascii=False) for script in page.scripts if script.startswith("{")]
    assert any(visible_token(workdirs.HOSTILE) in text for text in held)


def test_a_circuit_of_other_weights_is_reported(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    workdirs.write_json(folder / "manifest.json", workdirs.manifest() | {"params_sha256": "12" * 32})
    text = Page(build_report(folder).read_text(encoding="utf-8")).text
    assert (
        text.count("This circuit belongs to weights efefefefefef, but the model in this workdir is 121212121212") == 2
    )


def test_missing_parts_name_the_command_that_makes_them(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run", circuits=False)
    (folder / "metrics.jsonl").unlink()
    page = Page(build_report(folder).read_text(encoding="utf-8"))
    assert "python -m launch.prune --workdir=run" in page.text
    assert "python -m launch.train --workdir=run" in page.text
    assert "plot" not in [attrs.get("class") for _, attrs in page.elements]

    workdirs.write_workdir(tmp_path / "other")
    for name in ("traces.json", "search.json"):
        (tmp_path / "other/circuits/bracket_counting" / name).unlink()
    text = Page(build_report(tmp_path / "other").read_text(encoding="utf-8")).text
    assert "No traces of this circuit" in text
    assert "python -m launch.prune --workdir=… --task=bracket_counting" in text


def test_tolerates_values_that_are_not_finite_or_null(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    place = folder / "circuits/single_double_quote"
    for name, change in (
        (
            "circuit.json",
            lambda c: c["metrics"].update(task_loss=None, accuracy=float("nan"), random_circuit_task_loss=[0.7, 0.9]),
        ),
        ("traces.json", lambda t: t["samples"][0]["values"]["0.mlp_in.17"].__setitem__(0, None)),
        ("search.json", lambda s: s["history"][0]["loss"].__setitem__(0, float("nan"))),
    ):
        value = json.loads((place / name).read_text())
        change(value)
        workdirs.write_json(place / name, value)
    page = Page(build_report(folder).read_text(encoding="utf-8"))
    assert "NaN" not in "".join(script for script in page.scripts if script.startswith("{"))
    assert any(
        " ".join(row).startswith("single_double_quote 12 9 – 0.150 0.310 2 of 3 rows pass 0.012 0.810 0.800 – yes")
        for row in _rows(page)
    )


def test_the_card_is_a_table_of_verdicts(page: Page) -> None:
    rows = [" ".join(cells) for cells in _rows(page)]
    assert any(
        row.startswith("✓ pass loss, nats Only on <its> words. searched templates 0.046 0.010 to 0.080 16 ≤ 0.150")
        for row in rows
    )
    assert any(row.startswith("✓ pass other templates 0.100") for row in rows)  # what is said is said once
    assert any(row.startswith("✗ fail worst loss Only in silence. searched templates 2.50 ≤ 0.150") for row in rows)
    assert any(row.startswith("– Norms.") and row.endswith("frozen") for row in rows)
    assert page.text.count("has not been judged") == 1, "the other circuit has no card"
    assert "belongs to another circuit" not in page.text


@pytest.mark.parametrize(
    ("card", "metrics", "sign"),
    [
        ("pass", {}, "✓"),
        ("fail", {}, "✗"),
        (None, {"shifted_task_loss": None}, "(main templates only)"),
        (None, {"shifted_task_loss": 0.14, "shifted_accuracy": 0.96}, "✓"),
        (None, {"shifted_task_loss": 0.64, "shifted_accuracy": 0.96}, "✗"),
        (None, {"shifted_task_loss": 0.14, "shifted_accuracy": 0.9}, "✗"),
    ],
)
def test_a_check_mark_says_that_it_holds_where_it_was_not_chosen(
    card: str | None, metrics: dict[str, float], sign: str, tmp_path: Path
) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    place = folder / "circuits" / "single_double_quote"
    tree = json.loads((place / "circuit.json").read_text())
    workdirs.write_json(place / "circuit.json", tree | {"metrics": tree["metrics"] | metrics})
    judged = workdirs.card()
    judged["rows"][1]["verdict"] = card
    if card is None:
        (place / "card.json").unlink()
    else:
        workdirs.write_json(place / "card.json", judged)
    page = Page(build_report(folder).read_text(encoding="utf-8"))
    assert any(" ".join(row).startswith(f"single_double_quote 12 9 0.046 {sign} 0.150") for row in _rows(page))


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (
            ["restoration"],
            "Holds on the searched templates, though 1 of 2 rows fail there; passes on all 1 set of samples",
        ),
        (["shifted"], "Holds on the searched templates; fails on 1 of 1 set of samples where it was not chosen."),
        (
            ["task_loss", "shifted"],
            "Fails on the searched templates (1 of 2 rows fail); fails on 1 of 1 set of samples",
        ),
    ],
)
def test_the_card_is_told_in_one_sentence(failed: list[str], told: str, tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    judged = workdirs.card()
    for row in judged["rows"]:
        name = row["samples"] if row["role"] == "heldout" else row["name"]
        row["verdict"] = row["verdict"] if row["value"] is None else "fail" if name in failed else "pass"
    workdirs.write_json(folder / "circuits" / "single_double_quote" / "card.json", judged)
    text = render(read_workdir(folder))
    assert f'<p class="verdict">{told}' in text
    assert "✗: an objection of a sceptic holds" in text


def test_the_searched_families_that_fail_are_named() -> None:
    rows = [
        CardRow(
            name="task_loss",
            criticism="",
            samples=f"family {name}",
            role="selection",
            value=value,
            sense="at most",
            threshold=0.15,
            verdict="fail" if value > 0.15 else "pass",
        )
        for name, value in (("main", 0.1), ("nested", 0.2), ("natural", 0.3))
    ]
    told = sentence(Card(task="quotes", rows=tuple(rows)))
    assert told == (
        "Fails on family nested, family natural, of the searched templates (2 of 3 rows fail); measured nowhere else."
    )


@pytest.mark.slow
def test_it_leads_to_the_pages_that_are_there(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    before = Page(render(read_workdir(folder)))
    assert not [each for tag, each in before.elements if tag == "a" and not (each["href"] or "").startswith("#")]
    for place in ("circuits/single_double_quote/page.html", "circuits/index.html"):
        (folder / place).write_text("")
    page = Page(render(read_workdir(folder)))
    links = [each["href"] for tag, each in page.elements if tag == "a" and not (each["href"] or "").startswith("#")]
    own = "../circuits/single_double_quote/page.html"
    assert links == [own, "../circuits/index.html", own]  # table of circuits, below it, the circuit's section
    assert all((folder / "report" / link).resolve().is_file() for link in links if link)
    assert "circuits/single_double_quote/page.htmlthe circuit, running in the browser" in page.text


CIRCUIT, TRACES, SEARCH = (f"circuits/single_double_quote/{name}.json" for name in ("circuit", "traces", "search"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "not readable as JSON"),
        ("config.json", "[1]", "holds a list, expected an object"),
        ("config.json", '{"model": {"d_head": "x"}}', "model.d_head is 'x', expected a whole number from 0 to 1000000"),
        ("evaluation.json", '{"format": "sparse_gpt.evaluation/2"}', "format is 'sparse_gpt.evaluation/2', but this"),
        ("metrics.jsonl", '{"step": 0}\nnonsense\n', "line 2: not readable as JSON"),
        ("metrics.jsonl", '{"loss": 0}\n', "line 1: step is missing"),
        (CIRCUIT, '{"format": "sparse_gpt.circuit/9"}', "format is 'sparse_gpt.circuit/9', but this version reads"),
        (CIRCUIT, '{"format": "sparse_gpt.circuit/1", "task": "a"}', "nodes is missing"),
        (TRACES, '{"format": "sparse_gpt.traces/1"}', "samples is missing"),
        (TRACES, '{"format": "sparse_gpt.traces/1", "samples": 3}', "samples is 3, expected a list"),
        (SEARCH, '{"format": "sparse_gpt.search/1", "trials": [3]}', "trials[0] is 3, expected an object"),
    ],
)
def test_broken_files_are_named_and_nothing_is_written(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        build_report(folder)
    assert str(folder / name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (folder / "report").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run", circuits=False)
    (folder / "report").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"report/index.html: cannot be written"):
        build_report(folder)


def test_circuit_and_traces_must_fit_together(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    place = folder / "circuits/single_double_quote"
    circuit, traces = workdirs.quote_circuit()
    circuit["edges"][0]["to"] = [0, "mlp_neuron", 9]
    workdirs.write_json(place / "circuit.json", circuit)
    with pytest.raises(
        InputError, match=r"circuit.json: an edge's 'to' is 0.mlp_neuron.9, which is not among the nodes"
    ):
        read_workdir(folder)
    workdirs.write_json(place / "circuit.json", workdirs.quote_circuit()[0])
    traces["samples"][1]["values"]["0.mlp_in.17"].append(0.0)
    workdirs.write_json(place / "traces.json", traces)
    with pytest.raises(InputError, match=r"traces.json: sample 1 has 7 tokens but node 0.mlp_in.17 has 8 values"):
        read_workdir(folder)


def _places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where something can be put instead: every key, and the first items of every list."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(2, len(value))):
            yield (*place, key)
            yield from _places(value[key], (*place, key))


STEERING, TRANSPORT = (f"circuits/single_double_quote/{name}.json" for name in ("steering", "transport"))


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "manifest.json", "evaluation.json", CIRCUIT, TRACES, SEARCH),
        *("bridge.json", STEERING, TRANSPORT),
    ],
)
def test_any_wrong_value_is_shown_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """Random values in random places: a page or an InputError that names the file, never another exception."""
    folder = workdirs.write_bridge(workdirs.write_workdir(tmp_path / "run", steps=50))
    shutil.rmtree(folder / "circuits/bracket_counting")
    text, draw, refusals = (folder / name).read_text(), random.Random(0), []
    places = list(_places(json.loads(text)))
    for _ in range(25):
        value = json.loads(text)
        *inner, last = draw.choice(places)
        holder = functools.reduce(operator.getitem, inner, value)
        holder[last] = draw.choice([None, "x", [], {}, -1, float("nan"), float("inf"), True, 10**30, [[]], "\ud800"])
        workdirs.write_json(folder / name, value)
        try:
            render(read_workdir(folder))
        except InputError as error:
            refusals.append(str(error))
    assert refusals or name == "manifest.json"
    assert [line for line in refusals if not line.startswith(str(folder / name)) or "\n" in line] == []


def test_failed_rebuild_keeps_the_old_page(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run", circuits=False)
    before = build_report(folder).read_bytes()
    (folder / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError):
        build_report(folder)
    assert (folder / "report/index.html").read_bytes() == before
    assert [path.name for path in (folder / "report").iterdir()] == ["index.html"]
