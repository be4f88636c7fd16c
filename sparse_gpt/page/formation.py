"""What a circuit's page has of its formation: one drawing of all circuits over training, and the numbers."""

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.config import NODE_SITES
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.io import Tree
from sparse_gpt.records import Edge, Formation, Node, NodeEntry
from sparse_gpt.records.circuit import Circuit as CircuitRecord


def formation_of(circuit: Circuit, found: Formation | None) -> Formation | None:
    """A formation as it was read, if it is of this circuit and not of an older one."""
    same = found is not None and found.circuit_sha256 == circuit.sha256
    return found if same else None


def draw_formation(found: Formation, d_head: int) -> str:
    """All circuits of a formation as one drawing, so that a node keeps its place: the page hides what is not there at
    the chosen checkpoint. An edge has its last weight."""
    circuits = [each.circuit for each in found.checkpoints if each.circuit]
    nodes = sorted(
        {node for circuit in circuits for node in circuit.nodes},
        key=lambda node: (NODE_SITES.index(node.site), node.layer, node.channel),
    )
    edges: dict[tuple[Node, Node], Edge] = {}
    for circuit in circuits:
        edges |= {(edge.source, edge.target): edge for edge in circuit.edges}
    record = CircuitRecord(
        task=found.task, nodes=tuple(NodeEntry.of(*node) for node in nodes), edges=tuple(edges.values())
    )
    return draw_circuit(record, None, d_head)


def formation_data(found: Formation) -> Tree:
    """What the page's script reads."""
    tree = found.tree()
    return {name: tree[name] for name in ("checkpoints", "nodes")}
