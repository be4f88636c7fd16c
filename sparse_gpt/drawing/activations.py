"""What the nodes of a circuit do on sample prompts, as SVG: a grid of all nodes, and attention maps.

Samples come in pairs: 2i and 2i + 1 differ minimally and have each other's answer as foil.
"""

from collections.abc import Iterable, Sequence

from sparse_gpt.drawing.graph import Graph
from sparse_gpt.drawing.text import escape, short_name, visible_token, weight
from sparse_gpt.records import Node
from sparse_gpt.records.traces import Sample

LINE, NAME_WIDTH, GRID_WIDTH = 16, 118, 1050  # of the grid, in pixels
FAINTEST = 0.02  # cells below this fraction of the darkest are not drawn


def activation_grid(graph: Graph, samples: Sequence[Sample]) -> str:
    """SVG: one row per node, one column per token of the samples side by side, colored by sign and relative size.

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


def attention_maps(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """Layer, head and small maps of every head, one map per sample: a row per query (where it looks from), a column per
    key (where it looks)."""
    maps = []
    for head in sorted({head for sample in samples for head in sample.attention}, key=_head_order):
        layer, _, index = head.partition(".")
        drawn = (_attention_map(s.tokens, s.attention[head]) for s in samples if head in s.attention)
        maps.append((layer, index, "".join(drawn)))
    return maps


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
