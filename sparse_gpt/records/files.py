"""A whole workdir, for the report and for drawings.

A file that is absent is None (or an empty list): the report says which command makes it. A file that is there but
broken raises InputError naming it.
"""

import dataclasses
import os
from pathlib import Path

from sparse_gpt import io
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.records.bridge import Bridge, Steering, Transport
from sparse_gpt.records.card import Card
from sparse_gpt.records.circuit import Circuit
from sparse_gpt.records.labels import Labels
from sparse_gpt.records.run import Evaluation, Manifest, MetricsRow, Settings
from sparse_gpt.records.search import Rankings, Search
from sparse_gpt.records.traces import Contexts, Traces


@dataclasses.dataclass(frozen=True)
class CircuitFiles:
    """What pruning one task left behind."""

    folder: Path
    circuit: Circuit
    traces: Traces | None
    search: Search | None
    steering: Steering | None = None
    transport: Transport | None = None
    contexts: Contexts | None = None
    rankings: Rankings | None = None
    card: Card | None = None
    labels: Labels | None = None  # those that fit the circuit
    labels_problem: str = ""  # what is to be said of those that do not


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Everything the report reads. `configuration` is all of config.json, of which `settings` are a part."""

    folder: Path
    settings: Settings
    configuration: Tree
    manifest: Manifest
    metrics: list[MetricsRow]
    circuits: list[CircuitFiles]
    evaluation: Evaluation | None
    bridge: Bridge | None = None


def read_workdir(folder: str | Path) -> Workdir:
    """Reads a workdir. Raises InputError if it has no config.json or if any file is not what its name says."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--workdir={folder}: no such folder; give the workdir of a training run or an import")
    path = folder / Settings.FILE
    if not os.path.lexists(path):
        raise InputError(f"--workdir={folder}: no config.json in it; give the workdir of a training run or an import")
    configuration: Tree = io.read_json(path, nan_as_null=True)
    return Workdir(
        folder=folder,
        settings=Settings.from_tree(configuration, str(path)),
        configuration=configuration,
        manifest=Manifest.read_if_any(folder / Manifest.FILE) or Manifest(),
        metrics=read_metrics(folder / MetricsRow.FILE),
        circuits=[read_circuit(path.parent) for path in sorted(folder.glob(Circuit.FILE.replace("TASK", "*")))],
        evaluation=Evaluation.read_if_any(folder / Evaluation.FILE),
        bridge=Bridge.read_if_any(folder / Bridge.FILE),
    )


def read_metrics(path: Path) -> list[MetricsRow]:
    """Rows of metrics.jsonl in the order of their steps; [] if there is no such file.

    A resumed run repeats steps: the later row counts. A last line without its newline is still being written by a
    running training, and is left out. Raises InputError naming the line that is no JSON object with a step.
    """
    if not os.path.lexists(path):
        return []
    rows = {}
    for number, line in enumerate(io.read_bytes(path).split(b"\n")[:-1], start=1):
        row = MetricsRow.parse(line, f"{path}: line {number}")
        rows[row.step] = row
    return [rows[step] for step in sorted(rows)]


def read_circuit(folder: Path) -> CircuitFiles:
    """The circuit of one task. Raises InputError if circuit.json is missing or any of its files is broken."""
    circuit = Circuit.read_if_any(folder / "circuit.json")
    if circuit is None:
        raise InputError(f"{folder}: no circuit.json in it; python -m launch.prune writes one")
    labels, problem = read_labels(folder, circuit)
    return CircuitFiles(
        folder,
        circuit,
        traces=Traces.read_if_any(folder / "traces.json"),
        search=Search.read_if_any(folder / "search.json"),
        steering=Steering.read_if_any(folder / "steering.json"),
        transport=Transport.read_if_any(folder / "transport.json"),
        contexts=Contexts.read_if_any(folder / "contexts.json"),
        rankings=Rankings.read_if_any(folder / "rankings.json"),
        card=Card.read_if_any(folder / "card.json"),
        labels=labels,
        labels_problem=problem,
    )


def read_labels(folder: Path, circuit: Circuit) -> tuple[Labels | None, str]:
    """Labels of a circuit's folder that fit it, and what is to be said of others. InputError if the file is broken."""
    found = Labels.read_if_any(folder / "labels.json")
    return (None, "") if found is None else found.of_circuit(circuit)
