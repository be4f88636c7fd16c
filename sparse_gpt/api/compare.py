"""Two circuits side by side."""

import dataclasses
from collections.abc import Set

from sparse_gpt.api.given import AnyCircuit, require_circuit
from sparse_gpt.records import Node


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two circuits of one model share.

    Attributes:
        shared, only_first, only_second: nodes.
        node_overlap, edge_overlap: size of the intersection over size of the union (Jaccard); 1 for two empty sets.
    """

    shared: tuple[Node, ...]
    only_first: tuple[Node, ...]
    only_second: tuple[Node, ...]
    node_overlap: float
    edge_overlap: float


def compare(first: AnyCircuit, second: AnyCircuit) -> Comparison:
    """Shared nodes and overlap of two circuits.

    Examples:
        >>> circuit = model.circuit("single_double_quote")
        >>> sg.compare(circuit, circuit).node_overlap
        1.0
    """
    one, other = require_circuit(first, "compare"), require_circuit(second, "compare")
    mine, theirs = set(one.nodes), set(other.nodes)
    edges = [{(edge.source, edge.target) for edge in circuit.edges} for circuit in (one, other)]
    return Comparison(
        tuple(node for node in one.nodes if node in theirs),
        tuple(node for node in one.nodes if node not in theirs),
        tuple(node for node in other.nodes if node not in mine),
        _jaccard(mine, theirs),
        _jaccard(*edges),
    )


def _jaccard(one: Set[object], other: Set[object]) -> float:
    union = one | other
    return len(one & other) / len(union) if union else 1.0
