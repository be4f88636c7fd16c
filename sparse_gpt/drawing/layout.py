"""Coordinates of a circuit drawing, in CSS pixels, x to the right and y down.

Columns follow the forward pass from left to right; only columns that hold something are drawn. Rows come from
`placement`: one per residual channel, with heads and neurons between them.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from sparse_gpt.config import READS
from sparse_gpt.drawing.graph import DEPTH, HEAD_PARTS, Graph, ResidualChannel
from sparse_gpt.drawing.placement import Join, Span, Unit, place
from sparse_gpt.drawing.text import visible_token
from sparse_gpt.records import Node

ROW = 34  # height of a row
NODE_HEIGHT = 20
HEADER = 56  # column titles and sublayer titles
MARGIN = 14
FRAME_RIGHT = 22  # room right of q, k and v for the head's name and the brackets of q-k pairs
TOKEN_CHARACTERS = 12
LEGIBLE = 100  # edges between two columns that can be told apart; of more, the lighter ones are drawn pale
LINK_GAP = 28  # between columns that no edge joins
TITLES = {0: "reads", 1: "q, k, v", 2: "writes", 3: "reads", 4: "neurons", 5: "writes"}

Column = tuple[int, int]  # (layer, depth); see the constants for the four outer columns
TOKENS, EMBED, UNEMBED, ANSWERS = (-2, 0), (-1, 0), (10**6, 0), (10**6, 1)


@dataclasses.dataclass(frozen=True)
class Box:
    """A placed node, token, answer or port; `x` and `y` are its center."""

    key: str
    label: str
    kind: str  # a node site, "token", "answer" or "port"
    x: float
    y: float
    width: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@dataclasses.dataclass(frozen=True)
class Frame:
    """The outline of an attention head: its title, corners, and the (q, k) pairs of node keys that are multiplied."""

    title: str
    x: float
    y: float
    width: float
    height: float
    pairs: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title centered at `x`; `left` and `right` are the extent of the column or sublayer that it names."""

    title: str
    x: float
    left: float
    right: float


@dataclasses.dataclass(frozen=True)
class Layout:
    """All that is needed to draw."""

    width: float
    height: float
    boxes: dict[str, Box]
    frames: tuple[Frame, ...]
    columns: tuple[Heading, ...]
    sublayers: tuple[Heading, ...]


def lay_out(graph: Graph) -> Layout:
    """Places everything in `graph`."""
    columns = _columns(graph)
    index = {column: i for i, column in enumerate(columns)}
    rows = _rows(graph, index)
    centers, widths, total = _horizontal(graph, columns)
    top = HEADER + MARGIN + NODE_HEIGHT / 2
    boxes = {
        key: Box(key, label, kind, centers[column], top + rows[key] * ROW, widths[column])
        for key, label, kind, column in _items(graph)
    }
    bottom = max((box.y for box in boxes.values()), default=top) + NODE_HEIGHT + MARGIN
    headings = tuple(
        Heading(
            _column_title(column),
            centers[column],
            centers[column] - widths[column] / 2,
            centers[column] + widths[column] / 2,
        )
        for column in columns
        if column not in (EMBED, UNEMBED)
    )
    return Layout(total, bottom, boxes, tuple(_frames(graph, boxes)), headings, _sublayers(columns, centers, widths))


def _items(graph: Graph) -> Iterable[tuple[str, str, str, Column]]:
    """(key, label, kind, column) of everything that gets a box."""
    for key, token in graph.tokens.items():
        yield key, visible_token(token, TOKEN_CHARACTERS), "token", TOKENS
    for node in graph.nodes:
        prefix = {"attn_q": "q ", "attn_k": "k ", "attn_v": "v "}.get(node.site, "")
        shown = node.channel
        if graph.d_model and node.site in READS and node.channel >= graph.d_model:
            prefix, shown = "pos ", node.channel - graph.d_model
        yield node.key, f"{prefix}{shown}", node.site, (node.layer, DEPTH[node.site])
    for channel in graph.channels:
        for step in channel.steps:
            if step.startswith(("embed:", "unembed:")):
                yield step, str(channel.index), "port", EMBED if step.startswith("embed:") else UNEMBED
    for key, token in graph.answers.items():
        yield key, visible_token(token, TOKEN_CHARACTERS), "answer", ANSWERS


def _columns(graph: Graph) -> list[Column]:
    return sorted({column for *_, column in _items(graph)})


def _rows(graph: Graph, index: dict[Column, int]) -> dict[str, float]:
    """Row of every key: residual nodes and ports on their channel's row, the rest where `place` puts them."""
    column_of = {key: index[column] for key, _, _, column in _items(graph)}
    channel_of = {step: f"channel:{channel.index}" for channel in graph.channels for step in channel.steps}
    spans = [_span(channel, column_of) for channel in graph.channels]
    units = [Unit(column_of[members[0]], members, True) for members in _stacks(graph)]
    units += [Unit(column_of[key], (key,), False) for key in (*graph.tokens, *graph.answers)]
    joins = [
        Join(channel_of.get(w.source, w.source), channel_of.get(w.target, w.target), column_of[w.source])
        for w in graph.edges
    ]
    rows = place(spans, units, joins)
    return {key: rows[channel_of.get(key, key)] for key in column_of}


