"""A circuit on one prompt as an attribution graph, the JSON that circuit-tracer writes and Neuronpedia shows.

Its nodes are pairs of a node and a token position, its links what one brings to the other there: weight times value,
through attention times the attention that the position pays, along a residual channel the value that is written. Norms
are between what is written and what is read; they are not in the links. A layer is a sublayer (attention of block l is
2l, its MLP 2l + 1), a feature a channel of one of the sublayer's sites.
"""

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from sparse_gpt.config import NODE_SITES, WRITES
from sparse_gpt.drawing.graph import Graph
from sparse_gpt.io import Tree
from sparse_gpt.records import Circuit, Labels, Node, Traces, converted
from sparse_gpt.records.base import Part
from sparse_gpt.records.traces import Sample

Text = Annotated[str, Meta(min_length=1)]
SITES = tuple(tuple(site for site in NODE_SITES if site.startswith(sublayer)) for sublayer in ("attn", "mlp"))


class GraphNode(Part):
    """A node at one position."""

    node_id: Text
    feature: int | None
    layer: str
    ctx_idx: Annotated[int, Meta(ge=0)]
    feature_type: Text
    jsNodeId: Text
    clerp: str
    token_prob: float = 0.0
    is_target_logit: bool = False
    influence: float | None
    activation: float | None


class GraphLink(Part):
    """What one brings to another."""

    source: Text
    target: Text
    weight: float


class Metadata(Part):
    """What the graph is of."""

    slug: Text
    scan: Text
    prompt: str
    prompt_tokens: list[str]
    schema_version: int
    info: Tree


class Parameters(Part):
    """What is shown at first."""

    pinnedIds: list[str]
    supernodes: list[list[str]]
    linkType: str
    clickedId: str


class AttributionGraph(Part):
    """The file. That of quickstart's quote circuit (155 nodes, 302 links) was valid by the JSON Schema that Neuronpedia
    checks uploads with; a test holds what is written to what that asks for."""

    metadata: Metadata
    qParams: Parameters
    nodes: list[GraphNode]
    links: list[GraphLink]


class _At(NamedTuple):
    """A node at a position."""

    node: Node
    position: int


def attribution_graph(
    graph: Graph, circuit: Circuit, traces: Traces, labels: Labels | None, model: str, sample: int = 0
) -> Tree:
    """The plain object of one sample's graph, without nodes that are zero and links that bring nothing.

    Args:
      graph: of the circuit with its traces.
      circuit: of it.
      traces: with values, attention and the entries of embedding and unembedding.
      labels: names that people gave.
      model: its name.
      sample: which of the prompts.
    """
    shown = traces.samples[sample]
    prompt = _Prompt(graph, traces, shown, labels)
    links = [link for link in prompt.links() if link.weight]
    joined = {end for link in links for end in (link.source, link.target)}
    nodes = [node for node in prompt.nodes() if node.node_id in joined or node.feature_type == "logit"]
    info = {"generator": {"name": "sparse_gpt"}, "description": _description(circuit, labels)}
    metadata = Metadata(
        slug=f"{circuit.task}-{sample}",
        scan=model,
        prompt="".join(shown.tokens),
        prompt_tokens=list(shown.tokens),
        schema_version=1,
        info=info,
    )
    supernodes = prompt.supernodes({node.node_id for node in nodes})
    pinned = [end for group in supernodes for end in group[1:]]
    file = AttributionGraph(
        metadata=metadata,
        qParams=Parameters(pinnedIds=pinned, supernodes=supernodes, linkType="both", clickedId=""),
        nodes=nodes,
        links=links,
    )
    tree: Tree = msgspec.to_builtins(file)
    for node in tree["nodes"]:  # which the format wants everywhere, also where they say nothing
        node.setdefault("token_prob", 0.0)
        node.setdefault("is_target_logit", False)
    converted(tree, AttributionGraph)
    return tree


def _description(circuit: Circuit, labels: Labels | None) -> str:
    size = f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges"
    told = f"Circuit of {circuit.task} in a weight-sparse transformer: {size}."
    return f"{told} {labels.reading}" if labels and labels.reading else told


