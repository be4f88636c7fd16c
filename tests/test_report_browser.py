"""The report in a real browser: it draws everything, reacts to the pointer, and logs no error."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparse_gpt.report import CircuitDrawing, build_report
from tests import report_workdirs as workdirs
from tests.browser import Page, open_page

pytestmark = pytest.mark.browser

CHECKS = Path(__file__).with_name("accessibility.js").read_text(encoding="utf-8")
# What a reader does, done by script: unfold everything, point at a neuron, choose the node after the first.
READER = """
for (const details of document.querySelectorAll("details")) details.open = true;
const root = document.querySelector("#circuit-single_double_quote");
root.querySelector(".next").click();
root.querySelector('.node[data-node="0.mlp_neuron.333"]').dispatchEvent(new PointerEvent("pointerenter"));
"""
# What the tip says of every tenth point of a chart's lines, by the name of the line.
TOLD = """
Object.fromEntries([...document.querySelectorAll("#training .plot .line")].map((line) => {
  const svg = line.ownerSVGElement;
  svg.scrollIntoView({ block: "center", behavior: "instant" });
  return [line.dataset.name, [...line.points].filter((_, i) => i % 10 === 0).map((point) => {
    const { x: clientX, y: clientY } = new DOMPoint(point.x, point.y).matrixTransform(svg.getScreenCTM());
    svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
    return svg.querySelector(".near-text").textContent.replace(`${line.dataset.name}: `, "");
  })];
}))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(workdirs.write_workdir(tmp_path_factory.mktemp("run")))


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The report, open; in the end it has neither complained nor loaded anything."""
    browser.resize(1400, 900)
    show(browser, report)
    yield browser
    assert browser.console == []
    assert browser.requests == []


def show(browser: Page, path: Path) -> None:
    browser.command("Page.navigate", url="about:blank")
    browser.open(path)
    browser.wait(f"location.pathname.endsWith({path.name!r}) && document.readyState === 'complete'")


def count(page: Page, selector: str) -> int:
    found: int = page.evaluate(f"document.querySelectorAll({selector!r}).length")
    return found


@pytest.mark.slow
def test_draws_everything(page: Page) -> None:
    page.evaluate(f"{{{READER}}} 0")
    assert count(page, ".plot") == 13
    assert count(page, ".plot .line") >= 8 + 2 * (1 + 8 + 8)  # training and held-out; curve, eight trials twice
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((e) => e.getBoundingClientRect().height > 100)")

    assert count(page, ".circuit-drawing") == 2
    assert count(page, ".circuit-drawing.focused") == 1
    keys = "[...document.querySelectorAll('{}')].map((e) => e.dataset.node)"
    chosen = page.evaluate(keys.format(".node.chosen"))
    assert "0.mlp_neuron.333" in chosen, "the node after the first choice, neuron 201"
    near = set(page.evaluate(keys.format(".node.near")))
    assert near == {"0.mlp_neuron.333", "0.mlp_in.17", "0.mlp_in.90", "0.mlp_out.110"}
    assert count(page, ".wire.near") == 3

    assert count(page, ".sample") == 6 + 4
    shares = page.evaluate(
        "[...document.querySelectorAll('.token.plus, .token.minus')].map((e) => e.style.getPropertyValue('--share'))"
    )
    assert len(shares) > 10
    assert all(share.endswith("%") for share in shares)
    told = "Layer 0: MLP neuron 333 · from L0 mlp_in 90 −1.12, from L0 mlp_in 17 +0.88, to L0 mlp_out 110"
    assert told in page.evaluate("document.body.textContent")


@pytest.mark.slow
def test_a_chart_says_what_the_pointer_is_near(page: Page) -> None:
    x, y = page.evaluate(
        "(() => { const svg = document.querySelector('.plot'), line = svg.querySelector('.line');"
        " svg.scrollIntoView({behavior: 'instant'});"
        " const p = line.points[line.points.length - 1], m = svg.getScreenCTM();"
        " const at = new DOMPoint(p.x, p.y).matrixTransform(m); return [at.x + 2, at.y + 2]; })()"
    )
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait("document.querySelector('.plot .near-text').textContent.startsWith('training: ')")
    told = page.evaluate("document.querySelector('.plot .near-text').textContent").removeprefix("training: ")
    last = workdirs.metrics(1000)[-1]
    assert told == f"{last['step']} → {last['loss']:.4g}"


@pytest.mark.slow
def test_charts_say_the_numbers_of_the_file(page: Page) -> None:
    """Every tenth point of every chart of metrics.jsonl: counts and steps whole, all else to four digits."""
    told: dict[str, list[str]] = page.evaluate(TOLD)
    metrics = workdirs.metrics(1000)
    for title, key, whole in (
        ("training", "loss", False),
        ("Density", "density", False),
        ("Learning rate", "lr", False),
        ("Dead neurons", "dead_neurons", True),
        ("Gradient RMS", "grad_rms", False),
        ("Speed", "tokens_per_second", True),
    ):
        rows = [row for row in metrics if row[key] is not None][::10]
        pairs = [[float(part) for part in text.split(" → ")] for text in told[title]]
        assert pairs == [[row["step"], round(row[key]) if whole else float(f"{row[key]:.4g}")] for row in rows]
    counts = [row["nonzeros"]["h_0/mlp/c_fc/kernel"] + row["nonzeros"]["wte"] for row in metrics]
    assert (
        told["Nonzero weights"]
        == [f"{row['step']} → {count}" for row, count in zip(metrics, counts, strict=True)][::10]
    )


def test_defects_and_loading_are_seen(browser: Page, report: Path, tmp_path: Path) -> None:
    """The tests above can fail: a defect in the script, and an attempt to load anything, show on the console."""
    broken = tmp_path / "broken.html"
    text = report.read_text(encoding="utf-8").replace("function highlight(", "function lowlight(")
    greedy = f'<img src="https://example.org/x.png"><script>{READER}</script>'
    broken.write_text(text.replace("</body>", greedy + "</body>"), encoding="utf-8")
    show(browser, broken)
    assert any("highlight is not defined" in line for line in browser.console), browser.console
    assert any("Content Security Policy" in line for line in browser.console), browser.console
    browser.console.clear()
    browser.requests.clear()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_can_be_read_and_has_names(page: Page, tmp_path: Path, width: int, scheme: str) -> None:
    page.resize(width, 900, phone=width < 500)
    page.prefer(scheme)
    assert page.evaluate(f"{CHECKS}; withoutName()") == []
    assert page.evaluate(f"{CHECKS}; tooFaint()") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(tmp_path / "page.png")
    image = (tmp_path / "page.png").read_bytes()
    assert struct.unpack(">I", image[16:20]) == (width,)
    assert len(image) > 150_000, "a page with drawings and charts does not compress to less"
    page.prefer("light")


def test_drawing_alone_is_a_picture(browser: Page, tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run") / "circuits/bracket_counting"
    browser.resize(1900, 700)
    show(browser, CircuitDrawing.load(folder).save(tmp_path / "circuit.svg"))
    browser.screenshot(tmp_path / "circuit.png")
    assert browser.console == []
    assert len((tmp_path / "circuit.png").read_bytes()) > 60_000
