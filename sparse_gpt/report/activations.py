"""What the nodes of a circuit do on sample prompts: a grid of all nodes, attention maps, data for the node browser.

Samples come in pairs: 2i and 2i + 1 differ minimally and have each other's answer as foil.
"""

from collections.abc import Iterable, Sequence

from sparse_gpt.drawing.graph import Graph
from sparse_gpt.drawing.svg import SITE_NAMES, responds_to
from sparse_gpt.drawing.text import escape, number, visible_token, weight
from sparse_gpt.records import Node, Traces
from sparse_gpt.records.traces import Sample

LINE, NAME_WIDTH, GRID_WIDTH = 16, 118, 1050  # of the grid, in pixels
FAINTEST = 0.02  # cells below this fraction of the darkest are not drawn


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
                "wires": before[node.key] + after[node.key],
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
    for wire in sorted(graph.wires, key=lambda w: -abs(w.weight)):
        if wire.kind == "block":
            before[wire.target].append(f"from {names[wire.source]} {weight(wire.weight)}")
            after[wire.source].append(f"to {names[wire.target]} {weight(wire.weight)}")
    for writer, reader in (link for lane in graph.lanes for link in lane.links):
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


def short_name(node: Node) -> str:
    """A name that fits a table: "L0 mlp_neuron 201"."""
    return f"L{node.layer} {node.site} {node.channel}"


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


def activation_grid(graph: Graph, samples: Sequence[Sample]) -> str:
    """SVG: one row per node, one column per token of the samples side by side, coloured by sign and relative size.

    Each row has its own scale: the node's largest magnitude over the samples, written at its end. Tokens that differ
    between the samples are underlined.
    """
    cell = max(11, min(20, GRID_WIDTH // max(1, sum(len(sample.tokens) for sample in samples))))
    longest = max((len(visible_token(t, 12)) for sample in samples for t in sample.tokens), default=0)
    top = 7.0 * longest + 14
    starts, x = [], NAME_WIDTH
    for sample in samples:
        starts.append(x)
        x += cell * len(sample.tokens) + 26
    width, height = x + 34, top + LINE * len(graph.nodes) + 8
    parts = [
        f'<svg class="grid" role="img" aria-label="activations of all nodes" width="{width}" height="{height:.0f}">'
    ]
    for sample, start in zip(samples, starts, strict=True):
        parts += _token_heads(sample, samples, start, top, cell)
    for row, node in enumerate(graph.nodes):
        parts.append(_grid_row(node, samples, starts, top + LINE * row, cell))
    return "".join([*parts, "</svg>"])


def _token_heads(sample: Sample, samples: Sequence[Sample], start: int, bottom: float, cell: int) -> Iterable[str]:
    for i, token in enumerate(sample.tokens):
        others = [other.tokens[i] for other in samples if i < len(other.tokens)]
        differs = " differs" if any(other != token for other in others) else ""
        x, y = start + cell * (i + 0.5), bottom - 6
        yield (
            f'<text class="token{differs}" transform="translate({x:.1f} {y:.1f}) rotate(-90)">'
            f"{escape(visible_token(token, 12))}<title>{escape(visible_token(token))}</title></text>"
        )


def _grid_row(node: Node, samples: Sequence[Sample], starts: Sequence[int], y: float, cell: int) -> str:
    rows = [sample.values.get(node.key, ()) for sample in samples]
    scale = max((abs(v) for row in rows for v in row if v is not None), default=0.0)
    middle = f'y="{y + LINE / 2:.1f}"'
    parts = [f'<g class="row" data-node="{node.key}"><text class="name" x="0" {middle}>{short_name(node)}</text>']
    for sample, row, start in zip(samples, rows, starts, strict=True):
        across = f'y="{y:.0f}" height="{LINE - 1}"'
        parts.append(f'<rect class="ground" x="{start}" {across} width="{cell * len(row)}"/>')
        for i, value in enumerate(row):
            share = abs(value) / scale if value and scale else 0.0
            if value is not None and share >= FAINTEST:
                parts.append(
                    f'<rect class="{"p" if value > 0 else "n"}" x="{start + cell * i}" {across} width="{cell - 1}" '
                    f'fill-opacity="{share:.2f}"><title>{escape(visible_token(sample.tokens[i]))} '
                    f"{weight(value)}</title></rect>"
                )
    end = starts[-1] + cell * len(rows[-1]) + 6
    parts.append(f'<text class="scale" x="{end}" {middle}>±{weight(scale)[1:]}</text></g>')
    return "".join(parts)


def attention_maps(samples: Sequence[Sample]) -> str:
    """One small map per head and sample: a row per query (where it looks from), a column per key (where it looks)."""
    heads = sorted({head for sample in samples for head in sample.attention}, key=_head_order)
    figures = []
    for head in heads:
        layer, _, index = head.partition(".")
        maps = "".join(_attention_map(s.tokens, s.attention[head]) for s in samples if head in s.attention)
        figures.append(
            f"<figure><figcaption>layer {escape(layer)}, head {escape(index)}</figcaption><div>{maps}</div></figure>"
        )
    return "".join(figures)


def _head_order(head: str) -> tuple[int, ...]:
    return tuple(int(part) for part in head.split(".") if part.isdigit())


def _attention_map(tokens: Sequence[str], pattern: Sequence[Sequence[float | None]]) -> str:
    cell = max(5, min(14, 300 // max(len(tokens), 1)))
    named = cell >= 9
    room = max(6.2 * len(visible_token(token, 8)) for token in tokens) + 8 if named else 4
    size = room + cell * len(tokens) + 2
    parts = [
        f'<svg class="attention" role="img" aria-label="attention pattern" width="{size:.0f}" height="{size:.0f}">'
    ]
    for i, token in enumerate(tokens if named else []):
        middle, text = room + cell * (i + 0.5), escape(visible_token(token, 8))
        parts.append(f'<text class="query" x="{room - 4:.1f}" y="{middle:.1f}">{text}</text>')
        parts.append(f'<text class="key" transform="translate({middle:.1f} {room - 4:.1f}) rotate(-90)">{text}</text>')
    for q, row in enumerate(pattern):
        y = room + cell * q
        parts.append(
            f'<rect class="ground" x="{room:.1f}" y="{y:.1f}" width="{cell * (q + 1) - 1}" height="{cell - 1}"/>'
        )
        for k, value in enumerate(row[: q + 1]):
            if value is not None and value >= FAINTEST:
                parts.append(
                    f'<rect class="p" x="{room + cell * k:.1f}" y="{y:.1f}" width="{cell - 1}" height="{cell - 1}" '
                    f'fill-opacity="{min(value, 1):.2f}"><title>{escape(visible_token(tokens[q]))} looks at '
                    f"{escape(visible_token(tokens[k]))}: {value:.2f}</title></rect>"
                )
    return "".join([*parts, "</svg>"])
