"""What a circuit's page tells a sceptic: the report card, every sample, what flipped; and whose names it shows."""

import json
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import load
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.records import Card
from sparse_gpt.records.card import CardRow, SampleLosses
from sparse_gpt.workdir import Workdir
from tests.browser import Page, open_page
from tests.inprocess import launch_here
from tests.page_actions import IDLE, choose, difference, page_of, text
from tests.page_workdir import TASK, by_jax, write_workdir

pytestmark = pytest.mark.browser
COMMON = CardRow(
    name="task_loss",
    criticism="It does not do the task.",
    measure="task loss, nats",
    samples="main",
    role="selection",
    value=0.1,
    threshold=0.15,
    sense="at most",
    verdict="pass",
)
ROWS = (
    COMMON,
    msgspec.structs.replace(
        COMMON,
        criticism="It is <b>wrong</b>.",
        samples="text",
        role="wild",
        interval=(0.05, 0.3),
        end=0.25,
        reason="By the <i>end</i>.",
        verdict="fail",
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    folder = write_workdir(tmp_path_factory.mktemp("sceptic") / "run")
    place = folder / "circuits" / TASK
    sha = load(place).sha256
    losses = {"text": SampleLosses(role="wild", words=("a", "b"), circuit=(0.0, 0.0), model=(0.0, 0.0))}
    Card(task=TASK, circuit_sha256=sha, rows=ROWS, losses=losses).write(place / "card.json")
    done = launch_here("page", f"--workdir={folder}", f"--task={folder / TASK}.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    return Workdir(folder)


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory, run: Workdir) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        opened.resize(1300, 900)
        opened.open(page_of(run.folder))
        opened.wait(f"document.querySelector('main') && {IDLE}")
        yield opened
        assert opened.console == []
        assert opened.requests == []


def cells(page: Page, selector: str) -> list[list[str]]:
    rows = f"[...document.querySelectorAll('{selector} tbody tr')]"
    found: list[list[str]] = page.evaluate(f"{rows}.map((row) => [...row.children].map((cell) => cell.textContent))")
    return found


@pytest.mark.slow
def test_the_report_card_is_in_the_page(page: Page) -> None:
    assert text(page, ".report-card summary") == "Report card: 1 of 2 rows pass"
    assert cells(page, ".report-card") == [  # what fails comes first, with what a sceptic says
        [
            "✗ fail",
            "task loss, natsIt is <b>wrong</b>.",
            *("natural text", "2", "0.100", "0.050 to 0.300", "≤ 0.150, interval ≤ 0.250", ""),
        ],
        ["✓ pass", "task loss, nats", "searched templates", "", "0.100", "", "≤ 0.150", ""],
    ]
    assert (
        page.evaluate("document.querySelectorAll('.report-card th[scope=row]')[1].title") == "It does not do the task."
    )


def stop_and_start_again(page: Page) -> None:
    """Changes and takes the change back while samples are decided: what comes then of earlier runs is dropped."""
    choose(page, "node", page.evaluate("document.querySelector('#node').options[1].value"))
    page.wait(f"{IDLE} && document.querySelector('#switch-off')")
    toggle = "document.querySelector('#switch-off').click()"
    page.evaluate(
        f"(async () => {{ for (let i = 0; i < 60; i++) {{ {toggle};"
        "await new Promise((resolve) => setTimeout(resolve, 7 * (i % 9))); } })()"
    )
    page.evaluate("document.querySelector('#reset').click()")
    page.wait(IDLE)
    page.wait("!document.querySelector('#all-samples-said').textContent.includes('with your')")
    page.wait("!document.querySelector('#all-samples-said').textContent.includes('computed')")


@pytest.mark.slow
def test_every_sample_is_decided_as_by_jax(page: Page, run: Workdir) -> None:
    circuit = load(run.folder / "circuits" / TASK)
    members = tasks.select(str(run.folder / f"{TASK}.jsonl"))
    wanted, mistakes = [], []
    for group in offered_samples(run, members, circuit):
        counts = np.zeros(4, int)
        for number, sample in enumerate(each for pair in group["pairs"] for each in pair):
            ids = run.tokenizer.encode(sample["prompt"])
            padded = np.pad(np.array(ids, np.int32), (0, run.config.model.context - len(ids)))  # one shape for all
            full, through, _ = by_jax(run.config, run.params, circuit, padded)
            at = len(ids) - 1
            decided = [logits[at, sample["answer"]] > logits[at, sample["foil"]] for logits in (through, full)]
            counts += [*decided, decided[0] == decided[1], 1]
            mistakes += (
                [] if decided[0] else [(group["name"], f"{number // 2 + 1}{'ab'[number % 2]}", sample["prompt"])]
            )
        wanted.append([f"{count} of {counts[3]}" for count in counts[:3]])
    page.evaluate("document.querySelector('#all-samples').open = true")
    page.wait("document.querySelector('#all-samples-table tbody tr')")
    page.wait("!document.querySelector('#all-samples-said').textContent.includes('computed')")
    assert [row[1:4] for row in cells(page, "#all-samples-table")] == wanted
    stop_and_start_again(page)
    assert [row[1:4] for row in cells(page, "#all-samples-table")] == wanted
    assert page.evaluate("document.querySelectorAll('.mistake').length") == len(mistakes) > 0

    # A mistake is shown on a click, and is one.
    _, name, prompt = mistakes[-1]
    page.evaluate("[...document.querySelectorAll('.mistake')].at(-1).click()")
    page.wait(f"document.querySelector('#prompt').value === {json.dumps(prompt)}")
    assert page.evaluate("document.querySelector('#sample').selectedOptions[0].textContent") == name
    assert difference(page) < 0
    assert "wrong" in text(page, "#difference-circuit")
    disagree = page.evaluate("document.querySelector('#disagree')?.textContent")
    assert (disagree == "They disagree") == (difference(page, "full") > 0)

    # Decisions are those with the changes: with nothing but constants left, all are the same.
    for node in (each for each in circuit.nodes if each.site in ("attn_out", "mlp_out")):
        page.evaluate(f"document.querySelector('[data-node=\"{node.key}\"]').dispatchEvent(new Event('click'))")
        page.wait(f"document.querySelector('#node').value === '{node.key}'")
        page.evaluate("document.querySelector('#switch-off').click()")
    page.wait(IDLE)
    page.wait("document.querySelector('#all-samples-said').textContent.includes('with your')")
    page.wait("!document.querySelector('#all-samples-said').textContent.includes('computed')")
    assert {row[1] for row in cells(page, "#all-samples-table")} == {"8 of 16"}


@pytest.mark.slow
def test_what_flips_is_told_from_where_it_stood(page: Page, run: Workdir) -> None:
    before, flipped = difference(page), False
    for node in reversed(load(run.folder / "circuits" / TASK).nodes):
        for value in (400, -400):
            choose(page, "node", node.key)
            page.wait(f"{IDLE} && document.querySelector('#node-panel input[type=number]')")
            page.evaluate(
                "(() => { const input = document.querySelector('#node-panel input[type=number]');"
                f"input.value = '{value}'; input.dispatchEvent(new Event('input')); }})()"
            )
            page.wait(f"{IDLE} && document.querySelector('#difference-note').textContent.includes('1 change')")
            flipped = difference(page) * before < 0
            if flipped:
                break
            page.evaluate("document.querySelector('#reset').click()")
            page.wait(f"{IDLE} && document.querySelector('#difference-note').textContent.includes('no changes')")
        if flipped:
            break
    told = text(page, "#difference-circuit")
    answer, foil = (page.evaluate(f"document.querySelector('#{name}').value") for name in ("answer", "foil"))
    first, second = (answer, foil) if before > 0 else (foil, answer)
    size = f"{abs(before):.2f}".removesuffix(".00")
    assert f"{second} over {first} by" in told
    assert f"flipped: without changes {first} over {second} by {size[:3]}" in told
