"""A circuit's own page in a real browser: a whole session by keyboard and mouse, odd input, links, what is refused."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from sparse_gpt.circuits.circuit import load
from sparse_gpt.page.samples import roles_of
from sparse_gpt.records.circuit import FamilyLosses
from sparse_gpt.report import build_report
from sparse_gpt.workdir import Workdir
from tests.browser import Page, open_page
from tests.inprocess import launch_here
from tests.page_actions import (
    CONTROL,
    IDLE,
    choose,
    difference,
    expected,
    page_of,
    rows_of,
    same,
    text,
    tokens,
    wait_for,
    write,
)
from tests.page_workdir import TASK, by_jax, write_workdir

CHECKS = Path(__file__).with_name("accessibility.js").read_text(encoding="utf-8")
in_browser = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    folder = write_workdir(tmp_path_factory.mktemp("page") / "run")
    done = launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{TASK}: {page_of(folder)} (0.")
    return Workdir(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(browser: Page, run: Workdir) -> Iterator[Page]:
    """The page, open and idle; in the end it has neither complained nor loaded anything."""
    browser.command("Page.navigate", url="about:blank")
    browser.resize(1300, 900)
    browser.open(page_of(run.folder))
    browser.wait(f"document.querySelector('main') && {IDLE}")
    yield browser
    browser.evaluate("localStorage.clear()")
    assert browser.console == []
    assert browser.requests == []


@pytest.mark.slow
@in_browser
def test_a_session(page: Page, run: Workdir) -> None:
    circuit = load(run.folder / "circuits" / TASK)
    start = text(page, "#message"), tokens(page), difference(page)
    prompt = page.evaluate("document.querySelector('#prompt').value")
    assert same(start[2], expected(run, prompt)[0])

    # Edit: circuit and model are those of JAX.
    write(page, "prompt", "for hs in hs_list: while gn")
    page.wait("document.querySelector('#tokens').textContent.includes('gn')")
    shown = [run.token_text(i).replace(" ", "·") for i in run.tokenizer.encode("for hs in hs_list: while gn")]
    assert tokens(page) == shown
    plain = expected(run, "for hs in hs_list: while gn")
    assert same(difference(page), plain[0])
    assert same(difference(page, "full"), plain[1])

    # Switch a node off by the keyboard: its ablation value, in the circuit only.
    node = next(n for n in circuit.nodes if n.site == "mlp_out")
    page.focus(f'.node[data-node="{node.key}"]')
    page.press("Enter")
    page.wait("document.querySelector('#switch-off')")
    value = float(circuit.values[node.site][node.layer, node.channel])
    page.focus("#switch-off")
    page.press(" ")
    page.wait("document.querySelector('#changes').textContent.includes('switched off')")

    def off(site: str, layer: int, x: Any) -> Any:
        return x.at[..., node.channel].set(value) if (site, layer) == (node.site, node.layer) else x

    without = expected(run, "for hs in hs_list: while gn", off)[0]
    assert same(difference(page), without)
    assert same(difference(page, "full"), plain[1])
    assert abs(without - plain[0]) > 0.02, "or the test shows nothing"

    # Slide it at the chosen token, which takes the place of switching it off.
    page.click("#node-panel input[value=chosen]")
    page.focus("#node-panel input[type=range]")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    page.wait("document.querySelector('#changes').textContent.includes('set to')")
    assert "switched off" not in text(page, "#changes")

    # Patch it by the mouse, from a twin that is written here, then undo and redo all of it.
    write(page, "twin", "for hs in hs_list: while hn")
    page.wait("document.querySelector('#node-panel').textContent.includes('twin, circuit')")
    page.click("#patch")
    page.wait("document.querySelector('#changes').textContent.includes('patched from the twin')")
    ids = np.array(run.tokenizer.encode("for hs in hs_list: while hn"), np.int32)
    _, _, store = by_jax(run.config, run.params, circuit, ids)
    other = float(np.asarray(store[node.site, node.layer])[0, -1, node.channel])

    def patched(site: str, layer: int, x: Any) -> Any:
        return x.at[:, -1, node.channel].set(other) if (site, layer) == (node.site, node.layer) else x

    assert same(difference(page), expected(run, "for hs in hs_list: while gn", patched)[0])
    page.focus("#tokens [tabindex='0']")
    page.press("z", modifiers=CONTROL)
    page.wait("document.querySelector('#changes').textContent.includes('set to')")
    page.press("z", modifiers=CONTROL)  # the twin
    page.press("z", modifiers=CONTROL)  # the slider, as one step
    page.wait("document.querySelector('#changes').textContent.includes('switched off')")
    assert same(difference(page), without)
    page.press("z", modifiers=CONTROL)
    assert same(difference(page), plain[0])
    page.press("y", modifiers=CONTROL)
    assert same(difference(page), without)
    page.click("#reset")
    assert same(difference(page), plain[0])
    while not page.evaluate("document.querySelector('#undo').disabled"):
        page.click("#undo")
    assert same(difference(page), start[2])
    assert tokens(page) == start[1]


@pytest.mark.slow
@in_browser
def test_edges_and_attention_come_from_the_twin(page: Page, run: Workdir) -> None:
    before = difference(page), difference(page, "full")
    page.evaluate("document.querySelector('input[name=side][value=difference]').click()")
    page.click(".head .copy button")
    page.wait("document.querySelector('#changes').textContent.includes('attention of layer')")
    page.wait(IDLE)
    page.click("#reset")
    assert (difference(page), difference(page, "full")) == before
    choose(page, "node", load(run.folder / "circuits" / TASK).edges[0].source.key)
    page.wait("document.querySelector('.patch-edge')")
    page.wait(IDLE)  # what is drawn anew under the pointer takes no click
    page.click(".patch-edge")
    page.wait("document.querySelector('#changes').textContent.includes('edge from')")
    page.wait(IDLE)
    page.click(".patch-edge")
    page.wait("document.querySelector('#changes').textContent.includes('None')")


@pytest.mark.slow
@in_browser
def test_tokens_are_chosen_by_arrows_and_samples_by_family(page: Page) -> None:
    page.focus("#tokens [tabindex='0']")
    last = len(tokens(page)) - 1
    page.press("ArrowLeft")
    page.wait(f"document.activeElement.getAttribute('aria-label').startsWith('{last - 1}: ')")
    page.press("Home")
    page.wait("document.activeElement.getAttribute('aria-label').startsWith('0: ')")
    page.wait("document.activeElement.getAttribute('aria-selected') === 'true'")
    choose(page, "family", "1")
    page.wait("document.querySelector('#tokens .token:last-of-type').getAttribute('aria-selected') === 'true'")
    as_told = difference(page)
    page.click("#exchange")
    assert difference(page) == -as_told
    page.click("#exchange")
    before = page.evaluate("[document.querySelector('#prompt').value, document.querySelector('#twin').value]")
    page.click("#swap")
    assert page.evaluate("[document.querySelector('#twin').value, document.querySelector('#prompt').value]") == before
    page.press("n")
    page.wait("document.querySelector('#node').value !== ''")
    page.resize(390, 400)  # a node that is chosen elsewhere is scrolled to
    for key in ("n", "p", "p"):
        page.press(key)
        page.wait(IDLE)
        inside = (
            "(() => { const e = document.querySelector('.node.chosen').getBoundingClientRect(),"
            " f = document.querySelector('#drawing').getBoundingClientRect();"
            " return e.left >= f.left && e.right <= f.right && e.top >= f.top && e.bottom <= f.bottom; })()"
        )
        page.wait(inside)


@pytest.mark.slow
@in_browser
def test_what_is_light_is_hidden_and_nodes_are_found_by_name(page: Page) -> None:
    shown = "document.querySelectorAll('.wire.block:not(.light)').length"
    every = page.evaluate(shown)
    choose(page, "threshold", "1")
    assert 1 <= page.evaluate(shown) < every
    choose(page, "threshold", "0")
    assert page.evaluate(shown) == every
    choose(page, "find", "Neuron")
    names = page.evaluate("[...document.querySelectorAll('#node option')].slice(1).map((e) => e.textContent)")
    assert names
    assert all("neuron" in name for name in names)


ODD = '</script><b>"\u202e\u05e9\x07\u200b\U0001f600'


@in_browser
def test_odd_prompts_and_those_that_cannot_be(page: Page, run: Workdir) -> None:
    write(page, "prompt", ODD)
    page.wait("document.querySelector('#tokens').textContent.includes('</')")
    joined = "".join(tokens(page))
    assert "</script><b>" in joined
    assert "<U+202E>" in joined or "<E2>" in joined, "what turns text around is shown by its number"
    assert page.evaluate("document.querySelector('#tokens b')") is None
    for prompt, message in (
        ("x y " * 40, "the model sees 32 at once; shorten it by"),
        ("z" * 99_999, "more than 32 tokens"),
        ("", "is empty"),
    ):
        choose(page, "prompt", prompt)
        page.wait(f"document.querySelector('#message.problem')?.textContent.includes({json.dumps(message)})")
    write(page, "prompt", "for hs")
    page.wait("document.querySelector('#message:not(.problem)')?.textContent.includes('; computed in')")


@pytest.mark.slow
@in_browser
def test_a_link_holds_the_state(page: Page, run: Workdir) -> None:
    write(page, "prompt", "while \u05e9")
    page.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.press("n")
    page.wait("document.querySelector('#switch-off')")
    page.click("#switch-off")
    page.wait("document.querySelector('#changes').textContent.includes('switched off')")
    shown = difference(page)
    page.click("#link")
    address = page.evaluate("document.querySelector('#address').value")
    page.command("Page.navigate", url="about:blank")
    page.command("Page.navigate", url=address)
    page.wait(f"document.querySelector('main') && {IDLE}")
    assert page.evaluate("document.querySelector('#prompt').value") == "while \u05e9"
    assert difference(page) == shown
    for hash_part, message in (
        (address.partition("#")[2][:-9], "damaged"),
        ("eyJ0YXNrIjoibiJ9", "another circuit"),
        ("eyJ0YXNrIjoicGFpcnMifQ", "does not fit"),
    ):
        page.command("Page.navigate", url="about:blank")
        page.command("Page.navigate", url=f"{page_of(run.folder).as_uri()}#{hash_part}")
        page.wait(f"document.querySelector('#message.problem')?.textContent.includes('{message}')")
        page.wait(IDLE)


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_everything_has_a_name_and_can_be_read(page: Page, tmp_path: Path, scheme: str, width: int) -> None:
    page.resize(width, 900, phone=width < 500)
    page.prefer(scheme)
    page.press("n")
    page.wait("document.querySelector('#switch-off')")
    page.wait(IDLE)
    assert page.evaluate(f"{CHECKS}; withoutName()") == []
    assert page.evaluate(f"{CHECKS}; tooFaint()") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('.bar-top').offsetHeight") <= 70
    page.screenshot(tmp_path / "page.png")
    assert len((tmp_path / "page.png").read_bytes()) > 30_000
    page.prefer("light")


@in_browser
def test_defects_and_loading_are_seen(browser: Page, run: Workdir, tmp_path: Path) -> None:
    """The checks above can fail: a defect, a script that was slipped in, and an attempt to load anything show up."""
    source = page_of(run.folder).read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    greedy = '<img src="https://example.org/x.png"><script>console.log("slipped in")</script>'
    broken.write_text(source.replace("</body>", greedy + "</body>"), encoding="utf-8")
    browser.open(broken)
    browser.wait(f"document.querySelector('main') && {IDLE}")
    assert any("Content Security Policy" in line for line in browser.console)
    assert not any(line == "slipped in" for line in browser.console)
    assert (
        browser.evaluate(
            "document.querySelector('h2').remove() ?? document.querySelector('#undo').replaceChildren() ?? 1"
        )
        == 1
    )
    assert len(browser.evaluate(f"{CHECKS}; withoutName()")) == 1
    # A page whose weights were damaged says so.
    at = source.index('id="packed">') + 2000
    broken.write_text(source[:at] + "AAAAAAAA" + source[at + 8 :], encoding="utf-8")
    browser.open(broken)
    browser.wait("document.querySelector('#message.problem')?.textContent.includes('cannot be run')")
    browser.console.clear()
    browser.requests.clear()


def test_what_cannot_be_made_is_one_line(run: Workdir, tmp_path: Path) -> None:
    unknown = launch_here("page", f"--workdir={run.folder}", "--task=single_double_quote")
    assert unknown.returncode == 2
    assert "circuit.json: not found; python -m launch.prune --workdir=" in unknown.stderr
    folder = write_workdir(tmp_path / "other")
    one_of_two = launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl,single_double_quote")
    assert one_of_two.returncode == 2
    assert not page_of(folder).exists(), "all of them or none"
    place = folder / "circuits" / TASK / "circuit.json"
    record = json.loads(place.read_text())
    place.write_text(json.dumps({**record, "params_sha256": "ab" * 32}))
    other = launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl")
    assert other.returncode == 2
    assert len(other.stderr.splitlines()) == 1
    assert "belongs to weights abababababab" in other.stderr
    assert not page_of(folder).exists()


@pytest.mark.slow
def test_page_and_report_lead_to_each_other(tmp_path: Path) -> None:
    folder = write_workdir(tmp_path / "run")
    make = functools.partial(launch_here, "page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl")
    assert make().returncode == 0
    assert "<nav" not in page_of(folder).read_text(encoding="utf-8"), "a page that is sent alone leads nowhere"
    report = build_report(folder)
    (folder / "circuits" / "index.html").write_text("")
    report.write_text(report.read_text().replace("page.html", ""), encoding="utf-8")
    assert "report, which leads to it now" in make().stdout
    assert f"../circuits/{TASK}/page.html" in report.read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)"', page_of(folder).read_text(encoding="utf-8"))
    assert links == ["../../report/index.html", "../index.html"]
    assert all((page_of(folder).parent / link).is_file() for link in links)
    assert "which leads to it now" not in make().stdout


def test_the_shifted_variant_has_the_role_of_its_templates(run: Workdir) -> None:
    circuit = load(run.folder / "circuits" / TASK)
    assert roles_of(circuit)["shifted"] == ""
    told = dataclasses.replace(circuit, families=(FamilyLosses(family="elsewhere", role="left aside"),))
    assert roles_of(told) == {"shifted": "left aside", "elsewhere": "left aside"}


@pytest.mark.slow
def test_the_same_model_gives_the_same_page(run: Workdir) -> None:
    before = page_of(run.folder).read_bytes()
    assert launch_here("page", f"--workdir={run.folder}", f"--task={run.folder / TASK}.jsonl").returncode == 0
    assert page_of(run.folder).read_bytes() == before


@pytest.mark.slow
@in_browser
def test_pictures_and_tables_are_saved(page: Page, run: Workdir, tmp_path: Path) -> None:
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    circuit = load(run.folder / "circuits" / TASK)
    page.press("n")
    page.wait("document.querySelector('#node').value !== ''")
    page.wait(IDLE)
    page.focus("#label")
    page.type('a, "b"')
    choose(page, "threshold", "1")
    for button in ("svg", "png", "nodes", "edges"):
        page.click(f"#save-{button}")
        page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    files = {end: tmp_path / f"{TASK}{end}" for end in (".svg", ".png", "_nodes.csv", "_edges.csv")}
    for path in files.values():
        wait_for(path)
    picture = ElementTree.parse(files[".svg"]).getroot()
    assert "var(--cell" not in files[".svg"].read_text(), "colors of the page are written out"
    shapes = [e for e in picture.iter() if "data-node" in e.attrib and e.get("class", "").startswith("node")]
    assert {e.get("data-node") for e in shapes} >= {node.key for node in circuit.nodes}
    every = "[...document.querySelectorAll('#drawing path.wire')]"
    shown = page.evaluate(f"{every}.filter((e) => getComputedStyle(e).display !== 'none').length")
    drawn = sum(e.tag.endswith("path") and "wire" in e.get("class", "").split() for e in picture.iter())
    assert 0 < drawn == shown < page.evaluate(f"{every}.length"), "what is hidden is left out"
    assert files[".png"].read_bytes()[:4] == b"\x89PNG"
    nodes = rows_of(files["_nodes.csv"])
    assert [row["id"] for row in nodes] == [node.key for node in circuit.nodes]
    chosen = page.evaluate("document.querySelector('#node').value")
    assert {row["id"]: row["label"] for row in nodes if row["label"]} == {chosen: 'a, "b"'}
    prompt = page.evaluate("document.querySelector('#prompt').value")
    ids = np.array(run.tokenizer.encode(prompt), np.int32)
    _, _, store = by_jax(run.config, run.params, circuit, ids)
    for row in nodes[:20]:
        value = np.asarray(store[row["site"], int(row["layer"])])[0, -1, int(row["channel"])]
        assert float(row["circuit"]) == pytest.approx(float(value), abs=1e-4)
    edges = rows_of(files["_edges.csv"])
    assert [(row["source"], row["target"]) for row in edges] == [(e.source.key, e.target.key) for e in circuit.edges]
