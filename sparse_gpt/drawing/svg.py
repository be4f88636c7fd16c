"""A circuit as an SVG picture that stands alone: styles inside, light and dark, no script and nothing to load.

In the report page, script.js adds highlighting; it finds nodes and edges by their classes ("node",
"wire") and data attributes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sparse_gpt.drawing.graph import MAX_TOKENS, DrawnEdge, Graph, build_graph
from sparse_gpt.drawing.labels import CHARACTER, LINE, Curve, Label, curves, place_labels
from sparse_gpt.drawing.layout import HEADER, LEGIBLE, NODE_HEIGHT, Box, Layout, lay_out
from sparse_gpt.drawing.text import escape, number, visible_token, weight
from sparse_gpt.io import Tree
from sparse_gpt.records import Circuit, Labels, Settings, Traces, read_circuit
from sparse_gpt.visible import SIGNS, visible

_STYLE = (Path(__file__).parent / "drawing.css").read_text(encoding="utf-8")
SITE_NAMES = {
    "attn_in": "attention reads residual channel",
    "attn_q": "attention query channel",
    "attn_k": "attention key channel",
    "attn_v": "attention value channel",
    "attn_out": "attention writes residual channel",
    "mlp_in": "MLP reads residual channel",
    "mlp_neuron": "MLP neuron",
    "mlp_out": "MLP writes residual channel",
}


def draw_circuit(
    circuit: Circuit | Tree, traces: Traces | Tree | None = None, d_head: int = 0, labels: Labels | None = None
) -> str:
    """SVG text of a circuit; with its traces also tokens, logits and what nodes respond to.

    Both are records, or the plain objects of circuit.json and traces.json. `d_head` (model.d_head of the run) groups q,
    k and v channels into heads when the traces do not say it. `labels` are names that people gave. Raises InputError if
    they are not as their formats say, or an edge joins what is not a node.
    """
    circuit = Circuit.of(circuit)
    traces = None if traces is None else Traces.of(traces)
    graph = build_graph(circuit, traces, d_head, MAX_TOKENS)
    layout = lay_out(graph)
    if not graph.nodes:
        layout = dataclasses.replace(layout, width=240.0, height=60.0)
    drawn = curves(graph.edges, layout.boxes)
    written = place_labels(drawn, layout.boxes.values())
    pale = pale_edges(drawn)
    heaviest = max((abs(edge.weight) for edge in graph.edges if edge.kind == "block"), default=1.0) or 1.0
    title = f"Circuit of {circuit.task}: {len(graph.nodes)} nodes, {len(circuit.edges)} edges"
    width, height = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="circuit-drawing" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="8"/>',
        *_headings(layout),
        *_links(graph, layout),
        *_frames(layout),
        *(_edge(curve, heaviest, curve.edge in pale) for curve in sorted(drawn, key=lambda c: abs(c.edge.weight))),
        *(_label(curve, written[curve.edge], curve.edge in pale) for curve in drawn),
        *_boxes(graph, layout, traces),
        *_given(labels, layout),
        *_pale_note(len(pale), layout),
        "" if graph.nodes else '<text x="120" y="30">This circuit has no nodes.</text>',
        "</svg>",
    ]
    return "\n".join(parts)


class CircuitDrawing:
    """A circuit's drawing, shown inline by notebooks."""

    def __init__(
        self,
        circuit: Circuit | Tree,
        traces: Traces | Tree | None = None,
        d_head: int = 0,
        labels: Labels | None = None,
    ) -> None:
        """Arguments as of `draw_circuit`."""
        self.svg = draw_circuit(circuit, traces, d_head, labels)

    @classmethod
    def load(cls, folder: str | Path) -> "CircuitDrawing":
        """The drawing of DIR/circuits/TASK. Raises InputError if its files are missing or broken."""
        files = read_circuit(Path(folder))
        settings = Settings.read_if_any(Path(folder).resolve().parent.parent / "config.json") or Settings()
        return cls(files.circuit, files.traces, settings.model.d_head or 0, files.labels)

    def save(self, path: str | Path) -> Path:
        """Writes the SVG file, for a README or a slide. Returns its path."""
        path = Path(path)
        path.write_text(self.svg, encoding="utf-8")
        return path

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{self.svg}</div>'


