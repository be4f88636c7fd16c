"""Names that people give on a circuit's page: in drawing, link and file, and in the browser from visit to visit."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from sparse_gpt.circuits.circuit import load
from sparse_gpt.records import Labels
from sparse_gpt.workdir import Workdir
from tests.browser import Page
from tests.inprocess import launch_here
from tests.page_actions import IDLE, choose, page_of, show, text, visit, wait_for
from tests.page_workdir import TASK, write_workdir

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A circuit with a minimal one inside: its own page, and the gallery of both."""
    folder = write_workdir(tmp_path_factory.mktemp("names") / "run")
    found = load(folder / "circuits" / TASK)
    kept = set(found.nodes[::2])
    edges = tuple(edge for edge in found.edges if edge.source in kept and edge.target in kept)
    inner = dataclasses.replace(found, nodes=found.nodes[::2], edges=edges)
    dataclasses.replace(found, minimal=inner).save(folder / "circuits" / TASK)
    for more in ((), ("--gallery",)):
        done = launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl", *more)
        assert (done.returncode, done.stderr) == (0, "")
    return Workdir(folder)


@pytest.fixture
def page(browser: Page, run: Workdir) -> Iterator[Page]:
    with visit(browser, run.folder) as visited:
        yield visited


def reopen(page: Page, run: Workdir) -> None:
    show(page, page_of(run.folder).as_uri())


def name(page: Page, key: str, label: str) -> None:
    choose(page, "node", key)
    page.wait(
        f"{IDLE} && document.querySelector('#node').value === '{key}' && !document.querySelector('#label').disabled"
    )
    page.focus("#label")
    page.type(label)
    page.wait(IDLE)


def given(page: Page) -> list[str]:
    """Names in the drawing."""
    shown = "[...document.querySelectorAll('.given')].map((e) => e.textContent).filter(Boolean).sort()"
    found: list[str] = page.evaluate(shown)
    return found


def before(run: Workdir) -> str:
    """Where earlier pages kept names, of all circuits of a task in one place."""
    return f"sparse_gpt names of {TASK}, {run.params_sha256}"


def stored(page: Page, run: Workdir) -> dict[str, Any]:
    """What the browser keeps for the circuit."""
    place = f"sparse_gpt names of circuit {TASK}, {run.params_sha256}"
    found: dict[str, Any] = page.evaluate(f"JSON.parse(localStorage.getItem({json.dumps(place)}) ?? '{{}}')")
    return found


@pytest.mark.slow
def test_names_go_into_drawing_link_and_file_and_come_back(page: Page, run: Workdir, tmp_path: Path) -> None:
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    circuit = load(run.folder / "circuits" / TASK)
    page.press("n")
    page.wait("document.querySelector('#node').value !== ''")
    key = page.evaluate("document.querySelector('#node').value")
    page.wait(IDLE)
    page.focus("#label")
    page.type("which loop")
    page.focus("#group")
    page.type("loops")
    page.focus("#reading")
    page.type("It looks at the first word.")
    page.wait("[...document.querySelectorAll('.given')].some((e) => e.textContent === 'which loop [loops]')")
    page.wait("document.querySelector('#groups').textContent.includes('loops: “which loop”')")
    page.click("#link")
    address = page.evaluate("document.querySelector('#address').value")
    page.click("#save-names")
    saved = tmp_path / "labels.json"
    wait_for(saved)
    names = Labels.read(saved)
    assert (names.by_key, names.group_by_key, names.reading) == (
        {key: "which loop"},
        {key: "loops"},
        "It looks at the first word.",
    )
    assert names.of_circuit(circuit.record()) == (names, "")

    # A link brings them back; undo takes them away.
    show(page, address)
    page.wait("[...document.querySelectorAll('.given')].some((e) => e.textContent === 'which loop [loops]')")
    saved.write_text(saved.read_text().replace("which loop", "the other loop"))
    browser_file(page, saved)
    page.wait("document.querySelector('#names-said').textContent.includes('is loaded')")
    page.wait("[...document.querySelectorAll('.given')].some((e) => e.textContent === 'the other loop [loops]')")
    for change, said in (
        ({"params_sha256": "ab" * 32}, "belong to another circuit"),
        ({"format": "x"}, "is no labels.json"),
        ({"nodes": [{"layer": 0, "site": "mlp_out", "channel": 10**5, "label": "x"}]}, "were left out"),
    ):
        saved.write_text(json.dumps({**names.tree(), **change}))
        browser_file(page, saved)
        page.wait(f"document.querySelector('#names-said').textContent.includes({said!r})")
    saved.write_text("{")
    browser_file(page, saved)
    page.wait("document.querySelector('#names-said').textContent.includes('no JSON')")


