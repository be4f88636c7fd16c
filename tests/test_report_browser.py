"""The report in a real browser: it draws everything, reacts to the pointer, and logs no error."""

import os
import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sparse_gpt.report import CircuitDrawing, build_report
from tests import report_workdirs as workdirs

pytestmark = pytest.mark.browser

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000"),
]

# What a reader does, done by script: unfold everything, point at a neuron, choose the node after the first.
READER = """<script>
for (const details of document.querySelectorAll("details")) details.open = true;
const root = document.querySelector("#circuit-single_double_quote");
root.querySelector(".next").click();
root.querySelector('.node[data-node="0.mlp_neuron.333"]').dispatchEvent(new PointerEvent("pointerenter"));
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium on PATH; install it: apt-get install -y chromium")
        pytest.skip("no chromium on PATH")
    return found


def _run(browser: str, page: Path, scratch: Path, *flags: str) -> tuple[str, list[str]]:
    """Opens `page`. Returns standard output and the lines that the page wrote to the console."""
    command = [browser, *FLAGS, f"--user-data-dir={scratch / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=600, env=os.environ | {"HOME": str(scratch)}
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class Rendered(HTMLParser):
    """The document after scripts ran: classes of every element, and visible text of some."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.nodes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, dict(attrs)))

    def having(self, *classes: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.nodes if set(classes) <= set((attrs.get("class") or "").split())]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(workdirs.write_workdir(tmp_path_factory.mktemp("run")))


def test_draws_everything_without_console_errors(browser: str, page: Path, tmp_path: Path) -> None:
    used = tmp_path / "used.html"
    text = page.read_text(encoding="utf-8")
    used.write_text(text.replace("</body>", READER + "</body>"), encoding="utf-8")
    dom, console = _run(browser, used, tmp_path, "--dump-dom")
    assert console == []
    rendered = Rendered(dom)
    plots = rendered.having("plot")
    assert len(plots) == 13
    assert len(rendered.having("plot", "js-plotly-plot")) == 13, (
        "every chart, also the unfolded ones, is drawn by plotly"
    )
    assert len(rendered.having("scatterlayer")) == 13
    assert len(rendered.having("js-line")) >= 8 + 2 * (1 + 8 + 8)  # training and held-out; curve, eight trials twice

    assert len(rendered.having("circuit-drawing")) == 2
    assert len(rendered.having("circuit-drawing", "focused")) == 1
    chosen = {attrs["data-node"] for attrs in rendered.having("node", "chosen")}
    assert "0.mlp_neuron.333" in chosen, "the node after the first choice, neuron 201"
    near = {attrs["data-node"] for attrs in rendered.having("node", "near")}
    assert near == {"0.mlp_neuron.333", "0.mlp_in.17", "0.mlp_in.90", "0.mlp_out.110"}
    assert len(rendered.having("wire", "near")) == 3

    samples = rendered.having("sample")
    assert len(samples) == 6 + 4
    colored = rendered.having("token", "plus") + rendered.having("token", "minus")
    assert len(colored) > 10
    assert all(re.fullmatch(r"--share:\s*\d+%;", attrs["style"] or "") for attrs in colored)
    assert "Layer 0: MLP neuron 333 · from L0 mlp_in 90 −1.12, from L0 mlp_in 17 +0.88, to L0 mlp_out 110" in dom


def test_defects_and_loading_are_seen(browser: str, page: Path, tmp_path: Path) -> None:
    """The test above can fail: a defect in the script, and an attempt to load anything, show on the console."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8").replace("function highlight(", "function lowlight(")
    greedy = '<img src="https://example.org/x.png">'
    broken.write_text(text.replace("</body>", greedy + READER + "</body>"), encoding="utf-8")
    _, console = _run(browser, broken, tmp_path, "--dump-dom")
    assert any("highlight is not defined" in line for line in console), console
    assert any("Content Security Policy" in line for line in console), console


@pytest.mark.parametrize("width", [1400, 500])
def test_screenshot(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "page.png"
    _, console = _run(browser, page, tmp_path, f"--screenshot={shot}", f"--window-size={width},6000")
    assert console == []
    image = shot.read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (width, 6000)
    assert len(image) > 150_000, "a page with drawings and charts does not compress to less"


def test_drawing_alone_is_a_picture(browser: str, tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run") / "circuits/bracket_counting"
    shot = tmp_path / "circuit.png"
    picture = CircuitDrawing.load(folder).save(tmp_path / "circuit.svg")
    _, console = _run(browser, picture, tmp_path, f"--screenshot={shot}", "--window-size=1900,700")
    assert console == []
    assert len(shot.read_bytes()) > 60_000