def _span(channel: ResidualChannel, column_of: dict[str, int]) -> Span:
    places = [column_of[step] for step in channel.steps]
    return Span(f"channel:{channel.index}", min(places), max(places))


def _stacks(graph: Graph) -> list[tuple[str, ...]]:
    """Keys of the nodes that stay together: every neuron alone, the q, k and v of a head as one stack."""
    stacks = [(node.key,) for node in graph.nodes if node.site == "mlp_neuron"]
    return stacks + [tuple(node.key for node in nodes) for nodes in _heads(graph).values()]


def _heads(graph: Graph) -> dict[tuple[int, int], list[Node]]:
    """Nodes of every head, q beside the k of the same channel, v last. Without d_head a channel stands for its head."""
    heads: dict[tuple[int, int], list[Node]] = {}
    for node in graph.nodes:
        if node.site in HEAD_PARTS:
            head = graph.head(node) if graph.d_head else node.channel
            heads.setdefault((node.layer, head), []).append(node)
    for nodes in heads.values():
        q = {node.channel for node in nodes if node.site == "attn_q"}
        paired = q & {node.channel for node in nodes if node.site == "attn_k"}
        nodes.sort(key=lambda n: (n.site == "attn_v", n.channel not in paired, n.channel, n.site != "attn_q"))
    return heads


def _frames(graph: Graph, boxes: dict[str, Box]) -> Iterable[Frame]:
    for (_, head), nodes in sorted(_heads(graph).items()):
        members = {(node.site, node.channel): node.key for node in nodes}
        pairs = [
            (key, members["attn_k", channel])
            for (site, channel), key in members.items()
            if site == "attn_q" and ("attn_k", channel) in members
        ]
        if not graph.d_head and not pairs:
            continue
        ys = [boxes[node.key].y for node in nodes]
        box = boxes[nodes[0].key]
        top, bottom = min(ys) - NODE_HEIGHT / 2 - 5, max(ys) + NODE_HEIGHT / 2 + 5
        title = f"h{head}" if graph.d_head else ""
        yield Frame(title, box.left - 6, top, box.width + FRAME_RIGHT + 6, bottom - top, tuple(pairs))


def _horizontal(graph: Graph, columns: list[Column]) -> tuple[dict[Column, float], dict[Column, float], float]:
    """Center and width of every column, and the total width. Gaps that edges cross are wide, for their labels."""
    widths = dict.fromkeys(columns, 46.0) | {EMBED: 8.0, UNEMBED: 8.0}
    for column, terminals in ((TOKENS, graph.tokens), (ANSWERS, graph.answers)):
        longest = max((len(visible_token(token, TOKEN_CHARACTERS)) for token in terminals.values()), default=0)
        widths[column] = 18 + 7.3 * max(longest, 3)
    column_of = {key: column for key, _, _, column in _items(graph)}
    edges = Counter(column_of[edge.source] for edge in graph.edges)
    centers: dict[Column, float] = {}
    x = float(MARGIN)
    for name, members in _sublayer_columns(columns).items():
        start = x
        for column in members:
            centers[column] = x + widths[column] / 2
            gap = 64 + min(36, 1.6 * edges[column]) if column in edges else LINK_GAP
            gap += min(100, max(0, edges[column] - LEGIBLE))  # steep edges cannot be told apart
            frame = FRAME_RIGHT if column[1] == 1 and column != ANSWERS else 0  # the brackets of a head's q-k pairs
            x += widths[column] + gap + frame
        last = members[-1]
        lacking = 7.6 * len(name) - (centers[last] + widths[last] / 2 - start)
        if lacking > 0:  # a title wider than its columns
            for column in members:
                centers[column] += lacking / 2
            x += lacking
    return centers, widths, x - LINK_GAP + MARGIN


def _column_title(column: Column) -> str:
    return {TOKENS: "tokens", ANSWERS: "logits"}.get(column) or TITLES[column[1]]


def _sublayer_columns(columns: list[Column]) -> dict[str, list[Column]]:
    """Columns by the sublayer they belong to, from left to right."""
    groups: dict[str, list[Column]] = {}
    for column in columns:
        layer, depth = column
        if layer < 0:
            name = "embedding"
        elif layer == UNEMBED[0]:
            name = "unembedding"
        else:
            name = f"layer {layer} " + ("attention" if depth < 3 else "MLP")
        groups.setdefault(name, []).append(column)
    return groups


def _sublayers(columns: list[Column], centers: dict[Column, float], widths: dict[Column, float]) -> tuple[Heading, ...]:
    """Titles over the columns of each sublayer, and over the embedding and unembedding."""
    headings = []
    for name, members in _sublayer_columns(columns).items():
        left, right = centers[members[0]] - widths[members[0]] / 2, centers[members[-1]] + widths[members[-1]] / 2
        headings.append(Heading(name, (left + right) / 2, left, right))
    return tuple(headings)
