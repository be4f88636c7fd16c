"""The model as a graph: nodes, the gates that open them, and the edges between them.

With tied gates (`prune.tie_qk`) the q and the k channel of one index share a gate. A vector over gates is then kept at
its full length (nodes,), with zeros at the second node of every tied pair.
"""

import dataclasses
import functools

import numpy as np

from sparse_gpt.circuits.circuit import Edge, count_edges, edges_between
from sparse_gpt.circuits.nodes import from_vector, tied_nodes
from sparse_gpt.config import ModelConfig
from sparse_gpt.parameters import Params


@dataclasses.dataclass(frozen=True)
class ModelGraph:
    """Sizes and weights of a model, for counting edges; and whether q and k share their gates."""

    config: ModelConfig
    params: Params
    tie_qk: bool = False

    @functools.cached_property
    def tied(self) -> np.ndarray:
        """(nodes,) the node that shares its gate with each one, see `nodes.tied_nodes`."""
        return tied_nodes(self.config, self.tie_qk)

    @functools.cached_property
    def gate_of(self) -> np.ndarray:
        """(nodes,) index of each node's gate: tied nodes have the smaller of their two indices."""
        return np.minimum(self.tied, np.arange(len(self.tied)))

    def sum_over_gates(self, values: np.ndarray) -> np.ndarray:
        """(nodes,) sums of values (nodes,) over the nodes of each gate, at the gate's index; zeros elsewhere."""
        return np.bincount(self.gate_of, values, minlength=len(self.gate_of))

    def one_per_gate(self, gates: np.ndarray) -> np.ndarray:
        """A gate vector with one entry per gate; `vector[gate_of]` expands it to nodes again."""
        return gates * (self.gate_of == np.arange(len(self.gate_of)))

    def edges(self, gates: np.ndarray) -> tuple[Edge, ...]:
        """Every edge between the open nodes of a gate vector (nodes,)."""
        return edges_between(self.config, self.params, from_vector(gates, self.config))

    def count_edges(self, gates: np.ndarray) -> int:
        """len(edges(gates))."""
        return count_edges(self.config, self.params, from_vector(gates, self.config))
