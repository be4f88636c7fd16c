"""Every export of a circuit as a file in one folder."""

import json
from pathlib import Path

from sparse_gpt.drawing.graph import build_graph
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.errors import InputError
from sparse_gpt.exports.attribution_graph import attribution_graph
from sparse_gpt.exports.tables import edge_table, graphml, node_table
from sparse_gpt.io import write_atomic
from sparse_gpt.records import CircuitFiles


def export_circuit(files: CircuitFiles, d_head: int, model: str, output: Path) -> list[Path]:
    """Writes nodes.csv, edges.csv, circuit.graphml, circuit.svg and, of one with traces, attribution_graph.json.

    Args:
      files: of the circuit.
      d_head: channels per head.
      model: the name that the attribution graph gives to the model.
      output: the folder, which is made.

    Returns the paths. InputError if they cannot be written.
    """
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
    paths = []
    for name, text in texts.items():
        try:
            output.mkdir(parents=True, exist_ok=True)
            write_atomic(output / name, text.encode("utf-8", "replace"))
        except OSError as error:
            reason = f"cannot be written ({error.strerror}); give a folder that can"
            raise InputError(f"{output / name}: {reason}") from error
        paths.append(output / name)
    return paths
