"""What script.js needs to show one node of a circuit at a time."""

from collections.abc import Sequence

from sparse_gpt.drawing.graph import Graph
from sparse_gpt.drawing.svg import SITE_NAMES, responds_to
from sparse_gpt.drawing.text import number, short_name, visible_token, weight
from sparse_gpt.records import Node, Traces
from sparse_gpt.records.traces import Sample


def node_data(graph: Graph, traces: Traces | None) -> dict[str, object]:
    """What script.js needs for one circuit: a description of every node and, with traces, its value at every token."""
    names = {node.key: short_name(node) for node in graph.nodes}
    terminals = {key: f"‹{visible_token(token, 14)}›" for key, token in {**graph.tokens, **graph.answers}.items()}
    before, after = _joins(graph, names)
    samples = traces.samples if traces else ()
    return {
        "nodes": [
            {
                "key": node.key,
                "name": short_name(node),
                "title": f"Layer {node.layer}: {SITE_NAMES[node.site]} {node.channel}",
                "edges": before[node.key] + after[node.key],
                "responds": responds_to(node.key, traces),
                "values": [[_rounded(v) for v in sample.values.get(node.key, ())] for sample in samples],
            }
            for node in graph.nodes
        ],
        "terminals": terminals,
        "samples": [_sample_data(sample) for sample in samples],
        "first": first_choice(graph, samples),
    }


def _joins(graph: Graph, names: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What comes into every node and what leaves it, in words; what joins a node to embedding and unembedding is drawn
    only."""
    before: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    after: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in sorted(graph.edges, key=lambda w: -abs(w.weight)):
        if edge.kind == "block":
            before[edge.target].append(f"from {names[edge.source]} {weight(edge.weight)}")
            after[edge.source].append(f"to {names[edge.target]} {weight(edge.weight)}")
    for writer, reader in (link for channel in graph.channels for link in channel.links):
        if writer in names and reader in names:
            before[reader].append(f"written by {names[writer]}")
            after[writer].append(f"read by {names[reader]}")
    return before, after


def _sample_data(sample: Sample) -> dict[str, object]:
    return {
        "tokens": [visible_token(token) for token in sample.tokens],
        "split": sample.split,
        "answer": visible_token(sample.answer),
        "foil": visible_token(sample.foil),
        "full": number(sample.logit_difference_full),
        "circuit": number(sample.logit_difference_circuit),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def first_choice(graph: Graph, samples: Sequence[Sample]) -> str:
    """The node to show before the reader chooses one: the neuron, or failing that any node, that differs most within
    the first pair, relative to its size."""
    if len(samples) < 2:
        return graph.nodes[0].key if graph.nodes else ""

    def contrast(node: Node) -> tuple[bool, float]:
        rows = [[v or 0.0 for v in sample.values.get(node.key, ())] for sample in samples[:2]]
        size = max((abs(v) for row in rows for v in row), default=0.0)
        apart = max((abs(a - b) for a, b in zip(*rows, strict=False)), default=0.0)
        return node.site == "mlp_neuron" and apart > 0, apart / size if size else 0.0

    return max(graph.nodes, key=contrast).key if graph.nodes else ""
