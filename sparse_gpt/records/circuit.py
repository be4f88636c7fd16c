"""circuit.json: the nodes and edges of a circuit, its calibration, and what was measured of it."""

from collections.abc import Collection, Iterable
from typing import ClassVar, Literal, NamedTuple

import msgspec

from sparse_gpt.errors import InputError
from sparse_gpt.records.base import Count, Fraction, Index, Nats, Part, Record, Site, older


class Node(NamedTuple):
    """One channel at one node site of one layer."""

    layer: Index
    site: Site
    channel: Index

    @property
    def key(self) -> str:
        """ "layer.site.channel", the node's name in traces.json and in messages."""
        return f"{self.layer}.{self.site}.{self.channel}"


class NodeEntry(Part):
    """A node, as an object."""

    layer: Index
    """Block of the model, from 0."""
    site: Site
    """Where in the block."""
    channel: Index
    """Number of the channel there, from 0."""

    @classmethod
    def of(cls, layer: int, site: str, channel: int) -> "NodeEntry":
        return NodeEntry(layer=layer, site=site, channel=channel)

    @property
    def node(self) -> Node:
        return Node(self.layer, self.site, self.channel)


class Edge(Part):
    """A weight between two nodes."""

    source: Node = msgspec.field(name="from")
    """The node it reads."""
    target: Node = msgspec.field(name="to")
    """The node it feeds."""
    weight: float
    """The entry of the model's weight matrix."""


class Calibration(Part):
    """logits -> scale * logits + shift, fitted on selection samples."""

    scale: float = older(1.0)
    """Factor of all logits."""
    shift: tuple[tuple[Index, float], ...] = older(())
    """[token id, value] for every token whose logit is shifted."""

    @property
    def changes_logits(self) -> bool:
        """Whether logits are rescaled or shifted at all."""
        return self.scale != 1 or any(value for _, value in self.shift)


class TaskLosses(Part):
    """One of several tasks that share the circuit."""

    task: str
    """Its name."""
    task_loss: Nats | None = None
    """Of the circuit, calibrated."""
    task_loss_uncalibrated: Nats | None = None
    """Before calibration."""
    accuracy: Fraction | None = None
    """Samples whose answer beats its foil."""
    agreement: Fraction | None = None
    """Samples on which circuit and model choose alike."""
    full_model_task_loss: Nats | None = None
    """Of the full model."""
    ablated_task_loss: Nats | None = None
    """Of the model with the circuit's nodes ablated (necessity)."""


Role = Literal["searched", "left aside", "novel", "wild"]
SEARCHED: Role = "searched"
LEFT_ASIDE: Role = "left aside"
NOVEL: Role = "novel"
WILD: Role = "wild"


class FamilyLosses(Part):
    """Held-out samples of one template family of the task."""

    family: str
    """Its name."""
    role: Role
    """Whether the circuit was searched on it, could have been, is of those that no search sees, or is natural text."""
    pairs: Count | None = None
    """Pairs of samples; of natural text half of the samples, which are no pairs."""
    task_loss: Nats | None = None
    """Of the circuit, calibrated."""
    accuracy: Fraction | None = None
    """Samples whose answer beats its foil."""
    agreement: Fraction | None = None
    """Samples on which circuit and model choose alike."""
    full_model_task_loss: Nats | None = None
    """Of the full model."""
    full_model_accuracy: Fraction | None = None
    """Of the full model."""
    ablated_task_loss: Nats | None = None
    """Of the model with the circuit's nodes ablated (necessity)."""


class CircuitMetrics(Part):
    """Sizes, and losses on held-out samples; null stands for what was not finite or not measured."""

    nodes: Count | None = None
    """Nodes of the circuit."""
    edges: Count | None = None
    """Edges of the circuit."""
    embedding_edges: Count | None = None
    """Nonzero embedding entries on residual channels that the circuit reads."""
    unembedding_edges: Count | None = None
    """Nonzero unembedding entries on residual channels that the circuit writes."""
    task_loss: Nats | None = None
    """Between answer and foil, calibrated."""
    task_loss_uncalibrated: Nats | None = None
    """Before calibration."""
    accuracy: Fraction | None = None
    """Samples whose answer beats its foil."""
    agreement: Fraction | None = None
    """Samples on which circuit and model choose alike."""
    full_model_task_loss: Nats | None = None
    """Of the full model."""
    ablated_task_loss: Nats | None = None
    """Of the model with the circuit's nodes ablated (necessity)."""
    shifted_task_loss: Nats | None = None
    """On held-out words in the templates of the shifted variant."""
    shifted_accuracy: Fraction | None = None
    """On held-out words in the templates of the shifted variant."""
    shifted_agreement: Fraction | None = None
    """On held-out words in the templates of the shifted variant."""
    shifted_full_model_task_loss: Nats | None = None
    """Of the full model, there."""
    shifted_full_model_accuracy: Fraction | None = None
    """Of the full model, there."""
    random_circuit_task_loss: Nats | tuple[Nats | None, ...] | None = None
    """Median over random circuits of the same size at every site and layer; older files list every draw."""
    redrawn_values_task_loss: Nats | None = None
    """Median over circuits with the same edges and other values."""
    redrawn_values_task_loss_calibrated: Nats | None = None
    """The same, each calibrated."""
    resampled_task_loss: Nats | None = None
    """Mean over other draws of the ablation values."""

    @property
    def random_circuit(self) -> float | None:
        """Task loss of random circuits as one number: in older files the mean of a list."""
        found = self.random_circuit_task_loss
        if not isinstance(found, tuple):
            return found
        known = [loss for loss in found if loss is not None]
        return sum(known) / len(known) if known else None


