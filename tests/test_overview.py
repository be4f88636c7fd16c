"""The page of all circuits, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparse_gpt.records import read_workdir
from sparse_gpt.report import build_overview
from sparse_gpt.report.overview import Prediction, SharedPrompt, render_overview
from tests import report_workdirs as workdirs
from tests.browser import Page, open_page

pytestmark = pytest.mark.browser

CHECKS = Path(__file__).with_name("accessibility.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    scratch = tmp_path_factory.mktemp("overview")
    run = read_workdir(workdirs.write_workdir(scratch / "run"))
    predictions = [Prediction(name, [("<b>", 0.75), ("·x", 0.1)], 1.5) for name in ("run", "twin")]
    prompt = SharedPrompt("single_double_quote", "x = '</script>", "'", '"', predictions)
    path = build_overview(run, read_workdir(workdirs.write_workdir(scratch / "twin")), [prompt])
    with open_page(scratch) as opened:
        opened.open(path)
        opened.wait("document.querySelector('#comparison p')")
        yield opened
        assert opened.console == []
        assert opened.requests == []


def column(page: Page, number: int) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll('#circuits tbody tr')].map((r) => r.children[{number}].dataset.value)"
    )
    return found


@pytest.mark.slow
def test_any_column_sorts(page: Page) -> None:
    for number in range(3):
        page.click(f"#circuits th:nth-child({number + 1}) button")
        shown = column(page, number)
        assert shown == (sorted(shown) if number == 0 else sorted(shown, key=float, reverse=True))
        page.click(f"#circuits th:nth-child({number + 1}) button")
        assert column(page, number) == shown[::-1]
    assert page.evaluate("document.querySelectorAll('[aria-sort=none]').length") == 8


def test_two_circuits_are_compared_and_the_matrix_agrees(page: Page, tmp_path: Path) -> None:
    files = read_workdir(workdirs.write_workdir(tmp_path / "run")).circuits
    nodes = [{entry.node.key for entry in each.circuit.nodes} for each in files]
    page.click("[data-pair='0 1']")
    told = page.evaluate("document.querySelector('#comparison').textContent")
    count = len(nodes[0] & nodes[1])
    assert ("1 node is in both" if count == 1 else f"{count} nodes are in both") in told
    assert f"nodes of {files[0].folder.name} only: {len(nodes[0] - nodes[1])}" in told
    counts = page.evaluate("[...document.querySelectorAll('[data-pair]')].map((e) => Number(e.textContent))")
    assert counts == [len(a & b) for a in nodes for b in nodes]


def test_both_models_are_shown_and_everything_is_escaped(page: Page) -> None:
    twin = page.evaluate("document.querySelector('#twin').textContent")
    assert "x·=·'</script>" in twin
    assert "<b>" in twin
    assert page.evaluate("document.querySelectorAll('#sizes .plot').length") == 1


def test_one_circuit_is_not_compared(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run")
    assert "nothing to compare yet" not in render_overview(read_workdir(folder))
    shutil.rmtree(next(path for path in folder.glob("circuits/*") if path.name != "single_double_quote"))
    assert "One circuit; nothing to compare yet." in render_overview(read_workdir(folder))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_can_be_read_and_has_names(page: Page, scheme: str, width: int) -> None:
    page.resize(width, 900, phone=width < 500)
    page.prefer(scheme)
    assert page.evaluate(f"{CHECKS}; withoutName()") == []
    assert page.evaluate(f"{CHECKS}; tooFaint()") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.resize(1300, 900)
