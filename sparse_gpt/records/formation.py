"""formation.json: how a circuit came about while its model was trained."""

from typing import ClassVar

from sparse_gpt.errors import InputError
from sparse_gpt.records.base import Count, Fraction, Nats, Part, Record, Seconds, Tokens, older
from sparse_gpt.records.circuit import Calibration, Edge, Node, NodeEntry


class FormingCircuit(Part):
    """The circuit of one checkpoint."""

    start: str
    """What its search started from: "later" or "earlier" circuit; "final" is the circuit of the last checkpoint."""
    task_loss: Nats | None
    """On held-out samples, calibrated on selection samples of its own checkpoint."""
    calibration: Calibration = older(Calibration())
    """What is done to its logits."""
    nodes: tuple[Node, ...]
    """[layer, site, channel] of each, in the order site, layer, channel."""
    edges: tuple[Edge, ...]
    """With the weights of its own checkpoint."""
    node_overlap: Fraction
    """Nodes shared with the final circuit, over nodes that are in either (Jaccard index)."""
    edge_overlap: Fraction
    """The same of edges, by the nodes that they join; 1 where neither has any."""

    def __post_init__(self) -> None:
        """InputError if an edge joins what is not a node of the circuit."""
        known = set(self.nodes)
        for edge in self.edges:
            if not {edge.source, edge.target} <= known:
                raise InputError(f"an edge joins {edge.source.key} and {edge.target.key}, which are not both nodes")


class Checkpoint(Part):
    """One kept checkpoint."""

    step: Count
    """Finished training steps."""
    tokens: Tokens
    """Seen by then."""
    params_sha256: str
    """Fingerprint of its weights."""
    model_task_loss: Nats | None
    """Of the full model on held-out samples."""
    solved: bool
    """Whether the full model's task loss on validation samples is at most the target."""
    final_circuit_task_loss: Nats | None
    """Of the final circuit's nodes and edges with this checkpoint's weights, calibrated anew; held-out samples."""
    circuit: FormingCircuit | None = None
    """Left out where the model does not solve the task, or no circuit reached the target."""


class FormingNode(NodeEntry):
    """A node of the final circuit."""

    from_step: Count
    """The first checkpoint from which on it is in every circuit, without one missing."""
    correlation: tuple[float | None, ...]
    """By checkpoint: of its values with those that it has in the end, over all tokens of some held-out prompts, in the
    full model; null where either do not vary."""


class Formation(Record):
    """Circuits of one task at the kept checkpoints of a run.

    Each is the smaller of two that reach the target: one searched from the circuit of the next checkpoint, last to
    first, and one from the circuit of the checkpoint before, first to last. The last checkpoint's is the circuit in
    circuit.json, and what "final" means.
    """

    FILE: ClassVar[str] = "circuits/TASK/formation.json"
    FORMAT: ClassVar[str] = "sparse_gpt.formation/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.formation"

    task: str
    """Name of the task, or of several that share the circuit."""
    circuit_sha256: str
    """Fingerprint of the final circuit, as in card.json."""
    target_loss: Nats
    """That every circuit had to reach."""
    checkpoints: tuple[Checkpoint, ...]
    """By step; the last one is the trained model."""
    nodes: tuple[FormingNode, ...]
    """Of the final circuit, in its order."""
    seconds: Seconds
    """That it took, without what an interrupted call had done before."""

    def __post_init__(self) -> None:
        """InputError if there is no final circuit, steps do not rise, or a list has not one entry per checkpoint."""
        steps = [each.step for each in self.checkpoints]
        if not steps or self.checkpoints[-1].circuit is None:
            raise InputError("the last checkpoint has no circuit")
        if steps != sorted(set(steps)):
            raise InputError("checkpoints are not in the order of their steps")
        for node in self.nodes:
            if len(node.correlation) != len(steps):
                raise InputError(f"node {node.node.key} has {len(node.correlation)} correlations, not {len(steps)}")
