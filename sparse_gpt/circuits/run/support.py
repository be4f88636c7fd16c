"""What a circuit keeps: some nodes, and all or some of the edges between them."""

import dataclasses
import functools

import numpy as np

from sparse_gpt.circuits.circuit import Edge, nodes_of
from sparse_gpt.circuits.model_graph import ModelGraph, residual_channels
from sparse_gpt.circuits.nodes import GateArrays, from_vector
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.config import READS, WRITES
from sparse_gpt.records import Node


@dataclasses.dataclass(frozen=True)
class Support:
    """The nodes and edges of a circuit.

    Attributes:
        graph: of the model.
        gates: (nodes,) 1 at the circuit's nodes, 0 elsewhere.
        pruned_to: the edges that are left where edges were pruned; None: all between the nodes.
    """

    graph: ModelGraph
    gates: np.ndarray
    pruned_to: tuple[Edge, ...] | None = None

    @property
    def size(self) -> int:
        """Number of nodes."""
        return int(self.gates.sum())

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges of the circuit."""
        return self.every if self.pruned_to is None else self.pruned_to

    @functools.cached_property
    def every(self) -> tuple[Edge, ...]:
        """All edges between its nodes, those that were pruned too."""
        return self.graph.edges(self.gates)

    @functools.cached_property
    def kept(self) -> np.ndarray:
        """(len(every),) 1 where the circuit keeps an edge, 0 where it was pruned; float32."""
        there = set(self.edges)
        return np.array([edge in there for edge in self.every], np.float32)

    @functools.cached_property
    def can_go(self) -> np.ndarray:
        """(len(every),) whether an edge is there and can be removed alone, see `edge_ablation.removable`; bool."""
        return removable(self.graph.config, self.every, self.layered) & (self.kept > 0)

    @functools.cached_property
    def places(self) -> np.ndarray:
        """(E,) of all edges between its nodes, from `edge_ablation.edge_places`."""
        return edge_places(self.graph.config, self.every)

    @functools.cached_property
    def layered(self) -> GateArrays:
        """Its gates by site, (n_layer, width) each."""
        return from_vector(self.gates, self.graph.config)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes, in the order of the gates."""
        return nodes_of(self.layered)

    @property
    def embedding_edges(self) -> int:
        """Nonzero entries (token, channel) of the token embedding on residual channels that one of its nodes at attn_in
        or mlp_in reads."""
        read = residual_channels(self.layered, READS, self.graph.config.d_model)
        return int(np.count_nonzero(np.asarray(self.graph.params["wte"])[:, read]))

    @property
    def unembedding_edges(self) -> int:
        """Nonzero entries (channel, token) of the unembedding on residual channels that one of its nodes at attn_out or
        mlp_out writes."""
        written = residual_channels(self.layered, WRITES, self.graph.config.d_model)
        return int(np.count_nonzero(self.graph.unembedding[written]))

    @property
    def masks(self) -> Masks:
        """This support as one mask."""
        if self.pruned_to is None:
            return Masks(self.gates[None, :])
        return Masks(self.gates[None, :], self.places, self.kept[None, :])


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A circuit to be: its support, and the calibration fitted on selection samples.

    Attributes:
        support: nodes and edges.
        calibration: of the final logits.
        reached: whether the calibrated selection loss (of every task) is at most the target.
    """

    support: Support
    calibration: Calibration
    reached: bool