def browser_file(page: Page, path: Path) -> None:
    """Chooses a file, as the browser's dialog does."""
    root = page.command("DOM.getDocument")["root"]["nodeId"]
    found = page.command("DOM.querySelector", nodeId=root, selector="#load-names")["nodeId"]
    page.command("DOM.setFileInputFiles", nodeId=found, files=[str(path)])


@pytest.mark.slow
def test_names_outlast_the_visit(page: Page, run: Workdir) -> None:
    page.press("n")
    page.wait(f"document.querySelector('#node').value !== '' && {IDLE}")
    key = page.evaluate("document.querySelector('#node').value")
    page.focus("#label")
    page.type("which loop")
    page.wait(IDLE)
    reopen(page, run)
    assert text(page, "#names-said") == "As they were left in this browser."
    given = page.evaluate("[...document.querySelectorAll('.given')].map((e) => e.textContent)")
    assert given == ["which loop"], key
    place = page.evaluate("Object.keys(localStorage)[0]")
    page.evaluate(f"localStorage.setItem({json.dumps(place)}, '{{\"labels\": 3}}')")
    reopen(page, run)
    assert page.evaluate("document.querySelectorAll('.given').length") == 0


@pytest.mark.slow
def test_names_of_a_link_leave_ones_own_alone_until_one_chooses(page: Page, run: Workdir) -> None:
    circuit = load(run.folder / "circuits" / TASK)
    mine, theirs = circuit.nodes[0].key, circuit.nodes[1].key

    def kept() -> dict[str, str]:
        found: dict[str, str] = stored(page, run).get("labels", {})
        return found

    page.click("#link")
    without = page.evaluate("document.querySelector('#address').value")

    name(page, theirs, "theirs")
    page.click("#link")
    address = page.evaluate("document.querySelector('#address').value")
    page.evaluate("localStorage.clear()")
    show(page, address)
    assert kept() == {theirs: "theirs"}, "where there are none of one's own, those of the link are kept"
    page.evaluate("localStorage.clear()")
    reopen(page, run)
    name(page, mine, "mine")
    assert kept() == {mine: "mine"}
    show(page, without)  # a link without names takes none away
    assert page.evaluate("document.querySelector('#names-choice').hidden")
    assert given(page) == ["mine"]
    for button, wanted in (("Use mine", {mine: "mine"}), ("Add the link’s to mine", {mine: "mine", theirs: "theirs"})):
        show(page, address)
        assert "keeps them until you choose" in text(page, "#names-choice")
        assert not page.evaluate("document.querySelector('#names-notice').hidden")
        name(page, circuit.nodes[2].key, "more")
        assert kept() == {mine: "mine"}
        page.evaluate(
            f"[...document.querySelectorAll('#names-choice button')].find((e) => e.textContent === '{button}').click()"
        )
        page.wait("document.querySelector('#names-choice').hidden")
        page.wait(IDLE)
        assert kept() == wanted
        assert given(page) == sorted(wanted.values())


@pytest.mark.slow
def test_names_of_nodes_that_the_circuit_does_not_have_are_kept(page: Page, run: Workdir) -> None:
    """As after another search: those that fit are shown, the others stay, and none is overwritten."""
    first, second = (node.key for node in load(run.folder / "circuits" / TASK).nodes[:2])
    once = {"labels": {first: "mine", "7.mlp_out.3": "gone"}, "groups": {"7.mlp_out.3": "g"}, "reading": "my reading"}
    page.evaluate(f"localStorage.setItem({json.dumps(before(run))}, {json.dumps(json.dumps(once))})")
    reopen(page, run)
    assert given(page) == ["mine"]
    assert page.evaluate("document.querySelector('#reading').value") == "my reading"
    assert "names of nodes that this circuit does not have, too: 2." in text(page, "#names-said")
    name(page, second, "more")
    wanted = {**once, "labels": {**once["labels"], second: "more"}}  # type: ignore[dict-item]
    assert stored(page, run) == wanted
    assert json.loads(page.evaluate(f"localStorage.getItem({json.dumps(before(run))})")) == once
    reopen(page, run)
    assert given(page) == ["mine", "more"]
    assert stored(page, run) == wanted


@pytest.mark.slow
def test_circuits_of_one_task_keep_their_names_apart(page: Page, run: Workdir) -> None:
    circuit = load(run.folder / "circuits" / TASK)
    assert circuit.minimal is not None
    gallery = (run.folder / "circuits" / "gallery.html").as_uri()
    whole, inner = (f"{gallery}?{urlencode({'circuit': name})}" for name in (TASK, f"{TASK}, minimal"))
    show(page, whole)
    name(page, circuit.nodes[1].key, "outside")
    show(page, inner)
    assert text(page, "h1") == f"{TASK}, minimal"
    assert given(page) == []
    name(page, circuit.minimal.nodes[0].key, "inside")
    show(page, whole)
    assert given(page) == ["outside"]
    show(page, inner)
    assert given(page) == ["inside"]
