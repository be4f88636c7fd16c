"""Circuits: the few nodes and edges of a sparse model that do a task (paper, section 3)."""

from sparse_gpt.circuits.circuit import Circuit, Edge
from sparse_gpt.circuits.pipeline import FoundCircuit, find_circuit
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.ablation_values import pretraining_means
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.standalone.build import extract
from sparse_gpt.circuits.run.task_batch import TaskBatch, task_batch
from sparse_gpt.circuits.solved import full_task_loss, keep_solved, require_solved
from sparse_gpt.records import Node

__all__ = [
    "Circuit",
    "Edge",
    "FoundCircuit",
    "Node",
    "Problem",
    "TaskBatch",
    "TaskSamples",
    "extract",
    "find_circuit",
    "full_task_loss",
    "keep_solved",
    "pretraining_means",
    "require_solved",
    "task_batch",
]
