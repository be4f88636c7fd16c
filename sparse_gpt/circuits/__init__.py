"""Circuits: the few nodes and edges of a sparse model that do a task (paper, section 3)."""

from sparse_gpt.circuits.ablation import pretraining_means
from sparse_gpt.circuits.circuit import Circuit, Edge, Node
from sparse_gpt.circuits.extract import extract
from sparse_gpt.circuits.find import SearchResult, find_circuit, full_task_loss, require_solved
from sparse_gpt.circuits.gated import TaskBatch, task_batch
from sparse_gpt.circuits.samples import TaskSamples

__all__ = [
    "Circuit",
    "Edge",
    "Node",
    "SearchResult",
    "TaskBatch",
    "TaskSamples",
    "extract",
    "find_circuit",
    "full_task_loss",
    "pretraining_means",
    "require_solved",
    "task_batch",
]
