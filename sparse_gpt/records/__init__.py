"""What the JSON files of a workdir hold: a record per file, which writes, reads, checks and documents it.

Free of JAX, so that a report needs no live process. The formats are documented, from these classes, in docs/formats.
"""

from sparse_gpt.records.base import Part, Record, converted
from sparse_gpt.records.bridge import Bridge, Steering, Transport
from sparse_gpt.records.card import Card
from sparse_gpt.records.circuit import Circuit, Edge, Node, NodeEntry
from sparse_gpt.records.files import CircuitFiles, Workdir, read_circuit, read_metrics, read_workdir
from sparse_gpt.records.run import Evaluation, Manifest, MetricsRow, Settings
from sparse_gpt.records.search import Rankings, Search
from sparse_gpt.records.traces import Contexts, Traces

__all__ = [
    "Bridge",
    "Card",
    "Circuit",
    "CircuitFiles",
    "Contexts",
    "Edge",
    "Evaluation",
    "Manifest",
    "MetricsRow",
    "Node",
    "NodeEntry",
    "Part",
    "Rankings",
    "Record",
    "Search",
    "Settings",
    "Steering",
    "Traces",
    "Transport",
    "Workdir",
    "converted",
    "read_circuit",
    "read_metrics",
    "read_workdir",
]
