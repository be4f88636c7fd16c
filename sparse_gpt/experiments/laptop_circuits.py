"""Experiment: the circuit of every task that the stored laptop model solves, and its sizes."""

import itertools
from pathlib import Path

from sparse_gpt import stored
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, finish, prune, reported
from sparse_gpt.io import Tree
from sparse_gpt.records import Circuit, Search

MODEL, QUOTE = "laptop", "single_double_quote"
SHORTER = (
    "--config.prune.seeds=1",
    "--config.prune.k_coefs=3e-4,1e-3,3e-3,1e-2",  # tasks differ in how many nodes they need, so in the right penalty
    "--config.prune.refine_trials=1",
)
STAGES = {"search": "after the search", "nodes": "after single nodes", "edges": "after single nodes and edges"}


def laptop_circuits(folder: Path) -> list[Check]:
    """The circuit of every task that the stored model solves: as a shorter search leaves it, and refined. That of the
    quote task by the preset's own search, too."""
    for name in (MODEL, QUOTE):
        stored.unpack(MODEL, folder / name)
    finish("prune", f"--workdir={folder / MODEL}", "--task=all-that-work", *SHORTER)
    finish("report", f"--workdir={folder / MODEL}")
    quote = len(prune(folder / QUOTE, QUOTE).edges)
    rows = [read_sizes(path) for path in sorted((folder / MODEL).glob("circuits/*/circuit.json"))]
    plots.write_csv(folder / "laptop-circuits.csv", rows)
    for row in rows:
        print(f"{row['task']:28}{row['nodes']:5} nodes{row['edges']:5} edges, task loss {row['task_loss']:.3f}")
    refined = [row for row in rows if row["edges_edges"] is not None]
    means = {
        name: measures.geometric_mean([row[f"{stage}_edges"] for row in refined]) if refined else "none was refined"
        for stage, name in STAGES.items()
    }
    others = [f"{row['task']}: {row['search_edges']}" for row in rows if row not in refined]
    return [
        at_least("tasks with a circuit", len(rows), 16),
        at_most("edges of the quote circuit", quote, 25),
        *(reported(f"edges {name}, geometric mean over {len(refined)} tasks", mean) for name, mean in means.items()),
        reported("edges of circuits that were not refined", ", ".join(others) or "all were"),
    ]


def read_sizes(path: Path) -> Tree:
    """One task's row."""
    circuit, search = Circuit.read(path), Search.read(path.parent / "search.json")
    shown = ("nodes", "edges", "task_loss", "ablated_task_loss", "random_circuit_task_loss", "shifted_task_loss")
    row = {"task": circuit.task, **{key: getattr(circuit.metrics, key) for key in shown}}
    stages = {stage.stage: stage for stage in search.stages}
    for stage, key in itertools.product(STAGES, ("nodes", "edges")):
        row[f"{stage}_{key}"] = getattr(stages.get(stage), key, None)  # None where it was not refined
    return row
