"""Edges as curves, and where along its curve each weight can be written without covering anything."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from sparse_gpt.drawing.graph import DrawnEdge
from sparse_gpt.drawing.layout import NODE_HEIGHT, Box
from sparse_gpt.drawing.text import weight

CHARACTER, LINE = 5.9, 11.0  # size of one character of a label
STEPS = (0.5, 0.4, 0.6, 0.32, 0.68, 0.25, 0.75, 0.19, 0.81)  # places tried, as fractions of the way

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """An edge from the right side of one box to the left side of another, as a cubic Bézier curve."""

    edge: DrawnEdge
    start: Point
    end: Point

    @property
    def path(self) -> str:
        (x0, y0), (x1, y1) = self.start, self.end
        bend = (x1 - x0) * 0.45
        return f"M{x0:.1f} {y0:.1f}C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"

    def at(self, t: float) -> Point:
        """The point at parameter t in [0, 1]."""
        (x0, y0), (x1, y1) = self.start, self.end
        bend = (x1 - x0) * 0.45
        xs, ys = (x0, x0 + bend, x1 - bend, x1), (y0, y0, y1, y1)
        factors = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        return sum(f * x for f, x in zip(factors, xs, strict=True)), sum(
            f * y for f, y in zip(factors, ys, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Label:
    """A written weight, centered at x, y. `shown` is False if it found no free place: it appears on hover only."""

    text: str
    x: float
    y: float
    shown: bool


@dataclasses.dataclass(frozen=True)
class _Area:
    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: "_Area") -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def curves(edges: Iterable[DrawnEdge], boxes: dict[str, Box]) -> list[Curve]:
    """One curve per edge. Edges that share an end of a box fan out over its height, in the order of their far ends."""
    edges = list(edges)
    leaving: dict[str, list[DrawnEdge]] = {}
    arriving: dict[str, list[DrawnEdge]] = {}
    for edge in edges:
        leaving.setdefault(edge.source, []).append(edge)
        arriving.setdefault(edge.target, []).append(edge)
    result = []
    for edge in edges:
        source, target = boxes[edge.source], boxes[edge.target]
        out = _fan(edge, sorted(leaving[edge.source], key=lambda w: boxes[w.target].y), source)
        into = _fan(edge, sorted(arriving[edge.target], key=lambda w: boxes[w.source].y), target)
        result.append(Curve(edge, (source.right, source.y + out), (target.left, target.y + into)))
    return result


def _fan(edge: DrawnEdge, siblings: list[DrawnEdge], box: Box) -> float:
    """Offset of an edge's end from the middle of its box."""
    room = 0.0 if box.kind == "port" else NODE_HEIGHT - 8
    if len(siblings) < 2 or not room:
        return 0.0
    step = min(5.0, room / (len(siblings) - 1))
    return (siblings.index(edge) - (len(siblings) - 1) / 2) * step


def place_labels(drawn: Sequence[Curve], boxes: Iterable[Box]) -> dict[DrawnEdge, Label]:
    """A label for every edge, the heaviest first. A place on a box or another label is refused; among the others the
    one that fewest edges run through wins."""
    taken, trails = _Taken(), _Trails(drawn)
    for b in boxes:
        taken.add(_Area(b.left, b.y - NODE_HEIGHT / 2, b.right, b.y + NODE_HEIGHT / 2))
    labels = {}
    for curve in sorted(drawn, key=lambda c: -abs(c.edge.weight)):
        text = weight(curve.edge.weight)
        areas = [_area(curve.at(t), text) for t in STEPS]
        free = [area for area in areas if not taken.meets(area)]
        best = min(free or areas, key=lambda area: (trails.through(area), areas.index(area)))
        labels[curve.edge] = Label(text, (best.x0 + best.x1) / 2, (best.y0 + best.y1) / 2, bool(free))
        if free:
            taken.add(best)
    return labels


def _area(center: Point, text: str) -> _Area:
    half = CHARACTER * len(text) / 2 + 1
    return _Area(center[0] - half, center[1] - LINE / 2, center[0] + half, center[1] + LINE / 2)


class _Taken:
    """Areas that hold something, filed by the bands of the height of a box that they reach into."""

    def __init__(self) -> None:
        self.bands: dict[int, list[_Area]] = {}

    def add(self, area: _Area) -> None:
        for band in self._reached(area):
            self.bands.setdefault(band, []).append(area)

    def meets(self, area: _Area) -> bool:
        return any(area.meets(other) for band in self._reached(area) for other in self.bands.get(band, ()))

    @staticmethod
    def _reached(area: _Area) -> range:
        return range(int(area.y0 // NODE_HEIGHT), int(area.y1 // NODE_HEIGHT) + 1)


class _Trails:
    """Points along all edges, sorted by height."""

    def __init__(self, drawn: Sequence[Curve]) -> None:
        points = np.array([curve.at(i / 40) for curve in drawn for i in range(41)]).reshape(-1, 2)
        order = np.argsort(points[:, 1])
        self.x, self.y = points[order].T
        self.edge = order // 41

    def through(self, area: _Area) -> int:
        """How many edges run through `area`."""
        near = slice(np.searchsorted(self.y, area.y0), np.searchsorted(self.y, area.y1, side="right"))
        x = self.x[near]
        return len(set(self.edge[near][(x >= area.x0) & (x <= area.x1)].tolist()))
