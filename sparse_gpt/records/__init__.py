"""What the JSON files of a workdir hold: a record per file, which writes, reads, checks and documents it.

Free of JAX, so that a report needs no live process. The formats are documented, from these classes, in docs/formats.
"""

from sparse_gpt.records.base import Part, Record, converted
from sparse_gpt.records.bridge import Bridge, Steering, Transport
from sparse_gpt.records.card import Card
from sparse_gpt.records.circuit import (
    Calibration,
    Circuit,
    CircuitMetrics,
    Edge,
    FamilyLosses,
    InnerCircuit,
    Node,
    NodeEntry,
    PathStatistics,
    TaskLosses,
)
from sparse_gpt.records.files import CircuitFiles, Workdir, read_circuit, read_metrics, read_workdir
from sparse_gpt.records.formation import Formation
from sparse_gpt.records.labels import Labels
from sparse_gpt.records.run import Evaluation, Manifest, MetricsRow, Settings
from sparse_gpt.records.search import Rankings, Search
from sparse_gpt.records.traces import Contexts, Traces

__all__ = [
    "Bridge",
    "Calibration",
    "Card",
    "Circuit",
    "CircuitFiles",
    "CircuitMetrics",
    "Contexts",
    "Edge",
    "Evaluation",
    "FamilyLosses",
    "Formation",
    "InnerCircuit",
    "Labels",
    "Manifest",
    "MetricsRow",
    "Node",
    "NodeEntry",
    "Part",
    "PathStatistics",
    "Rankings",
    "Record",
    "Search",
    "Settings",
    "Steering",
    "TaskLosses",
    "Traces",
    "Transport",
    "Workdir",
    "converted",
    "read_circuit",
    "read_metrics",
    "read_workdir",
]
