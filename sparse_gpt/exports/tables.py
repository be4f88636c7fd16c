"""Nodes and edges as CSV, and both as GraphML (http://graphml.graphdrawing.org)."""

import csv
import io
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from sparse_gpt.drawing.graph import Graph
from sparse_gpt.records import Circuit, Labels
from sparse_gpt.visible import visible

NODE_COLUMNS = ("id", "kind", "layer", "site", "channel", "head", "token", "label", "group")
EDGE_COLUMNS = ("source", "target", "kind", "weight")
NUMBERS = {"layer": "int", "channel": "int", "head": "int", "weight": "double"}


def node_table(graph: Graph, labels: Labels | None) -> str:
    """CSV of nodes and of the tokens that they are joined to; texts as people see them (line breaks as ↵)."""
    return _csv(NODE_COLUMNS, node_rows(graph, labels))


def edge_table(graph: Graph) -> str:
    """CSV of edges: weights between nodes ("block"), entries of embedding and unembedding, and residual channels that
    join what is written with what reads it later ("residual", without a weight)."""
    return _csv(EDGE_COLUMNS, edge_rows(graph))


def node_rows(graph: Graph, labels: Labels | None) -> Iterator[dict[str, object]]:
    """One row per node, token and logit; what a row does not have is missing."""
    names, groups = (labels.by_key, labels.group_by_key) if labels else ({}, {})
    for node in graph.nodes:
        row: dict[str, object] = {"id": node.key, "kind": "node", **node._asdict()}
        if (head := graph.head(node)) >= 0:
            row["head"] = head
        if node.key in names:
            row["label"] = names[node.key]
        if node.key in groups:
            row["group"] = groups[node.key]
        yield row
    for kind, listed in (("token", graph.tokens), ("logit", graph.answers)):
        for key, text in listed.items():
            yield {"id": key, "kind": kind, "token": visible(text)}


def edge_rows(graph: Graph) -> Iterator[dict[str, object]]:
    """One row per edge. The places where a channel begins and ends are left out: tokens are joined to nodes."""
    readers = {f"embed:{c.index}": [b for a, b in c.links if a.startswith("embed:")] for c in graph.channels}
    writers = {f"unembed:{c.index}": [a for a, b in c.links if b.startswith("unembed:")] for c in graph.channels}
    for edge in graph.edges:
        for source in writers.get(edge.source, [edge.source]):
            for target in readers.get(edge.target, [edge.target]):
                if not source.startswith("embed:") and not target.startswith("unembed:"):
                    yield {"source": source, "target": target, "kind": edge.kind, "weight": edge.weight}
    for channel in graph.channels:
        for a, b in channel.links:
            if not a.startswith("embed:") and not b.startswith("unembed:"):
                yield {"source": a, "target": b, "kind": "residual"}


def graphml(graph: Graph, circuit: Circuit, labels: Labels | None) -> str:
    """The directed graph as GraphML, every column of the tables as an attribute."""
    root = ElementTree.Element("graphml", {"xmlns": "http://graphml.graphdrawing.org/xmlns"})
    ElementTree.SubElement(root, "desc").text = _xml(
        f"Circuit of {circuit.task}. {labels.reading if labels else ''}".strip()
    )
    for kind, columns in (("node", NODE_COLUMNS[1:]), ("edge", EDGE_COLUMNS[2:])):
        for name in columns:
            about = {"id": f"{kind}_{name}", "for": kind, "attr.name": name, "attr.type": NUMBERS.get(name, "string")}
            ElementTree.SubElement(root, "key", about)
    drawn = ElementTree.SubElement(root, "graph", {"id": "circuit", "edgedefault": "directed"})
    for row in node_rows(graph, labels):
        element = ElementTree.SubElement(drawn, "node", {"id": str(row["id"])})
        _data(element, "node", row, NODE_COLUMNS[1:])
    for number, row in enumerate(edge_rows(graph)):
        ends = {"id": f"e{number}", "source": str(row["source"]), "target": str(row["target"])}
        _data(ElementTree.SubElement(drawn, "edge", ends), "edge", row, EDGE_COLUMNS[2:])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _data(element: ElementTree.Element, kind: str, row: dict[str, object], columns: Sequence[str]) -> None:
    for name in columns:
        if name in row:
            ElementTree.SubElement(element, "data", {"key": f"{kind}_{name}"}).text = _xml(str(row[name]))


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(c if c in "\t\n\r" or c.isprintable() else visible(c) for c in text)


def _csv(columns: Sequence[str], rows: Iterator[dict[str, object]]) -> str:
    held = io.StringIO()
    writer = csv.DictWriter(held, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue()
