"""What tests do on a circuit's page and read from it, and what JAX makes of the same."""

import contextlib
import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.workdir import Workdir
from tests.browser import Page
from tests.page_workdir import TASK, by_jax

IDLE = (
    "document.querySelector('main').getAttribute('aria-busy') === 'false' && document.querySelector('#tokens .token')"
)
MINUS, CONTROL, SHIFT = "\u2212", 2, 8


def page_of(folder: Path) -> Path:
    return folder / "circuits" / TASK / "page.html"


def show(page: Page, address: str) -> None:
    """Opens an address anew."""
    page.command("Page.navigate", url="about:blank")
    page.command("Page.navigate", url=address)
    page.wait(f"document.querySelector('main') && {IDLE}")


@contextlib.contextmanager
def visit(browser: Page, folder: Path) -> Iterator[Page]:
    """The page of a workdir, opened anew; nothing is kept of the visit, and nothing was wrong or loaded in it."""
    show(browser, page_of(folder).as_uri())
    yield browser
    browser.evaluate("localStorage.clear()")
    assert browser.console == []
    assert browser.requests == []


def text(page: Page, selector: str) -> str:
    found: str = page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def tokens(page: Page) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('#tokens .token')].map((e) => e.textContent)")
    return found


def difference(page: Page, side: str = "circuit") -> float:
    """Answer minus foil as the page shows it, once it is idle: it names the one that wins first."""
    page.wait(IDLE)
    found = re.match(r"\w+: (.+) over (.+) by ([\d.]+(?:e\u2212\d+)?) \(", text(page, f"#difference-{side}"))
    assert found
    answer, foil = (page.evaluate(f"document.querySelector('#{name}').value") for name in ("answer", "foil"))
    assert {found[1], found[2]} == {answer, foil}
    return float(found[3].replace(MINUS, "-")) * (1 if found[1] == answer else -1)


def expected(run: Workdir, prompt: str, changes: Any = None) -> tuple[float, float]:
    """The same by JAX, of circuit and full model; `changes` is a tap in the circuit."""
    circuit: Circuit = load(run.folder / "circuits" / TASK)
    ids = np.array(run.tokenizer.encode(prompt), np.int32)
    full, through, _ = by_jax(run.config, run.params, circuit, ids, changes)
    answer, foil = (run.tokenizer.encode(f"for an{each}")[-1] for each in (" in", ":\n"))
    return tuple(float(logits[-1, answer] - logits[-1, foil]) for logits in (through, full))  # type: ignore[return-value]


def same(shown: float, value: float) -> bool:
    return abs(shown - value) <= 0.0051 + 0.05 * (abs(value) >= 9.995)


def choose(page: Page, field: str, value: str) -> None:
    """Picks from a list, or writes a text at once, as paste does."""
    page.evaluate(
        f"(() => {{ const e = document.querySelector('#{field}'); e.value = {json.dumps(value)};"
        " e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input')); })()"
    )


def write(page: Page, field: str, prompt: str) -> None:
    """Types a prompt over what stands in a field."""
    page.evaluate(f"document.querySelector('#{field}').select()")
    page.focus(f"#{field}")
    page.type(prompt)


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists()