def _headings(layout: Layout) -> list[str]:
    parts = []
    for heading in layout.sublayers:
        parts.append(f'<text class="sublayer" x="{heading.x:.1f}" y="22">{escape(heading.title)}</text>')
        parts.append(f'<path class="rule" d="M{heading.left:.1f} 30H{heading.right:.1f}"/>')
    for column in layout.columns:
        parts.append(f'<text class="column" x="{column.x:.1f}" y="{HEADER - 16}">{escape(column.title)}</text>')
    return parts


def _links(graph: Graph, layout: Layout) -> list[str]:
    """Channels, as one dashed line per pair of neighboring steps that some write-to-read link runs over."""
    parts = []
    for channel in graph.channels:
        for i, (a, b) in enumerate(zip(channel.steps, channel.steps[1:], strict=False)):
            over = [f"{p}|{q}" for p, q in channel.links if channel.steps.index(p) <= i < channel.steps.index(q)]
            if over:
                start, end = layout.boxes[a], layout.boxes[b]
                parts.append(
                    f'<path class="link" data-links="{" ".join(over)}" '
                    f'd="M{start.right:.1f} {start.y:.1f}H{end.left:.1f}">'
                    f"<title>residual channel {channel.index}</title></path>"
                )
    return parts


def _frames(layout: Layout) -> list[str]:
    """Outlines of heads, with brackets that join the q and k channels that are multiplied with each other."""
    parts = []
    for frame in layout.frames:
        parts.append(
            f'<rect class="head" x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" '
            f'height="{frame.height:.1f}" rx="7"/>'
        )
        if frame.title:
            x, y = frame.x + frame.width - 4, frame.y + 8
            parts.append(f'<text class="head-title" x="{x:.1f}" y="{y:.1f}">{escape(frame.title)}</text>')
        for q, k in frame.pairs:
            x, y0, y1 = layout.boxes[q].right, layout.boxes[q].y, layout.boxes[k].y
            parts.append(
                f'<path class="pair" data-links="{q}|{k}" d="M{x:.1f} {y0:.1f}h7V{y1:.1f}h-7">'
                "<title>query times key: their sum over the head's channels decides where it looks</title></path>"
                f'<text class="times" x="{x + 7:.1f}" y="{(y0 + y1) / 2:.1f}">×</text>'
            )
    return parts


def pale_edges(drawn: Sequence[Curve]) -> set[DrawnEdge]:
    """All but the LEGIBLE heaviest of the edges that leave the same column.

    They are drawn so faintly that the others can be followed, without a number; the report shows them in full around
    the node that is pointed at.
    """
    leaving: dict[float, list[DrawnEdge]] = {}
    for curve in drawn:
        leaving.setdefault(curve.start[0], []).append(curve.edge)
    heaviest_first = (sorted(edges, key=lambda w: -abs(w.weight)) for edges in leaving.values())
    return {edge for edges in heaviest_first for edge in edges[LEGIBLE:]}


def _pale_note(count: int, layout: Layout) -> list[str]:
    if not count:
        return []
    note = f"Pale, without their numbers: {number(count)} weights not among the {LEGIBLE} largest between their columns"
    return [f'<text class="column" x="{layout.width / 2:.1f}" y="{layout.height - 12:.1f}">{note}</text>']


def _edge(curve: Curve, heaviest: float, pale: bool) -> str:
    edge = curve.edge
    width = 0.9 + 3.6 * min(1.0, abs(edge.weight) / heaviest)
    sign = "positive" if edge.weight >= 0 else "negative"
    faint = ' stroke-opacity="0.12"' if pale else ""
    return (
        f'<path class="wire {edge.kind} {sign}"{faint} data-from="{edge.source}" data-to="{edge.target}" '
        f'stroke-width="{width:.2f}" d="{curve.path}"><title>weight {weight(edge.weight)}</title></path>'
    )


