"""The model as a graph: nodes, the gates that open them, and the edges between them.

With tied gates (`prune.tie_qk`) the q and the k channel of one index share a gate. A vector over gates is then kept at
its full length (nodes,), with zeros at the second node of every tied pair.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from sparse_gpt.circuits.circuit import Edge
from sparse_gpt.circuits.nodes import SOURCES, GateArrays, empty, from_vector, tied_nodes, to_vector
from sparse_gpt.config import ModelConfig
from sparse_gpt.parameters import Params
from sparse_gpt.records import Node


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

    def shared(self, values: np.ndarray) -> np.ndarray:
        """(nodes,) values (nodes,) summed over the nodes of each gate, at all of them."""
        return self.sum_over_gates(values)[self.gate_of]

    def one_per_gate(self, gates: np.ndarray) -> np.ndarray:
        """A gate vector with one entry per gate; `vector[gate_of]` expands it to nodes again."""
        return gates * (self.gate_of == np.arange(len(self.gate_of)))

    def matrix(self, site: str, layer: int) -> np.ndarray:
        """The weights (source width, site width) that lead to `site`."""
        _, (part, name) = SOURCES[site]
        kernel = np.asarray(self.params[f"h_{layer}"][part][name]["kernel"])
        if name != "c_attn":
            return kernel
        return np.split(kernel, 3, axis=1)[("attn_q", "attn_k", "attn_v").index(site)]

    def matrices(self) -> Iterator[tuple[str, str, int, np.ndarray]]:
        """(source, site, layer, weights) of every matrix, in the order of SOURCES."""
        for site, (source, _) in SOURCES.items():
            for layer in range(self.config.n_layer):
                yield source, site, layer, self.matrix(site, layer)

    def sums_of_each(self, value: Callable[[np.ndarray], np.ndarray]) -> GateArrays:
        """site -> (n_layer, width) float32: sums, over the weights into and out of each node, of what `value` makes of
        a matrix of weights."""
        found = empty(self.config)
        for source, site, layer, weights in self.matrices():
            entries = value(weights)
            found[source][layer] += entries.sum(axis=1)
            found[site][layer] += entries.sum(axis=0)
        return found

    def edges(self, gates: np.ndarray) -> tuple[Edge, ...]:
        """Every edge, a nonzero weight, between two open nodes of a gate vector (nodes,)."""
        layered, edges = from_vector(gates, self.config), []
        for source, site, layer, weights in self.matrices():
            joined = (weights != 0) & (layered[source][layer] > 0)[:, None] & (layered[site][layer] > 0)[None, :]
            for i, j in np.argwhere(joined):
                ends = Node(layer, source, int(i)), Node(layer, site, int(j))
                edges.append(Edge(*ends, float(weights[i, j])))
        return tuple(edges)

    def edges_of_each(self, gates: np.ndarray) -> np.ndarray:
        """(nodes,) how many edges between the open nodes of a gate vector (nodes,) begin or end at each of them."""
        layered = from_vector(gates, self.config)
        found = {site: np.zeros(value.shape, np.int64) for site, value in layered.items()}
        for source, site, layer, weights in self.matrices():
            joined = (weights != 0) & (layered[source][layer] > 0)[:, None] & (layered[site][layer] > 0)[None, :]
            found[source][layer] += joined.sum(axis=1)
            found[site][layer] += joined.sum(axis=0)
        return to_vector(found)

    def count_edges(self, gates: np.ndarray) -> int:
        """len(edges(gates)), without making them."""
        layered, total = from_vector(gates, self.config), 0
        for source, site, layer, weights in self.matrices():
            total += int(np.count_nonzero(weights[np.ix_(layered[source][layer] > 0, layered[site][layer] > 0)]))
        return total

    @property
    def unembedding(self) -> np.ndarray:
        """(d_model, vocabulary)."""
        return np.asarray(self.params["wte"]).T if self.config.tied else np.asarray(self.params["lm_head"])


def residual_channels(gates: GateArrays, sites: tuple[str, ...], d_model: int) -> np.ndarray:
    """Sorted residual channels with an open node at one of the sites, in any layer (position channels left out)."""
    used = np.zeros(d_model, bool)
    for site in sites:
        used |= np.any(gates[site][:, :d_model] > 0, axis=0)
    return np.flatnonzero(used)
