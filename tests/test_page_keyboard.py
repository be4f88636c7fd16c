"""A circuit's page by keyboard and address: what keys do wherever the focus is, where it goes, steps of undo, links."""

import dataclasses
from collections.abc import Iterator

import pytest

from sparse_gpt.circuits.circuit import load
from sparse_gpt.workdir import Workdir
from tests.browser import Page
from tests.inprocess import launch_here
from tests.page_actions import CONTROL, IDLE, choose, difference, page_of, show, text, tokens, visit, write
from tests.page_workdir import TASK, write_workdir

pytestmark = pytest.mark.browser
SLIDER, NUMBER = "#node-panel input[type=range]", "#node-panel input[type=number]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    folder = write_workdir(tmp_path_factory.mktemp("keyboard") / "run")
    assert launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl").returncode == 0
    return Workdir(folder)


@pytest.fixture
def page(browser: Page, run: Workdir) -> Iterator[Page]:
    with visit(browser, run.folder) as visited:
        yield visited


def choose_node(page: Page, key: str) -> None:
    choose(page, "node", key)
    page.wait(f"{IDLE} && document.querySelector('.node.chosen')?.dataset.node === '{key}'")


def wait_for_change(page: Page, told: str) -> None:
    page.wait(f"document.querySelector('#changes').textContent.includes('{told}') && {IDLE}")


def focused(page: Page, field: str = "textContent") -> str:
    found: str = page.evaluate(f"document.activeElement.{field}")
    return found


@pytest.mark.slow
def test_keys_work_after_sliders_and_radio_buttons(page: Page, run: Workdir) -> None:
    first = next(node.key for node in load(run.folder / "circuits" / TASK).nodes if node.site == "mlp_neuron")
    choose_node(page, first)
    start = page.evaluate(f"document.querySelector('{SLIDER}').value")
    page.focus(SLIDER)
    page.press("ArrowRight")
    wait_for_change(page, "set to")
    page.press("z", modifiers=CONTROL)
    wait_for_change(page, "None")
    page.wait(f"document.querySelector('{SLIDER}').value === '{start}'")
    assert focused(page, "type") == "range"
    page.press("n")
    page.wait(f"document.querySelector('#node').value !== '{first}' && {IDLE}")
    page.click("#node-panel input[name=where][value=both]")
    page.press("o")
    wait_for_change(page, "in circuit and model")
    page.click("#node-panel input[name=at][value=chosen]")
    page.press("z", modifiers=CONTROL)
    wait_for_change(page, "None")
    # Letters that are text stay text.
    chosen = page.evaluate("document.querySelector('#node').value")
    for field in ("find", "label"):
        page.focus(f"#{field}")
        page.press("n", "o")
        page.wait(IDLE)
        assert page.evaluate(f"document.querySelector('#{field}').value") == "no"
    assert page.evaluate("document.querySelector('#node').value") == chosen
    assert "None" in text(page, "#changes")


@pytest.mark.slow
def test_the_focus_stays_where_it_was(page: Page, run: Workdir) -> None:
    edge = next(e for e in load(run.folder / "circuits" / TASK).edges if e.source.site == "attn_v")
    choose_node(page, edge.source.key)
    page.focus(".patch-edge")
    label = focused(page, "ariaLabel")
    page.press("Enter")
    wait_for_change(page, "edge from")
    assert focused(page, "ariaLabel") == label.replace("Patch", "As computed")
    page.focus(".head .copy button")
    label = focused(page, "ariaLabel")
    page.press("Enter")
    wait_for_change(page, "attention of layer")
    assert focused(page, "ariaLabel") == label.replace(
        "Patch attention from the twin, in circuit and model", "As computed again"
    )
    # Of removed changes the next one's button takes it, in the end the list.
    page.focus("#changes button")
    page.press("Enter")
    page.wait(f"document.querySelectorAll('#changes button').length === 1 && {IDLE}")
    assert focused(page, "ariaLabel").startswith("Remove: attention of layer")
    page.press("Enter")
    wait_for_change(page, "None")
    assert focused(page, "id") == "changes"
    # To the other end of an edge and back.
    page.focus(".edges button:not(.patch-edge)")
    page.press("Enter")
    page.wait(f"document.querySelector('.node.chosen').dataset.node !== '{edge.source.key}' && {IDLE}")
    page.wait("document.activeElement.closest('.edges')")
    page.press("Enter")
    page.wait(f"document.querySelector('.node.chosen').dataset.node === '{edge.source.key}' && {IDLE}")
    page.focus(".head .row:not(.copy) button")
    label = focused(page)
    page.press("Enter")
    page.wait(f"document.querySelector('#node').value !== '{edge.source.key}' && {IDLE}")
    page.wait("document.activeElement.closest('.head')")
    assert focused(page) == label


@pytest.mark.slow
def test_a_field_that_is_left_ends_a_step(page: Page, run: Workdir) -> None:
    choose_node(page, load(run.folder / "circuits" / TASK).nodes[0].key)
    for value in ("3", "5"):
        page.evaluate(f"document.querySelector('{NUMBER}').select()")
        page.focus(NUMBER)
        page.type(value)
        wait_for_change(page, f"set to +{value}.00")
        page.evaluate("document.activeElement.blur()")
    page.click("#undo")
    wait_for_change(page, "set to +3.00")
    for typed in ("ab", "cd"):
        page.focus("#label")
        page.type(typed)
        page.evaluate("document.activeElement.blur()")
    assert page.evaluate("document.querySelector('#label').value") == "abcd"
    page.click("#undo")
    assert page.evaluate("document.querySelector('#label').value") == "ab"


@pytest.mark.slow
def test_a_link_in_an_open_page_is_taken(page: Page, run: Workdir) -> None:
    plain, before = page_of(run.folder).as_uri(), tokens(page)
    page.click("#link")
    page.wait("location.hash.length > 1")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert page.evaluate("document.querySelector('#undo').disabled"), "the page's own address is no link to it"
    write(page, "prompt", "for hs in hs_list: while gn")
    page.wait("document.querySelector('#tokens').textContent.includes('gn')")
    key = load(run.folder / "circuits" / TASK).nodes[0].key
    choose_node(page, key)
    page.click("#switch-off")
    wait_for_change(page, "switched off")
    wanted = tokens(page), difference(page)
    page.click("#link")
    address = page.evaluate("document.querySelector('#address').value")
    show(page, plain)
    assert tokens(page) == before
    page.command("Page.navigate", url=address)
    wait_for_change(page, "switched off")
    assert (tokens(page), difference(page)) == wanted
    assert page.evaluate("document.querySelector('#node').value") == key
    page.click("#undo")
    page.wait(f"document.querySelector('#changes').textContent.includes('None') && {IDLE}")
    assert tokens(page) == before
    page.command("Page.navigate", url=address[:-9])
    page.wait("document.querySelector('#message.problem')?.textContent.includes('damaged')")
    assert tokens(page) == before


def test_a_circuit_without_nodes_can_be_linked_to(browser: Page, run: Workdir) -> None:
    folder = run.folder.with_name("empty")
    write_workdir(folder)
    circuit = load(folder / "circuits" / TASK)
    dataclasses.replace(circuit, nodes=(), edges=()).save(folder / "circuits" / TASK)
    assert launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl").returncode == 0
    show(browser, page_of(folder).as_uri())
    browser.press("n", "p", "o")
    browser.wait(IDLE)
    browser.click("#link")
    show(browser, browser.evaluate("document.querySelector('#address').value"))
    assert "; computed in" in text(browser, "#message")
    assert browser.console == []
