"""Reading a workdir for the report. Every file is checked on the way in, so that drawing code can trust it.

A file that is absent is None (or an empty list): the report says which command makes it. A file that is there but
broken raises InputError naming it.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_gpt import io
from sparse_gpt.errors import InputError
from sparse_gpt.records import schemas
from sparse_gpt.schema import MANIFEST, METRICS_ROW, check, shown

Json = dict[str, Any]

CIRCUIT_FORMAT = "sparse_gpt.circuit/1"
SEARCH_FORMAT = "sparse_gpt.search/1"
CONTEXTS_FORMAT = "sparse_gpt.contexts/1"
RANKINGS_FORMAT = "sparse_gpt.rankings/1"
TRACES_FORMAT = "sparse_gpt.traces/1"
EVALUATION_FORMAT = "sparse_gpt.evaluation/1"
BRIDGE_FORMAT = "sparse_gpt.bridge/1"
STEERING_FORMAT = "sparse_gpt.steering/1"
TRANSPORT_FORMAT = "sparse_gpt.transport/1"


@dataclasses.dataclass(frozen=True)
class CircuitFiles:
    """What pruning one task left behind."""

    folder: Path
    circuit: Json
    traces: Json | None
    search: Json | None
    steering: Json | None = None
    transport: Json | None = None
    contexts: Json | None = None
    rankings: Json | None = None


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Everything the report reads."""

    folder: Path
    config: Json
    manifest: Json
    metrics: list[Json]
    circuits: list[CircuitFiles]
    evaluation: Json | None
    bridge: Json | None = None


def read_workdir(folder: str | Path) -> Workdir:
    """Reads a workdir. Raises InputError if it has no config.json or if any file is not what its name says."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--workdir={folder}: no such folder; give the workdir of a training run or an import")
    config = read_json(folder / "config.json", schemas.CONFIG)
    if config is None:
        raise InputError(f"--workdir={folder}: no config.json in it; give the workdir of a training run or an import")
    return Workdir(
        folder=folder,
        config=config,
        manifest=read_json(folder / "manifest.json", MANIFEST) or {},
        metrics=read_metrics(folder / "metrics.jsonl"),
        circuits=[read_circuit(path.parent) for path in sorted(folder.glob("circuits/*/circuit.json"))],
        evaluation=read_json(folder / "evaluation.json", schemas.EVALUATION, EVALUATION_FORMAT),
        bridge=read_json(folder / "bridge.json", schemas.BRIDGE, BRIDGE_FORMAT, check_mixtures),
    )


def read_json(
    path: Path, schema: Any, wanted_format: str = "", further: Callable[[Json], None] = lambda value: None
) -> Json | None:
    """The JSON object in `path`; None if there is no such file.

    Raises InputError that names the file if it is anything else, has another "format" than `wanted_format`, is not as
    `schema` says, or if `further` raises one.
    """
    if not os.path.lexists(path):
        return None
    value: Json = io.read_json(path, nan_as_null=True)  # older files have NaN
    try:
        if wanted_format and value.get("format") != wanted_format:
            raise InputError(f"format is {shown(value.get('format'))}, but this version reads {wanted_format!r}")
        check(value, schema)
        further(value)
    except InputError as error:
        raise InputError(f"{path}: {error}; delete it or make it again") from error
    return value


def read_metrics(path: Path) -> list[Json]:
    """Rows of metrics.jsonl in the order of their steps; [] if there is no such file.

    A resumed run repeats steps: the later row counts. A last line without its newline is still being written by a
    running training, and is left out. Raises InputError naming the line that is no JSON object with a step.
    """
    if not os.path.lexists(path):
        return []
    rows = {}
    for number, line in enumerate(io.read_bytes(path).split(b"\n")[:-1], start=1):
        row = io.parse_json(line, f"{path}: line {number}", METRICS_ROW, nan_as_null=True)
        rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def read_circuit(folder: Path) -> CircuitFiles:
    """The circuit of one task. Raises InputError if circuit.json is missing or any of its files is broken."""
    circuit = read_json(folder / "circuit.json", schemas.CIRCUIT, CIRCUIT_FORMAT, check_edges)
    if circuit is None:
        raise InputError(f"{folder}: no circuit.json in it; python -m launch.prune writes one")
    traces = read_json(folder / "traces.json", schemas.TRACES, TRACES_FORMAT, check_lengths)
    search = read_json(folder / "search.json", schemas.SEARCH, SEARCH_FORMAT, check_history)
    steering = read_json(folder / "steering.json", schemas.STEERING, STEERING_FORMAT, check_curves)
    transport = read_json(folder / "transport.json", schemas.TRANSPORT, TRANSPORT_FORMAT)
    contexts = read_json(folder / "contexts.json", schemas.CONTEXTS, CONTEXTS_FORMAT)
    rankings = read_json(folder / "rankings.json", schemas.RANKINGS, RANKINGS_FORMAT)
    return CircuitFiles(folder, circuit, traces, search, steering, transport, contexts, rankings)


def check_edges(circuit: Json) -> None:
    """Raises InputError if an edge joins what is not a node of the circuit."""
    nodes = {(node["layer"], node["site"], node["channel"]) for node in circuit["nodes"]}
    for edge in circuit["edges"]:
        for end in ("from", "to"):
            if tuple(edge[end]) not in nodes:
                name = ".".join(map(str, edge[end]))
                raise InputError(f"an edge's {end!r} is {name}, which is not among the nodes")


def check_lengths(traces: Json) -> None:
    """Raises InputError unless values have the length of their sample's tokens, and attention at most that."""
    for index, sample in enumerate(traces["samples"]):
        length = len(sample["tokens"])
        for node, row in sample["values"].items():
            if len(row) != length:
                raise InputError(f"sample {index} has {length} tokens but node {node} has {len(row)} values")
        for head, pattern in sample.get("attention", {}).items():
            if len(pattern) > length or any(len(row) > length for row in pattern):
                raise InputError(f"sample {index} has {length} tokens but the attention of head {head} has more")


def check_history(search: Json) -> None:
    """Raises InputError unless every record of the search history has one loss and one count per trial."""
    trials = len(search["trials"])
    for record in search.get("history", []):
        if len(record["loss"]) != trials or len(record["open_nodes"]) != trials:
            raise InputError(f"step {record['step']} of the history does not have {trials} losses, one per trial")


def check_mixtures(bridge: Json) -> None:
    """Raises InputError unless every path has a letter, d or s, for each of the pieces that the bridges leave."""
    pieces = len(bridge["bridges"]) + 1
    for entry in bridge.get("mixtures", {}).get("paths", []):
        if len(entry["path"]) != pieces or set(entry["path"]) - {"d", "s"}:
            raise InputError(f"path {ascii(entry['path'])[:40]} is not {pieces} letters d or s")


def check_curves(steering: Json) -> None:
    """Raises InputError unless every curve has one value per strength."""
    curves = steering["curves"]
    single = (curves[name] for name in ("sparse", "dense", "stream"))
    for curve in (*single, *curves["random"], *curves["random_stream"]):
        for values in curve.values():
            if len(values) != len(steering["strengths"]):
                raise InputError(f"a curve has {len(values)} values for {len(steering['strengths'])} strengths")
