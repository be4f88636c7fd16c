"""The slider over training in a circuit's page: what it draws, says and marks at a checkpoint."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt.circuits.circuit import load
from sparse_gpt.page.formation import formation_of
from sparse_gpt.records import Edge, Formation, NodeEntry
from sparse_gpt.records.formation import Checkpoint, FormingCircuit, FormingNode
from tests.browser import Page, open_page
from tests.inprocess import launch_here
from tests.page_workdir import TASK, write_workdir

CHECKS = Path(__file__).with_name("accessibility.js").read_text(encoding="utf-8")
IDLE = "document.querySelector('main')?.getAttribute('aria-busy') === 'false'"
SHOWN = "(kind) => [...document.querySelectorAll(`#formation-drawing .node[data-node*=_]${kind}`)].length"


def formation(folder: Path) -> Formation:
    """Of the workdir's circuit: nothing at step 0, other nodes at 10, half of its nodes and one other at 20."""
    circuit = load(folder)
    nodes, random = circuit.nodes, np.random.default_rng(0)
    other = dataclasses.replace(circuit).nodes[0]._replace(channel=15)
    assert other not in nodes
    half = (*nodes[: len(nodes) // 2], other)

    def forming(kept: tuple, start: str, overlap: float) -> FormingCircuit:
        edges = [edge for edge in circuit.edges if {edge.source, edge.target} <= set(kept)]
        return FormingCircuit(
            start=start,
            task_loss=0.1,
            nodes=kept,
            edges=tuple(Edge(source=e.source, target=e.target, weight=e.weight) for e in edges),
            node_overlap=overlap,
            edge_overlap=overlap,
        )

    circuits = {10: forming((other,), "later", 0), 20: forming(half, "earlier", 0.5), 30: forming(nodes, "final", 1)}
    return Formation(
        task=TASK,
        circuit_sha256=circuit.sha256,
        target_loss=0.15,
        checkpoints=tuple(
            Checkpoint(
                step=step,
                tokens=1000 * step,
                params_sha256=f"{step}",
                model_task_loss=0.7 - step / 50,
                solved=step > 0,
                final_circuit_task_loss=0.69,
                circuit=circuits.get(step),
            )
            for step in (0, 10, 20, 30)
        ),
        nodes=tuple(
            FormingNode(
                **NodeEntry.of(*node).tree(),
                from_step=20 if node in half else 30,
                correlation=(None, float(random.uniform(-1, 1)), 0.5, 1.0),
            )
            for node in nodes
        ),
        seconds=1.0,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_workdir(tmp_path_factory.mktemp("formation") / "run")
    place = run / "circuits" / TASK
    formation(place).write(place / "formation.json")
    done = launch_here("page", f"--workdir={run}", f"--task={run / TASK}.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    return place


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        opened.resize(1300, 900)
        opened.open(folder / "page.html")
        opened.wait(IDLE)
        yield opened
        assert opened.console == []
        assert opened.requests == []


def count(page: Page, kind: str) -> int:
    """Nodes of the drawing over training, of a kind: "" all, ".absent", ".awaited"."""
    found: int = page.evaluate(f"({SHOWN})({kind!r})")
    return found


def told(page: Page) -> str:
    found: str = page.evaluate("document.querySelector('#checkpoint-told').textContent")
    return found


@pytest.mark.slow
@pytest.mark.browser
def test_the_slider_redraws_circuit_and_curves(page: Page, folder: Path) -> None:
    nodes = load(folder).nodes
    assert count(page, "") == len(nodes) + 1
    assert (count(page, ".absent"), count(page, ".awaited")) == (1, 0)
    assert f"step 30, 0.030 million tokens: model's loss 0.10; circuit of {len(nodes)} nodes" in told(page)
    page.focus("#checkpoint")
    page.press("ArrowLeft")
    assert "step 20" in told(page)
    assert (count(page, ".absent"), count(page, ".awaited")) == (0, len(nodes) - len(nodes) // 2)
    page.press("ArrowLeft")
    assert (count(page, ".absent"), count(page, ".awaited")) == (0, len(nodes))
    page.press("ArrowLeft")
    assert told(page).endswith("it does not do the task yet")
    assert (count(page, ".absent"), count(page, ".awaited")) == (1, len(nodes))
    cursors = page.evaluate("[...document.querySelectorAll('.cursor')].map((e) => e.getAttribute('transform'))")
    assert cursors == ["translate(44 0)"] * 3  # the left end: no tokens yet
    now = page.evaluate("[...document.querySelectorAll('#formation-nodes .now')].map((e) => e.textContent)")
    assert now == ["–"] * len(nodes)
    there = page.evaluate("document.querySelectorAll('#formation-nodes .there').length")
    assert there == len(nodes) + len(nodes) // 2
    points = page.evaluate("[...document.querySelectorAll('.chart')].map((e) => e.querySelectorAll('circle').length)")
    assert points == [4 + 3 + 4, 3 + 3, 3 + 3]


@pytest.mark.slow
@pytest.mark.browser
def test_it_can_be_read_and_reached_without_sight_and_mouse(page: Page, folder: Path) -> None:
    page.evaluate("document.querySelector('#checkpoint').scrollIntoView()")
    assert page.evaluate(f"{CHECKS}; withoutName()") == []
    assert page.evaluate(f"{CHECKS}; tooFaint()") == []
    assert page.evaluate("document.querySelector('#checkpoint').getAttribute('aria-valuetext')") == told(page)
    page.screenshot(folder / "page.png")


def test_the_formation_of_an_older_circuit_is_left_out(folder: Path) -> None:
    circuit, found = load(folder), Formation.read(folder / "formation.json")
    assert formation_of(circuit, found) == found
    assert formation_of(dataclasses.replace(circuit, scale=2.0), found) is None
    assert formation_of(circuit, None) is None
