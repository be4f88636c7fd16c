"""What a circuit's page tells its reader: which token wins, of which sample, what nodes do, what the twin is for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from sparse_gpt.circuits.circuit import load
from sparse_gpt.page.modules import join_modules
from sparse_gpt.page.page import shown_contexts
from sparse_gpt.workdir import Workdir
from tests.browser import Page
from tests.inprocess import launch_here
from tests.page_actions import (
    CONTROL,
    IDLE,
    MINUS,
    choose,
    difference,
    expected,
    rows_of,
    same,
    text,
    visit,
    wait_for,
    write,
)
from tests.page_workdir import TASK, write_workdir

in_browser = pytest.mark.browser
RANKED = "!/^$|nodes computed/.test(document.querySelector('#ranking-said').textContent)"
ROWS = (
    "[...document.querySelectorAll('#ranking-table tbody tr')].map((row) =>"
    " [row.querySelector('button').dataset.key, row.children[1].textContent, row.children[2].textContent])"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    folder = write_workdir(tmp_path_factory.mktemp("page") / "run")
    assert launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl").returncode == 0
    return Workdir(folder)


@pytest.fixture
def page(browser: Page, run: Workdir) -> Iterator[Page]:
    with visit(browser, run.folder) as visited:
        yield visited


def selected(page: Page) -> list[str]:
    """What the lists of samples show."""
    found: list[str] = page.evaluate(
        "['family', 'sample'].map((id) => document.getElementById(id).selectedOptions[0]?.textContent ?? '')"
    )
    return found


def number(shown: str) -> float:
    return float(shown.replace(MINUS, "-"))


@pytest.mark.slow
@in_browser
def test_the_winner_is_named_first_and_any_two_tokens_are_compared(page: Page, run: Workdir) -> None:
    write(page, "prompt", "for hs in hs_list: while gn")
    page.wait("document.querySelector('#tokens').textContent.includes('gn')")
    before = difference(page)
    winner, loser = ("·in", ":↵") if before > 0 else (":↵", "·in")
    assert text(page, "#difference-circuit").startswith(f"Circuit: {winner} over {loser} by ")
    assert text(page, "#difference-note") == "after n, no changes"
    page.click("#exchange")
    assert difference(page) == -before
    page.click("#exchange")
    page.focus("#foil")
    choose_token(page, "foil", "·in")
    assert difference(page) == 0
    choose_token(page, "foil", "for in")  # two tokens
    page.wait("document.querySelector('#answer-said').textContent.includes('one token; this is 2: for | ·in')")
    choose_token(page, "foil", ":↵")
    page.wait(f"document.querySelector('#foil').value === ':↵' && {IDLE}")
    assert difference(page) == before


def choose_token(page: Page, field: str, value: str) -> None:
    page.evaluate(
        f"(() => {{ const e = document.querySelector('#{field}'); e.value = '{value}';"
        " e.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.slow
@in_browser
def test_the_lists_of_samples_follow_the_state(page: Page, run: Workdir) -> None:
    first = selected(page)
    choose(page, "family", "1")
    page.wait(IDLE)
    choose(page, "sample", "1")
    page.wait(IDLE)
    other = selected(page)
    assert other[0] != first[0]
    assert other[1] == "1b"
    page.click("#link")
    assert text(page, "#link-said") == "It is in the address bar, too."
    address = page.evaluate("document.querySelector('#address').value")
    page.focus("#tokens [tabindex='0']")
    page.press("z", modifiers=CONTROL)
    page.press("z", modifiers=CONTROL)
    page.wait(IDLE)
    assert selected(page) == first
    write(page, "prompt", "for hs")
    page.wait(IDLE)
    assert selected(page) == ["own prompt", ""]
    page.command("Page.navigate", url="about:blank")
    page.command("Page.navigate", url=address)
    page.wait(f"document.querySelector('main') && {IDLE}")
    assert selected(page) == other


@pytest.mark.slow
@in_browser
def test_what_the_twin_is_good_for_is_said(page: Page, run: Workdir) -> None:
    def told() -> str:
        page.wait(IDLE)
        return text(page, "#twin-said")

    prompt, twin = page.evaluate("[document.querySelector('#prompt').value, document.querySelector('#twin').value]")
    assert "differs" not in told()
    choose(page, "prompt", f"{prompt} {prompt}")
    assert "tokens, the prompt " in told()
    choose(page, "prompt", twin)
    choose(page, "twin", twin)
    assert told().startswith("The twin is the prompt itself: patching from it changes nothing. Make its twin")
    signs = [np.sign(expected(run, each)[1]) for each in (prompt, twin)]
    choose(page, "prompt", prompt)
    assert ("decides the same on both" in told()) == (signs[0] == signs[1])
    # Pairs of this task differ by one word at the start: of a prompt that has it once, the twin is made.
    for own, made in (("for gn in hs", "while gn in hs"), ("while gn for hs", None)):
        choose(page, "prompt", own)
        assert ("Make its twin" in told()) == (made is not None)
        if made:
            page.click("#twin-said button")
            page.wait(IDLE)
            assert page.evaluate("document.querySelector('#twin').value") == made


@pytest.mark.slow
@in_browser
def test_all_nodes_are_ranked_by_what_they_do(page: Page, run: Workdir, tmp_path: Path) -> None:
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    circuit, prompt = load(run.folder / "circuits" / TASK), "for hs in hs_list: while gn"
    write(page, "prompt", prompt)
    page.wait(IDLE)
    page.evaluate("document.querySelector('#ranking').open = true")
    page.wait(RANKED)
    rows: list[list[str]] = page.evaluate(ROWS)
    assert {key for key, *_ in rows} == {node.key for node in circuit.nodes}
    sizes = [abs(number(by)) for _, by, _ in rows]
    assert sizes == sorted(sizes, reverse=True)
    plain, shown = expected(run, prompt), {key: number(by) for key, by, _ in rows}
    for key, *_ in (rows[0], rows[len(rows) // 2]):
        node = next(node for node in circuit.nodes if node.key == key)
        value = float(circuit.values[node.site][node.layer, node.channel])

        def off(site: str, layer: int, x: Any) -> Any:
            return x.at[..., node.channel].set(value) if (site, layer) == (node.site, node.layer) else x  # noqa: B023

        assert same(shown[key], expected(run, prompt, off)[0] - plain[0])
    page.click("#save-nodes")
    wait_for(tmp_path / f"{TASK}_nodes.csv")
    saved = {row["id"]: row for row in rows_of(tmp_path / f"{TASK}_nodes.csv")}
    assert all(abs(float(saved[key]["off_circuit"]) - shown[key]) <= 0.051 for key in shown)
    page.click("#ranking-table [data-by=node] button")
    order: list[str] = page.evaluate(f"{ROWS}.map((row) => row[0])")
    assert order != [key for key, *_ in rows]
    assert [int(key.split(".")[0]) for key in order] == sorted(int(key.split(".")[0]) for key in order)
    page.click(f"#ranking-table [data-key='{order[3]}']")
    page.wait(f"document.querySelector('.node.chosen')?.dataset.node === '{order[3]}'")


@pytest.mark.slow
@in_browser
def test_effects_have_one_baseline_and_a_key_switches_off(page: Page, run: Workdir) -> None:
    choose(page, "find", "neuron")
    page.focus("#find")
    page.press("Enter")
    page.wait(f"document.querySelector('#switch-off') && {IDLE}")
    first = page.evaluate("document.querySelectorAll('#node option')[1].value")
    assert page.evaluate("document.querySelector('#node').value") == first
    page.wait("document.querySelector('.moved')")
    before = difference(page)
    said = text(page, ".moved")
    assert same(number(re.findall(r"from ([+\u2212.\de]+) to", said)[0]), before)
    # A value of its own is in neither number: both stand without it.
    page.focus("#node-panel input[type=range]")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    page.wait("document.querySelector('#changes').textContent.includes('at every token')")
    page.wait("document.querySelector('.moved')?.textContent.includes('without this node’s own change')")
    assert text(page, ".moved").startswith(said[:-1])
    assert text(page, "#difference-note").endswith(", 1 change")
    assert re.search("unmoved|without changes", text(page, "#difference-circuit"))
    assert "unmoved" in text(page, "#difference-full")
    page.click("#switch-off")
    page.wait("document.querySelector('#changes').textContent.includes('switched off')")
    page.wait("document.querySelector('#switch-off').textContent === 'Switch on again'")  # the panel is drawn later
    assert page.evaluate("document.activeElement.id") == "switch-off"
    page.press("o")
    page.wait("document.querySelector('#changes').textContent.includes('None')")
    page.press("O")
    page.wait("document.querySelector('#changes').textContent.includes('switched off')")


@pytest.mark.slow
@in_browser
def test_a_patch_that_changes_nothing_says_so(page: Page) -> None:
    page.press("n")
    page.wait(f"document.querySelector('#patch') && {IDLE}")
    twin = page.evaluate("document.querySelector('#twin').value")
    assert "patching changes nothing" not in text(page, "#patch-said")
    choose(page, "prompt", twin)
    page.wait(IDLE)
    assert text(page, "#patch-said") == "The value equals the twin’s at every token: patching changes nothing."


@in_browser
def test_attention_adds_up_and_what_is_constant_is_said(page: Page, run: Workdir) -> None:
    choose(page, "prompt", "for hs in hs_list: while gn for hs in gn:")
    page.wait(f"document.querySelector('#tokens').textContent.includes('gn') && {IDLE}")
    said: list[str] = page.evaluate(
        "[...document.querySelectorAll('.head > p')].map((e) => e.textContent).filter((t) => t.includes('looks at'))"
    )
    assert said
    for each in said:
        shares = re.findall(r"([<>]?[\d.]+)%", each)
        assert abs(sum(float(share.strip("<>")) for share in shares) - 100) < 3, each
    own = {n.channel // 4 for n in load(run.folder / "circuits" / TASK).nodes if n.site == "attn_q" and n.layer == 0}
    constant = page.evaluate(
        "[...document.querySelectorAll('.head')].filter((e) => e.textContent.startsWith('Layer 0'))"
        ".map((e) => e.textContent.includes('query is constant'))"
    )
    assert constant.count(False) == len(own)


@in_browser
def test_pale_edges_are_pale_in_the_saved_picture(page: Page, tmp_path: Path) -> None:
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    made = (
        "(() => { const svg = document.querySelector('#drawing svg');"
        " const path = document.createElementNS(svg.namespaceURI, 'path'); svg.append(path);"
        " path.setAttribute('class', 'embedding wire elsewhere'); return getComputedStyle(path).opacity; })()"
    )
    assert page.evaluate(made) == "0.1"
    page.click("#save-svg")
    wait_for(tmp_path / f"{TASK}.svg")
    wires = [e for e in ElementTree.parse(tmp_path / f"{TASK}.svg").iter() if "wire" in e.get("class", "").split()]
    (pale,) = [e for e in wires if "elsewhere" in e.get("class", "")]
    assert pale.get("style") == "opacity: 0.1;"


def test_percents(browser: Page) -> None:
    browser.command("Page.navigate", url="about:blank")
    shares = [0, 0.004, 0.0999, 0.5, 0.986, 0.98951, 0.9968, 0.9996, 1]
    found = browser.evaluate(f"(() => {{ {join_modules('view/dom.js')}; return {shares}.map(percent); }})()")
    assert found == ["<0.1%", "0.4%", "10%", "50%", "99%", "99.0%", "99.7%", ">99.9%", "100%"]


def test_contexts_show_white_space_by_signs() -> None:
    context = {"tokens": [" a", "\n", "\t"], "at": 1, "value": 2.0}
    shown = shown_contexts({"top": [context], "bottom": [], "node": 3})
    assert shown == {"top": [{**context, "tokens": ["·a", "↵", "⇥"]}], "bottom": []}
