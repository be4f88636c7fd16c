"""What a circuit's page tells stays true: at earlier tokens, of patched edges, of texts that have no twin."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import Circuit, Edge, load
from sparse_gpt.io import write_atomic
from sparse_gpt.page.page import render
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.workdir import Workdir
from tests.browser import Page
from tests.page_actions import IDLE, choose, difference, page_of, rows_of, text, tokens, wait_for, write
from tests.page_workdir import TASK, by_jax, write_workdir

pytestmark = [pytest.mark.browser, pytest.mark.slow]
RETURNS = "for gn:\r\nwhile\rhn"
PROMPT, TWIN = "for hs in hs_list: while gn", "while gn in gn_list: for hs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """Its page has natural text among the samples, and a pair with carriage returns."""
    run = Workdir(write_workdir(tmp_path_factory.mktemp("told") / "run"))
    folder = run.folder / "circuits" / TASK
    circuit = load(folder)
    samples = offered_samples(run, tasks.select(str(run.folder / f"{TASK}.jsonl")), circuit)
    first = samples[0]["pairs"][0][0]
    samples.append(
        {"name": "returns", "role": "", "pairs": [[{**first, "prompt": each} for each in (RETURNS, PROMPT)]]}
    )
    samples.append({"name": "natural text", "role": "wild", "pairs": [[{**first, "prompt": PROMPT}]]})
    write_atomic(page_of(run.folder), render(run, folder, circuit, samples).encode())
    return run


@pytest.fixture
def page(browser: Page, run: Workdir) -> Iterator[Page]:
    browser.command("Page.navigate", url="about:blank")
    browser.open(page_of(run.folder))
    browser.wait(f"document.querySelector('main') && {IDLE}")
    yield browser
    assert browser.console == []
    assert browser.requests == []


def choose_token(page: Page, at: int) -> None:
    page.evaluate(f"document.querySelectorAll('#tokens .token')[{at}].click()")
    page.wait(f"{IDLE} && document.querySelectorAll('#tokens .token')[{at}].getAttribute('aria-selected') === 'true'")


def choose_node(page: Page, key: str) -> None:
    choose(page, "node", key)
    page.wait(f"{IDLE} && document.querySelector('.node.chosen')?.dataset.node === '{key}'")


def test_only_what_follows_the_last_token_is_judged(page: Page) -> None:
    """At earlier ones the same two tokens are compared, and neither is right."""
    judged, passed_over, counterparts = 0, 0, 0
    for family in range(2):
        choose(page, "family", str(family))
        page.wait(IDLE)
        for number in range(page.evaluate("document.querySelector('#sample').options.length"))[::3]:
            choose(page, "sample", str(number))
            page.wait(IDLE)
            last, twin = len(tokens(page)) - 1, text(page, "#twin-said")
            counterparts += "no counterpart" in twin
            for at in range(last, -1, -1):
                choose_token(page, at)
                sides = [difference(page, side) for side in ("circuit", "full")]
                wrong, differ = sides[0] < 0, (sides[0] > 0) != (sides[1] > 0)
                assert ("wrong" in text(page, "#difference-circuit")) == (wrong and at == last)
                disagree = page.evaluate("document.querySelector('#disagree') !== null")
                assert disagree == (differ and at == last)
                assert text(page, "#twin-said") == twin
                judged += (wrong or differ) and at == last
                passed_over += (wrong or differ) and at < last
    assert min(judged, passed_over, counterparts) > 0, "or the test shows nothing"


def edges_to_try(run: Workdir, circuit: Circuit) -> list[Edge]:
    """One of every kind of source whose value differs on the twin at the last token; and one of v."""
    stores = [
        by_jax(run.config, run.params, circuit, np.array(run.tokenizer.encode(each), np.int32))[2]
        for each in (PROMPT, TWIN)
    ]

    def move(edge: Edge) -> float:
        site, layer, channel = edge.source.site, edge.source.layer, edge.source.channel
        own, other = (np.asarray(store[site, layer])[0, :, channel] for store in stores)
        moved = np.abs(own - other)
        return float(moved.mean() if site == "attn_v" else moved[-1]) * abs(edge.weight)

    kinds = ("attn_in", "attn_v", "mlp_in", "mlp_neuron")
    return [max((e for e in circuit.edges if e.source.site == kind), key=move) for kind in kinds]


def test_patched_edges_show_what_they_bring_then(page: Page, run: Workdir, tmp_path: Path) -> None:
    """That is what they bring when all of their source is patched."""
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    circuit = load(run.folder / "circuits" / TASK)
    write(page, "prompt", PROMPT)
    write(page, "twin", TWIN)
    page.wait(f"{IDLE} && document.querySelector('#tokens').textContent.includes('gn')")
    for edge in edges_to_try(run, circuit):
        choose_node(page, edge.source.key)
        own = [each for each in circuit.edges if edge.source in (each.source, each.target)]
        row = f"document.querySelectorAll('.edges tbody tr')[{own.index(edge)}]"
        wire = f'document.querySelector(\'path.wire[data-from="{edge.source.key}"][data-to="{edge.target.key}"]\')'

        def shown() -> tuple[list[str], str]:
            page.wait(IDLE)
            cells = page.evaluate(f"[2, 3].map((i) => {row}.children[i].textContent)")  # noqa: B023
            page.evaluate(f"{wire}.dispatchEvent(new PointerEvent('pointerover', {{ bubbles: true }}))")  # noqa: B023
            return cells, page.evaluate(f"{wire}.querySelector('title').textContent")  # noqa: B023

        page.evaluate("document.querySelector('#node-panel input[name=where][value=both]').click()")
        for at in ("every", "chosen"):
            page.evaluate(f"document.querySelector('#node-panel input[name=at][value={at}]').click()")
            before = shown()
            page.evaluate("document.querySelector('#patch').click()")
            page.wait("document.querySelector('#changes').textContent.includes('patched from the twin')")
            by_node = shown()
            page.evaluate("document.querySelector('#reset').click()")
            page.wait("document.querySelector('#changes').textContent.includes('None')")
            assert shown() == before
            page.evaluate(f"{row}.querySelector('.patch-edge').click()")
            page.wait("document.querySelector('#changes').textContent.includes('edge from')")
            assert shown() == by_node
            assert at == "chosen" or by_node[0] != before[0], f"{edge}: or the test shows nothing"
            if at == "every" and edge.source.site == "attn_v":
                page.click("#save-edges")
                wait_for(tmp_path / f"{TASK}_edges.csv")
                saved = rows_of(tmp_path / f"{TASK}_edges.csv")[circuit.edges.index(edge)]
                sides = [float(saved[f"brings_{side}"]) for side in ("circuit", "full_model")]
                assert sides == pytest.approx([float(cell.replace("\u2212", "-")) for cell in by_node[0]], abs=0.006)
            page.evaluate("document.querySelector('#reset').click()")
            page.wait("document.querySelector('#changes').textContent.includes('None')")


def test_samples_without_a_twin_say_that_patches_are_not_in_them(page: Page, run: Workdir) -> None:
    def titles() -> list[str]:
        page.wait(f"{IDLE} && document.querySelector('#all-samples-table tbody tr')")
        page.wait("!document.querySelector('#all-samples-said').textContent.includes('computed')")
        found: list[str] = page.evaluate(
            "[...document.querySelectorAll('#all-samples-table th[scope=row]')].map((e) => e.textContent)"
        )
        return found

    page.evaluate("document.querySelector('#all-samples').open = true")
    plain = titles()
    choose_node(page, load(run.folder / "circuits" / TASK).nodes[0].key)
    page.click("#switch-off")
    page.wait("document.querySelector('#all-samples-said').textContent.includes('with your change')")
    assert titles() == plain
    page.click("#patch")
    page.wait("document.querySelector('#changes').textContent.includes('patched from the twin')")
    none = " (1 without your patches: no twin to patch from)"
    assert titles() == [*plain[:-1], plain[-1] + none]
    page.click("#reset")
    page.wait("document.querySelector('#changes').textContent.includes('None')")
    page.click(".head .copy button")
    page.wait("document.querySelector('#changes').textContent.includes('attention of layer')")
    assert titles()[-2:] == [f"{plain[-2]}{none.replace('1', '2')}", plain[-1] + none], "attention needs as many tokens"


def test_carriage_returns_stay_where_a_prompt_is_not_touched(page: Page) -> None:
    choose(page, "family", "2")
    page.wait(f"{IDLE} && document.querySelector('#tokens').textContent.includes('␍')")
    shown, name = tokens(page), page.evaluate("document.querySelector('#family').value")
    assert sum(token.count("␍") for token in shown) == 2
    page.focus("#prompt")
    for at, wanted in ((3, "forx"), (22, "hnx")):
        end = "document.querySelector('#prompt').value.length"
        page.evaluate(
            f"document.querySelector('#prompt').setSelectionRange(Math.min({at}, {end}), Math.min({at}, {end}))"
        )
        page.type("x")
        page.wait(f"{IDLE} && document.querySelector('#tokens').textContent.includes('{wanted}')")
        assert sum(token.count("␍") for token in tokens(page)) == 2
        assert page.evaluate("document.querySelector('#prompt').selectionStart") == min(at, len(RETURNS) - 1) + 1
        page.evaluate(
            "(() => { const e = document.querySelector('#prompt'), at = e.selectionStart;"
            " e.setRangeText('', at - 1, at, 'end'); e.dispatchEvent(new Event('input')); })()"
        )
        page.wait(f"{IDLE} && !document.querySelector('#tokens').textContent.includes('{wanted}')")
        assert (tokens(page), page.evaluate("document.querySelector('#family').value")) == (shown, name)
    page.evaluate("document.querySelector('#prompt').select()")
    page.type("for")
    page.wait(f"{IDLE} && document.querySelectorAll('#tokens .token').length === 1")
    assert tokens(page) == ["for"]


def test_the_ranking_says_that_a_nodes_own_change_is_left_aside(page: Page, run: Workdir) -> None:
    page.evaluate("document.querySelector('#ranking').open = true")
    page.click(".head .copy button")
    page.wait("document.querySelector('#ranking-said').textContent.includes('on top of your change')")
    assert "left aside" not in text(page, "#ranking-said")
    choose_node(page, load(run.folder / "circuits" / TASK).nodes[0].key)
    page.click("#switch-off")
    page.wait("document.querySelector('#ranking-said').textContent.includes('2 changes, a node’s own left aside, ')")
