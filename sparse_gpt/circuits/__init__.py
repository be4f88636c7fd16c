"""Circuits: the few nodes and edges of a sparse model that do a task (paper, section 3)."""

from sparse_gpt.circuits.circuit import Circuit, Edge, Node
from sparse_gpt.circuits.pipeline import SearchResult, find_circuit, full_task_loss, require_solved
from sparse_gpt.circuits.run.ablation_values import pretraining_means
from sparse_gpt.circuits.run.gated_model import TaskBatch, task_batch
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.standalone.build import extract

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
