"""How long the page of a circuit of many nodes takes in headless Chromium, printed: to open, and to rank all its nodes.

python -m tests.page_times --workdir=DIR [--nodes=2000]     # DIR: a trained model, such as an unpacked stored one

The circuit is made of random nodes and lies in DIR/circuits/random_nodes. Making its page takes half a minute. What a
pass takes, test_the_stored_model of tests/test_page_engine.py prints.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import Circuit, load, nodes_of
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import from_vector, to_vector
from sparse_gpt.model.taps import site_widths
from sparse_gpt.page.page import render
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.workdir import Workdir
from tests.browser import Page, open_page
from tests.circuits_model import random_vectors

TASK = "single_double_quote"
IDLE = "document.querySelector('main')?.getAttribute('aria-busy') === 'false'"
REPEATS = 5  # openings, of which the median counts
TOKENS = 64


def random_nodes(run: Workdir, count: int) -> Circuit:
    """A circuit of `count` random nodes and all edges between them."""
    model, chosen = run.config.model, np.random.default_rng(0)
    vector = np.zeros(model.n_layer * sum(site_widths(model).values()), np.float32)
    vector[chosen.choice(len(vector), count, replace=False)] = 1
    gates = from_vector(vector, model)
    return Circuit(
        task="random_nodes",
        params_sha256=run.params_sha256,
        ablation="mean",
        norm="live",
        target_loss=None,
        scale=1.0,
        shift=(),
        edge_pruned=False,
        nodes=nodes_of(gates),
        edges=ModelGraph(model, run.params).edges(to_vector(gates)),
        metrics={},
        values=random_vectors(run.config),
    )


def write_page(run: Workdir, count: int) -> Path:
    """The page of such a circuit."""
    folder = run.folder / "circuits" / "random_nodes"
    if not (folder / "circuit.json").exists():
        random_nodes(run, count).save(folder)
    circuit, path = load(folder), folder / "page.html"
    samples, start = offered_samples(run, [tasks.TASKS[TASK]], circuit), time.monotonic()
    path.write_text(render(run, folder, circuit, samples), encoding="utf-8")
    made = f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges, {path.stat().st_size / 1e6:.1f} MB"
    print(f"page of {made}, made in {time.monotonic() - start:.0f} s")
    return path


def opening(page: Page, path: Path) -> dict[str, float]:
    """Median seconds from the address to a drawing in the values' colors, and until nothing is left to do."""
    seconds: dict[str, list[float]] = {"opened": [], "with all that is computed then": []}
    for _ in range(REPEATS):
        page.command("Page.navigate", url="about:blank")
        start = time.monotonic()
        page.open(path)
        page.wait(f"{IDLE} && document.querySelector('#tokens .token')")
        seconds["opened"].append(time.monotonic() - start)
        page.evaluate("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")
        seconds["with all that is computed then"].append(time.monotonic() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def ranking(page: Page) -> float:
    """Seconds until every node of the open page has its effect."""
    start = time.monotonic()
    page.evaluate("document.querySelector('#ranking').open = true")
    while not page.evaluate("!/^$|nodes computed/.test(document.querySelector('#ranking-said').textContent)"):
        time.sleep(0.2)
    return time.monotonic() - start


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, type=Path)
    parser.add_argument("--nodes", type=int, default=2000)
    arguments = parser.parse_args()
    path = write_page(Workdir(arguments.workdir), arguments.nodes)
    with TemporaryDirectory() as scratch, open_page(Path(scratch)) as page:
        page.resize(1300, 900)
        for what, seconds in opening(page, path).items():
            print(f"{what}: {seconds:.2f} s, median of {REPEATS}")
        print(f"all nodes ranked: {ranking(page):.1f} s")


if __name__ == "__main__":
    main()