class _Prompt:
    """One prompt's nodes and links."""

    def __init__(self, graph: Graph, traces: Traces, sample: Sample, labels: Labels | None) -> None:
        self.graph, self.traces, self.sample, self.labels = graph, traces, sample, labels
        self.names = labels.by_key if labels else {}
        self.values = {node: sample.values.get(node.key, ()) for node in graph.nodes}
        self.last = len(sample.tokens) - 1
        self.logit_layer = str(2 * (1 + max((node.layer for node in graph.nodes), default=0)))

    def value(self, at: _At) -> float:
        row = self.values[at.node]
        return (row[at.position] or 0.0) if at.position < len(row) else 0.0

    def feature(self, node: Node) -> int:
        """The channel, counted on through the sites of its sublayer."""
        sites = next(sites for sites in SITES if node.site in sites)
        return sum(self.traces.site_widths.get(site, 0) for site in sites[: sites.index(node.site)]) + node.channel

    def layer(self, node: Node) -> str:
        return str(2 * node.layer + node.site.startswith("mlp"))

    def id(self, at: _At) -> str:
        return f"{self.layer(at.node)}_{self.feature(at.node)}_{at.position}"

    def nodes(self) -> list[GraphNode]:
        found = [self._token(position) for position in range(self.last + 1)]
        for node in self.graph.nodes:
            for position in range(self.last + 1):
                if value := self.value(_At(node, position)):
                    found.append(self._node(_At(node, position), value))
        return [*found, *self._logits()]

    def _node(self, at: _At, value: float) -> GraphNode:
        name = self.names.get(at.node.key, f"layer {at.node.layer} {at.node.site} {at.node.channel}")
        layer, feature = self.layer(at.node), self.feature(at.node)
        return GraphNode(
            node_id=self.id(at),
            feature=feature,
            layer=layer,
            ctx_idx=at.position,
            feature_type="cross layer transcoder",
            jsNodeId=f"{layer}_{feature}-{at.position}",
            clerp=name,
            influence=None,
            activation=value,
        )

    def _token(self, position: int) -> GraphNode:
        text = self.sample.tokens[position]
        return GraphNode(
            node_id=f"E_{position}",
            feature=position,
            layer="E",
            ctx_idx=position,
            feature_type="embedding",
            jsNodeId=f"E_{position}-{position}",
            clerp=f'Emb: "{text}"',
            influence=None,
            activation=None,
        )

    def _logits(self) -> Iterator[GraphNode]:
        """Answer and foil, with their shares of both."""
        by = self.sample.logit_difference_circuit or 0.0
        larger = 1 / (1 + math.exp(-abs(by)))  # the exponential of a positive number would overflow
        share = larger if by >= 0 else 1 - larger
        for number, (text, part) in enumerate(((self.sample.answer, share), (self.sample.foil, 1 - share))):
            yield GraphNode(
                node_id=self.logit_id(number),
                feature=number,
                layer=self.logit_layer,
                ctx_idx=self.last,
                feature_type="logit",
                jsNodeId=f"L_{number}-{self.last}",
                clerp=f'Output "{text}" ({part:.3f} of answer and foil)',
                token_prob=part,
                is_target_logit=number == 0,
                influence=None,
                activation=None,
            )

    def logit_id(self, number: int) -> str:
        return f"{self.logit_layer}_{number}_{self.last}"

    def links(self) -> Iterator[GraphLink]:
        yield from self._embedding()
        by_key = {node.key: node for node in self.graph.nodes}
        for edge in self.graph.edges:
            if edge.kind == "block":
                yield from self._block(by_key[edge.source], by_key[edge.target], edge.weight)
        for channel in self.graph.channels:
            for a, b in channel.links:
                if a in by_key and b in by_key:
                    yield from self._same_place(by_key[a], by_key[b], 1.0)
        yield from self._unembedding()

    def _link(self, source: _At, target: _At, factor: float) -> GraphLink:
        brings = factor * self.value(source) if self.value(target) else 0.0
        return GraphLink(source=self.id(source), target=self.id(target), weight=brings)

    def _same_place(self, source: Node, target: Node, factor: float) -> Iterator[GraphLink]:
        for position in range(self.last + 1):
            yield self._link(_At(source, position), _At(target, position), factor)

    def _block(self, source: Node, target: Node, weight: float) -> Iterator[GraphLink]:
        if source.site != "attn_v":
            yield from self._same_place(source, target, weight)
            return
        pattern = self.sample.attention.get(f"{source.layer}.{self.graph.head(source)}", ())
        for position, row in enumerate(pattern):
            for seen, share in enumerate(row[: position + 1]):
                if share:
                    yield self._link(_At(source, seen), _At(target, position), weight * share)

    def _embedding(self) -> Iterator[GraphLink]:
        entries = {(entry.token, entry.channel): entry.weight for entry in self.traces.embedding}
        readers = {c.index: [b for a, b in c.links if a.startswith("embed:")] for c in self.graph.channels}
        by_key = {node.key: node for node in self.graph.nodes}
        for position, text in enumerate(self.sample.tokens):
            for channel, reading in readers.items():
                weight = entries.get((text, channel))
                for key in reading if weight else ():
                    if key in by_key and self.value(_At(by_key[key], position)):
                        target = self.id(_At(by_key[key], position))
                        yield GraphLink(source=f"E_{position}", target=target, weight=weight or 0.0)

    def _unembedding(self) -> Iterator[GraphLink]:
        entries = {(entry.token, entry.channel): entry.weight for entry in self.traces.unembedding}
        for node in self.graph.nodes:
            if node.site not in WRITES:
                continue
            for number, text in enumerate((self.sample.answer, self.sample.foil)):
                weight = entries.get((text, node.channel), 0.0)
                brings = weight * self.value(_At(node, self.last))
                if brings:
                    source = self.id(_At(node, self.last))
                    yield GraphLink(source=source, target=self.logit_id(number), weight=brings)

    def supernodes(self, known: set[str]) -> list[list[str]]:
        """Groups that people made, each a name and the ids of its members, wherever in the prompt."""
        found = []
        for group in self.labels.groups if self.labels else ():
            members = [self.id(_At(node, p)) for node in group.nodes for p in range(self.last + 1)]
            present = [member for member in members if member in known]
            if present:
                found.append([group.name, *present])
        return found
