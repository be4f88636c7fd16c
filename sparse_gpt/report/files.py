"""Reading a workdir for the report. Every file is checked on the way in, so that drawing code can trust it.

A file that is absent is None (or an empty list): the report says which command makes it. A file that is there but
broken raises InputError naming it.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_gpt.config import NODE_SITES
from sparse_gpt.errors import InputError

Json = dict[str, Any]

CIRCUIT_FORMAT = "sparse_gpt.circuit/1"
SEARCH_FORMAT = "sparse_gpt.search/1"
TRACES_FORMAT = "sparse_gpt.traces/1"
EVALUATION_FORMAT = "sparse_gpt.evaluation/1"


@dataclasses.dataclass(frozen=True)
class CircuitFiles:
    """What pruning one task left behind."""

    folder: Path
    circuit: Json
    traces: Json | None
    search: Json | None


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Everything the report reads."""

    folder: Path
    config: Json
    manifest: Json
    metrics: list[Json]
    circuits: list[CircuitFiles]
    evaluation: Json | None


def read_workdir(folder: str | Path) -> Workdir:
    """Reads a workdir. Raises InputError if it has no config.json or if any file is not what its name says."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--workdir={folder}: no such folder; give the workdir of a training run or an import")
    config = read_json(folder / "config.json")
    if config is None:
        raise InputError(f"--workdir={folder}: no config.json in it; give the workdir of a training run or an import")
    evaluation = read_json(folder / "evaluation.json", EVALUATION_FORMAT)
    if evaluation is not None:
        _checked(folder / "evaluation.json", lambda: [row["task"] for row in evaluation["tasks"]])
    return Workdir(
        folder=folder,
        config=config,
        manifest=read_json(folder / "manifest.json") or {},
        metrics=read_metrics(folder / "metrics.jsonl"),
        circuits=[read_circuit(path.parent) for path in sorted(folder.glob("circuits/*/circuit.json"))],
        evaluation=evaluation,
    )


def read_json(path: Path, wanted_format: str = "") -> Json | None:
    """The JSON object in `path`; None if there is no such file.

    Raises InputError if it is anything else, or has another "format" than `wanted_format`.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); delete it or make it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    if wanted_format and value.get("format") != wanted_format:
        raise InputError(
            f"{path}: format {value.get('format')!r}, but this version reads {wanted_format!r}; make it again"
        )
    return value


def read_metrics(path: Path) -> list[Json]:
    """Rows of metrics.jsonl in the order of their steps; [] if there is no such file.

    A resumed run repeats steps: the later row counts. A last line without its newline is still being written by a
    running training, and is left out. Raises InputError naming the line that is no JSON object with a step.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from error
    rows = {}
    for line_number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[int(row["step"])] = row
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f'{path}: line {line_number} is not a JSON object with a number "step"') from error
    return [rows[step] for step in sorted(rows)]


def read_circuit(folder: Path) -> CircuitFiles:
    """The circuit of one task. Raises InputError if circuit.json is missing or any of the three files is broken."""
    circuit = read_json(folder / "circuit.json", CIRCUIT_FORMAT)
    if circuit is None:
        raise InputError(f"{folder}: no circuit.json in it; python -m launch.prune writes one")
    traces = read_json(folder / "traces.json", TRACES_FORMAT)
    search = read_json(folder / "search.json", SEARCH_FORMAT)
    _checked(folder / "circuit.json", lambda: check_circuit(circuit))
    if traces is not None:
        _checked(folder / "traces.json", lambda: check_traces(traces))
    if search is not None:
        _checked(folder / "search.json", lambda: check_search(search))
    return CircuitFiles(folder, circuit, traces, search)


def check_circuit(circuit: Json) -> None:
    """Raises InputError, KeyError, TypeError or ValueError if nodes or edges are not as the format says."""
    nodes = {(int(node["layer"]), node["site"], int(node["channel"])) for node in circuit["nodes"]}
    for layer, site, channel in nodes:
        if site not in NODE_SITES:
            raise InputError(f"node {layer}.{site}.{channel}: unknown site; sites are {', '.join(NODE_SITES)}")
    for edge in circuit["edges"]:
        float(edge["weight"])
        for end in ("from", "to"):
            layer, site, channel = edge[end]
            if (layer, site, channel) not in nodes:
                raise InputError(f"an edge's {end!r} is {layer}.{site}.{channel}, which is not among the nodes")
    str(circuit["task"])


def check_traces(traces: Json) -> None:
    """The same for traces: values have the length of the sample's tokens, attention at most that on both sides."""
    for index, sample in enumerate(traces["samples"]):
        length = len(sample["tokens"])
        for node, row in sample["values"].items():
            if len(row) != length:
                raise InputError(f"sample {index} has {length} tokens but node {node} has {len(row)} values")
        for head, pattern in sample.get("attention", {}).items():
            if len(pattern) > length or any(len(row) > length for row in pattern):
                raise InputError(f"sample {index} has {length} tokens but the attention of head {head} has more")
    for part in ("embedding", "unembedding"):
        for entry in traces.get(part, []):
            (str(entry["token"]), int(entry["token_id"]), int(entry["channel"]), float(entry["weight"]))


def check_search(search: Json) -> None:
    """The same for the search history: every record names its step, and losses and counts belong to trials."""
    trials = len(search["trials"])
    for record in search.get("history", []):
        if len(record["loss"]) != trials or len(record["open_nodes"]) != trials:
            raise InputError(f"step {record['step']} of the history does not have {trials} losses, one per trial")
    for point in search.get("loss_versus_size", []):
        (float(point["nodes"]), float(point["edges"]), float(point["task_loss"]))


def _checked(path: Path, check: Callable[[], object]) -> None:
    """Runs `check`; whatever it finds becomes an InputError that names the file."""
    try:
        check()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; make the file again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not as its format says ({error}); make the file again") from error