class NodeEdges(NodeEntry):
    """How much of a node's weights the circuit uses."""

    used_edges: Count | None
    """Edges of the circuit into and out of the node."""
    total_edges: Count | None
    """Nonzero block weights into and out of the node."""
    fraction: Fraction | None
    """The first over the second; null for a node without weights."""


class TokenPath(Part):
    """A chain of nodes with its strongest token and logit."""

    token_id: Index
    """The token that it starts with."""
    nodes: tuple[Node, ...]
    """[layer, site, channel] of each node on it."""
    answer_id: Index
    """The token whose logit it ends at."""
    strength: float | None
    """Product of the sizes of all weights on it."""
    token: str | None = None
    """Text of the token."""
    answer: str | None = None
    """Text of the answer."""


class Paths(Part):
    """Ways through the circuit from single tokens to single logits."""

    count: Count | None = older(None)
    """Paths from one token to one logit."""
    chains: Count | None = older(None)
    """Different sequences of nodes among them."""
    strongest: tuple[TokenPath, ...] = older(())
    """The strongest chains, strongest first."""


class PathStatistics(Part):
    """The circuit as a graph."""

    nodes: tuple[NodeEdges, ...] = older(())
    """One entry per node."""
    paths: Paths = older(Paths())
    """Paths from tokens to logits."""


class InnerCircuit(Part):
    """The minimal circuit: the part of a complete one that one of its template families alone needs, where a mean
    decides and calibration multiplies by whatever fits, as for circuits of the paper."""

    calibration: Calibration = older(Calibration())
    """What is done to its logits."""
    edge_pruned: bool = older(False)
    """As of the complete circuit."""
    nodes: tuple[NodeEntry, ...]
    """Some of the complete circuit's nodes."""
    edges: tuple[Edge, ...]
    """Some of the complete circuit's edges."""
    metrics: CircuitMetrics = older(CircuitMetrics())
    """What was measured, on held-out samples of its own family."""
    families: tuple[FamilyLosses, ...] = ()
    """Every template family; "searched" is its own."""


class Circuit(Record):
    """The circuit of one task, or one that several tasks share.

    After a search on several template families it is the complete circuit, and `minimal` is the part of it that the
    main family alone needs.

    Beside it, `ablation.npz` holds for every site an array (n_layer, width): the values that nodes outside the circuit
    take. Where `edge_pruned`, a nonzero weight between two nodes that is not listed carries its source's ablation value
    instead of the source's activation.
    """

    FILE: ClassVar[str] = "circuits/TASK/circuit.json"
    FORMAT: ClassVar[str] = "sparse_gpt.circuit/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.prune"

    task: str
    """Name of the task."""
    params_sha256: str = older("")
    """Fingerprint of the weights that it belongs to."""
    ablation: str = older("")
    """What ablated nodes take: mean, zero, task_mean or resample."""
    norm: str = older("")
    """Whether norms see the circuit (live) or the full model (frozen)."""
    tie_qk: bool = older(False)
    """Whether the q and k channel of one index had to be in it together."""
    target_loss: Nats | None = older(None)
    """The task loss that it had to reach."""
    calibration: Calibration = older(Calibration())
    """What is done to its logits."""
    edge_pruned: bool = older(False)
    """Whether edges were removed; else every nonzero weight between its nodes is listed."""
    nodes: tuple[NodeEntry, ...]
    """In the order site, layer, channel."""
    edges: tuple[Edge, ...]
    """In the order of matrices, then entries."""
    metrics: CircuitMetrics = older(CircuitMetrics())
    """What was measured."""
    tasks: tuple[TaskLosses, ...] = ()
    """The tasks that share it, where there are several."""
    families: tuple[FamilyLosses, ...] = ()
    """Template families of the task, searched on or not; older files have none."""
    minimal: InnerCircuit | None = None
    """The part of this circuit that its main family alone needs, where it was searched on several, reached the target
    and has no more nodes than prune.refine_most; missing elsewhere."""
    path_statistics: PathStatistics = older(PathStatistics(), "bookkeeping")
    """Edges and paths that it uses."""

    def __post_init__(self) -> None:
        """InputError if an edge joins what is not a node of the circuit."""
        nodes = {entry.node for entry in self.nodes}
        _require_ends(self.edges, nodes, "the nodes")
        if self.minimal:
            inner = {entry.node for entry in self.minimal.nodes}
            _require_ends(self.minimal.edges, inner, "the nodes of the minimal circuit")
        for entry in self.minimal.nodes if self.minimal else ():
            if entry.node not in nodes:
                raise InputError(f"the minimal circuit has {entry.node.key}, which is not among the nodes")


def _require_ends(edges: Iterable[Edge], nodes: Collection[Node], name: str) -> None:
    """InputError if an edge joins what is not among nodes, of that name."""
    for edge in edges:
        for side, end in (("from", edge.source), ("to", edge.target)):
            if end not in nodes:
                raise InputError(f"an edge's {side!r} is {end.key}, which is not among {name}")
