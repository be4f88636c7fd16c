"""Every export of a circuit as a file in one folder."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sparse_gpt.drawing.graph import build_graph
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.errors import InputError
from sparse_gpt.exports.attribution_graph import attribution_graph
from sparse_gpt.exports.tables import edge_table, graphml, node_table
from sparse_gpt.folders import Snapshot
from sparse_gpt.io import disk_errors, write_atomic
from sparse_gpt.records import CircuitFiles

NAMES = ("nodes.csv", "edges.csv", "circuit.graphml", "circuit.svg", "attribution_graph.json")
SCRATCH = ".export.partial"  # in the output folder: where files are until all of them are written


def export_circuit(files: CircuitFiles, d_head: int, model: str, output: Path) -> list[Path]:
    """Writes nodes.csv, edges.csv, circuit.graphml, circuit.svg and, of one with traces, attribution_graph.json.

    Args:
      files: of the circuit.
      d_head: channels per head.
      model: the name that the attribution graph gives to the model.
      output: the folder, which is made; an earlier export in it is replaced.

    Returns the paths. InputError if they cannot be written, or the folder holds anything else; it is as before then.
    """
    require_new(output)
    graph = build_graph(files.circuit, files.traces, d_head)
    texts = {
        "nodes.csv": node_table(graph, files.labels),
        "edges.csv": edge_table(graph),
        "circuit.graphml": graphml(graph, files.circuit, files.labels),
        "circuit.svg": draw_circuit(files.circuit, files.traces, d_head, files.labels),
    }
    if files.traces and files.traces.samples:
        tree = attribution_graph(graph, files.circuit, files.traces, files.labels, model)
        texts["attribution_graph.json"] = json.dumps(tree, indent=1) + "\n"
    scratch = output / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    before = Snapshot(output)
    try:
        for name, text in texts.items():
            _write(scratch / "new" / name, text)
        _exchange(output, list(texts))
    except BaseException:
        before.restore()
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return [output / name for name in texts]


def _exchange(output: Path, names: Sequence[str]) -> None:
    """Puts the new files in the place of all of an earlier export, or of none."""
    new, old = output / SCRATCH / "new", output / SCRATCH / "old"
    earlier = [name for name in NAMES if (output / name).exists()]
    moves = [(output / name, old / name) for name in earlier] + [(new / name, output / name) for name in names]
    done: list[tuple[Path, Path]] = []
    with disk_errors(output):
        old.mkdir()
        try:
            for source, target in moves:
                os.replace(source, target)
                done.append((source, target))
        except BaseException:
            for source, target in reversed(done):
                os.replace(target, source)
            raise


def require_new(output: Path) -> None:
    """InputError if a folder to export to holds anything but an earlier export, for that might be replaced."""
    own = {*NAMES, SCRATCH}
    others = [path.name for path in sorted(output.iterdir()) if path.name not in own] if output.is_dir() else []
    if others:
        raise InputError(f"--output={output}: is there already and not empty ({others[0]}); choose a new folder")


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give a folder that can") from error
    return path