def _label(curve: Curve, label: Label, pale: bool) -> str:
    edge = curve.edge
    sign = "positive" if edge.weight >= 0 else "negative"
    hidden = "" if label.shown and not pale else " crowded"
    half = CHARACTER * len(label.text) / 2
    return (
        f'<g class="weight {sign}{hidden}" data-from="{edge.source}" data-to="{edge.target}">'
        f'<rect x="{label.x - half:.1f}" y="{label.y - LINE / 2:.1f}" '
        f'width="{2 * half:.1f}" height="{LINE:.0f}" rx="3"/>'
        f'<text x="{label.x:.1f}" y="{label.y:.1f}">{label.text}</text></g>'
    )


def _boxes(graph: Graph, layout: Layout, traces: Traces | None) -> list[str]:
    names = {node.key: f"layer {node.layer}: {SITE_NAMES[node.site]} {node.channel}" for node in graph.nodes}
    names |= {key: f"token {visible_token(token)}" for key, token in graph.tokens.items()}
    names |= {key: f"logit of {visible_token(token)}" for key, token in graph.answers.items()}
    joined = {end for edge in graph.edges for end in (edge.source, edge.target)}
    joined |= {end for frame in layout.frames for pair in frame.pairs for end in pair}
    parts = []
    for key, box in layout.boxes.items():
        if box.kind == "port":
            parts.append(f'<circle class="port" data-node="{key}" cx="{box.x:.1f}" cy="{box.y:.1f}" r="3"/>')
            continue
        loose = "" if key in joined else " loose"
        responds = responds_to(key, traces)
        core = " core" if key in graph.core else ""
        title = names[key] + (f"\nstrongest on {responds}" if responds else "")
        title += "\nin the minimal circuit too" if core else ""
        parts.append(
            f'<g class="node {box.kind}{loose}{core}" data-node="{escape(key)}"><title>{escape(title)}</title>'
            f'{_shape(box)}<text x="{box.x:.1f}" y="{box.y:.1f}">{escape(box.label)}</text></g>'
        )
    return parts


def _given(labels: Labels | None, layout: Layout) -> list[str]:
    """Names of nodes below their boxes; of a node without, its group's, in brackets."""
    if labels is None:
        return []
    names = {key: f"[{name}]" for key, name in labels.group_by_key.items()} | labels.by_key
    return [
        f'<text class="given" data-of="{key}" x="{layout.boxes[key].x:.1f}" '
        f'y="{layout.boxes[key].y + NODE_HEIGHT / 2 + 6:.1f}">{escape(visible_label(name))}</text>'
        for key, name in names.items()
        if key in layout.boxes
    ]


def visible_label(name: str, most: int = 20) -> str:
    """A person's name for a node, short enough to stand below its box."""
    shown = visible(name).replace(SIGNS[" "], " ")
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _shape(box: Box) -> str:
    corner = {"token": 3, "answer": 3, "mlp_neuron": NODE_HEIGHT / 2}.get(box.kind, 5)
    return (
        f'<rect x="{box.left:.1f}" y="{box.y - NODE_HEIGHT / 2:.1f}" width="{box.width:.1f}" '
        f'height="{NODE_HEIGHT}" rx="{corner}"/>'
    )


def responds_to(node: str, traces: Traces | None, count: int = 3) -> str:
    """The distinct tokens of the samples at which a node's activation is largest in size, as "‹token› value, …"."""
    found: dict[str, float] = {}
    for sample in traces.samples if traces else ():
        for token, value in zip(sample.tokens, sample.values.get(node, ()), strict=False):
            if value is not None and abs(value) > abs(found.get(token, 0.0)):
                found[token] = value
    strongest = sorted(found.items(), key=lambda item: -abs(item[1]))[:count]
    return ", ".join(f"‹{visible_token(token, 14)}› {weight(value)}" for token, value in strongest)
