"""The gallery: circuits and the minimal ones inside them, in one page that runs whichever its address names."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from sparse_gpt import stored, tasks
from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.model import build
from sparse_gpt.page.gallery import _name_of
from sparse_gpt.workdir import Workdir
from tests.browser import Page, open_page
from tests.inprocess import launch_here
from tests.page_actions import IDLE, difference, same, text, write
from tests.page_workdir import TASK, by_jax, write_workdir

OTHER = "others"
NAMES = [TASK, f"{TASK}, minimal", OTHER]
in_browser = pytest.mark.browser


def half_of(run: Workdir, circuit: Circuit) -> Circuit:
    """A circuit of every second node of another, louder."""
    nodes = circuit.nodes[::2]
    gates = dataclasses.replace(circuit, nodes=nodes).gates(run.config.model)
    edges = ModelGraph(run.config.model, run.params).edges(to_vector(gates))
    return dataclasses.replace(circuit, nodes=nodes, edges=edges, edge_pruned=False, scale=2.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A circuit with a minimal one inside, and one of another task that has other ablation values."""
    folder = write_workdir(tmp_path_factory.mktemp("gallery") / "run")
    found, run = load(folder / "circuits" / TASK), Workdir(folder)
    dataclasses.replace(found, minimal=half_of(run, found)).save(folder / "circuits" / TASK)
    values = {site: each + 0.5 for site, each in found.values.items()}
    dataclasses.replace(found, task=OTHER, values=values).save(folder / "circuits" / OTHER)
    shutil.copyfile(folder / f"{TASK}.jsonl", folder / f"{OTHER}.jsonl")
    files = ",".join(str(folder / f"{name}.jsonl") for name in (TASK, OTHER))
    done = launch_here("page", f"--workdir={folder}", "--gallery", f"--task={files}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"gallery: {folder / 'circuits' / 'gallery.html'} (")
    return run


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "browser") as opened:
        yield opened
        assert opened.console == []
        assert opened.requests == []


def show(page: Page, run: Workdir, query: str) -> None:
    page.command("Page.navigate", url=(run.folder / "circuits" / "gallery.html").as_uri() + query)
    page.wait(f"document.querySelector('main') && {IDLE}")


@pytest.mark.slow
@in_browser
def test_every_circuit_of_the_gallery_is_computed_as_by_jax(browser: Page, run: Workdir) -> None:
    found, other = (load(run.folder / "circuits" / name) for name in (TASK, OTHER))
    assert found.minimal is not None
    answer, foil = (run.tokenizer.encode(f"for an{each}")[-1] for each in (" in", ":\n"))
    shown = []
    for name, circuit in zip(NAMES, (found, found.minimal, other), strict=True):
        show(browser, run, f"?{urlencode({'circuit': name})}")
        assert text(browser, "h1") == name
        called = "minimal" if circuit is found.minimal else name
        assert text(browser, "[aria-current]") == f"{called} {len(circuit.edges)}"
        assert ("The minimal circuit" in text(browser, "header")) == (circuit is found.minimal)
        beyond = browser.evaluate("document.querySelector('#beyond-title + details')?.textContent ?? ''")
        rest = len(found.nodes) - len(found.minimal.nodes)
        assert (f"{rest} nodes that are not in the minimal circuit" in beyond) == (circuit is found)
        assert str(browser.evaluate("document.title")).startswith(f"{name} · ")
        drawn = browser.evaluate("document.querySelector('.circuit-drawing title').textContent")
        assert f"{len(circuit.nodes)} nodes" in drawn
        ids = np.array(run.tokenizer.encode(browser.evaluate("document.querySelector('#prompt').value")), np.int32)
        full, through, _ = by_jax(run.config, run.params, circuit, ids)
        for side, logits in (("circuit", through), ("full", full)):
            assert same(difference(browser, side), float(logits[-1, answer] - logits[-1, foil]))
        shown.append(difference(browser))
    assert len(set(shown)) == 3, "else the page could show the same circuit thrice"


@pytest.mark.slow
@in_browser
def test_links_lead_from_circuit_to_circuit_and_unknown_names_are_said(browser: Page, run: Workdir) -> None:
    show(browser, run, "")
    assert text(browser, "h1") == TASK
    write(browser, "prompt", "for hs in hs_list: while gn")
    browser.wait(IDLE)
    for name, taken in (
        (NAMES[1], True),
        (OTHER, False),
    ):  # a prompt of one's own goes along to the same task's circuit
        link = f"document.querySelector('[aria-label=\"{name}\"]')"
        stays = "(event) => event.preventDefault(), { once: true }"  # a page that is left cannot answer
        address = browser.evaluate(f"{link}.addEventListener('click', {stays}), {link}.click(), {link}.href")
        browser.command("Page.navigate", url=address)
        browser.wait(f"document.querySelector('h1')?.textContent === '{name}' && {IDLE}")
        prompt = browser.evaluate("document.querySelector('#prompt').value")
        assert (prompt == "for hs in hs_list: while gn") == taken
        assert "link" not in text(browser, "#message")
    for asked in ("toString", "no such"):
        show(browser, run, f"?{urlencode({'circuit': asked})}")
        assert text(browser, "h1") == TASK
        assert text(browser, "#message") == f"This page has no circuit called {asked}; {TASK} is shown."


@pytest.mark.slow
@in_browser
def test_the_gallery_of_the_docs_computes_the_stored_model(browser: Page, tmp_path: Path) -> None:
    path = Path(__file__).resolve().parent.parent / "docs" / "gallery" / "laptop.html"
    browser.command("Page.navigate", url=f"{path.as_uri()}?{urlencode({'circuit': 'enumerate_range, minimal'})}")
    browser.wait(f"document.querySelector('main') && {IDLE}")
    assert stored.unpack("laptop", tmp_path / "laptop")
    run = Workdir(tmp_path / "laptop")
    assert run.params_sha256[:12] in text(browser, "header")
    ids = np.array([run.tokenizer.encode(browser.evaluate("document.querySelector('#prompt').value"))])
    logits = np.asarray(build(run.config).apply({"params": run.params}, ids))[0, -1]
    answer, foil = (run.tokenizer.encode(f"for x in {each}")[-1] for each in ("range", "enumerate"))
    assert same(difference(browser, "full"), float(logits[answer] - logits[foil]))


def test_equal_ablation_values_are_carried_once() -> None:
    known: dict[str, dict[str, np.ndarray]] = {}
    given = [{"attn_in": np.full((2, 3), value), "mlp_in": np.zeros((2, 3))} for value in (0.0, 1.0, 0.0)]
    names = [_name_of(values, known) for values in given]
    assert names == ["ablation 0", "ablation 1", "ablation 0"]
    assert list(known) == names[:2]


def test_the_gallery_has_no_twin(run: Workdir) -> None:
    done = launch_here("page", f"--workdir={run.folder}", "--gallery", f"--twin={run.folder}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --twin ")


def test_a_gallery_needs_circuits(run: Workdir, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("circuits"))
    for flag in ("--gallery", "--gallery=false", "--task=all"):
        done = launch_here("page", f"--workdir={folder}", flag)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{folder}: has no circuits; find some with python -m launch.prune --workdir={folder}" in done.stderr
    assert not (folder / "circuits").exists()


@pytest.mark.parametrize("script", ["page", "card", "formation"])
def test_all_circuits_are_those_that_are_there(run: Workdir, tmp_path: Path, script: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    flags = ["--gallery"] if script == "page" else []
    done = launch_here(script, f"--workdir={folder}", "--task=all", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "are of files of pairs; name the files, as --task=FILE.jsonl" in done.stderr
    for name in ("for_while", "else_elif+var_if"):
        (folder / "circuits" / name).mkdir()
        (folder / "circuits" / name / "circuit.json").write_text("{}")
    found = [[task.name for task in members] for members in tasks.every_circuit(folder)]
    assert found == [["else_elif", "var_if"], ["for_while"]]
    done = launch_here(script, f"--workdir={folder}", "--task=all", *flags)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{folder / 'circuits/else_elif+var_if'}/" in done.stderr, "the first of them is read"
