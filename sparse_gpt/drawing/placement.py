"""Vertical order of a drawing: which row each residual channel gets, and where heads and neurons sit between them.

Rows are whole numbers. Each residual channel has a row; channels whose spans of columns do not meet may share
one. Heads, neurons, tokens and answers are *units*: stacks of one or more slots placed near the mean row of what they
are joined to. Heads and neurons take half rows, so that no channel runs through a node that has nothing to do with it.
"""

import bisect
import dataclasses
import itertools
import random
from collections.abc import Sequence

RESTARTS = 6
DENSE = 0.78  # distance of tokens and answers, in rows
MAX_WORK = (
    3_000_000  # channels, nodes and edges looked at while single channels are moved: two or three seconds at most
)


@dataclasses.dataclass(frozen=True)
class Span:
    """A channel for placement: the columns it runs through, both included."""

    name: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Unit:
    """A stack of nodes in one column; `members` from top to bottom.

    `half` units are between rows, because channels pass through their column. All units of a column are alike in this.
    """

    column: int
    members: tuple[str, ...]
    half: bool


@dataclasses.dataclass(frozen=True)
class Join:
    """An edge for placement: a channel or a unit's member at either side, and the gap (a column number) between."""

    left: str
    right: str
    gap: int


Rows = dict[str, float]


class _Drawing:
    """What is to be placed, sorted once by what every evaluation of an order of channels asks for."""

    def __init__(self, spans: Sequence[Span], units: Sequence[Unit], joins: Sequence[Join]) -> None:
        self.spans = {span.name: span for span in spans}
        self.joins = joins
        self.columns = [[u for u in units if u.column == column] for column in sorted({u.column for u in units})]
        self.gaps = [[join for join in joins if join.gap == gap] for gap in sorted({join.gap for join in joins})]
        self.channels_of: dict[str, list[str]] = {}  # of every member of a unit, the channels that it is joined to
        for join in joins:
            for mine, other in ((join.left, join.right), (join.right, join.left)):
                if other in self.spans:
                    self.channels_of.setdefault(mine, []).append(other)
        self.size = len(spans) + sum(len(unit.members) for unit in units) + len(joins)


def place(spans: Sequence[Span], units: Sequence[Unit], joins: Sequence[Join]) -> Rows:
    """Row of every channel and every unit member, smallest 0. The same input always gives the same rows.

    Barycenter sweeps from several orders, then moving single channels while that shortens or uncrosses edges.
    """
    drawing = _Drawing(spans, units, joins)
    draw = random.Random(0)
    start = [span.name for span in sorted(spans, key=lambda s: (s.first, s.last, s.name))]
    best, best_cost = list(start), _arrange(start, drawing)[1]
    for _ in range(RESTARTS):
        order = list(start)
        for _ in range(12):
            rows, cost = _arrange(order, drawing)
            if cost < best_cost:
                best, best_cost = order, cost
            order = _barycenter(order, rows, joins)
        draw.shuffle(start)
    rows, _ = _arrange(_move_channels(best, best_cost, drawing), drawing)
    lowest = min(rows.values(), default=0.0)
    return {name: row - lowest for name, row in rows.items()}


def _barycenter(order: list[str], rows: Rows, joins: Sequence[Join]) -> list[str]:
    """Channels sorted by the mean row of what they are joined to; a channel without edges keeps its place."""
    far: dict[str, list[float]] = {name: [] for name in order}
    for join in joins:
        for mine, other in ((join.left, join.right), (join.right, join.left)):
            if mine in far:
                far[mine].append(rows[other])
    mean = {name: sum(ends) / len(ends) if ends else rows[name] for name, ends in far.items()}
    return sorted(order, key=lambda name: (mean[name], rows[name]))


def _move_channels(best: list[str], best_cost: float, drawing: _Drawing) -> list[str]:
    """`best` with single channels moved to wherever that lowers the cost, until none does or MAX_WORK is spent."""
    tries = MAX_WORK // max(1, drawing.size)
    improved = True
    while improved:
        improved = False
        for name, position in itertools.islice(itertools.product(list(best), range(len(best))), tries):
            order = [other for other in best if other != name]
            order.insert(position, name)
            _, cost = _arrange(order, drawing)
            if cost < best_cost - 1e-9:
                best, best_cost, improved = order, cost, True
        tries = max(0, tries - len(best) ** 2)
    return best


def _arrange(order: Sequence[str], drawing: _Drawing) -> tuple[Rows, float]:
    """Rows for a given order of channels, and their cost: length of edges in rows, plus crossings, plus height."""
    rows = _pack(order, drawing.spans)
    middle = max(rows.values(), default=0.0) / 2
    for units in drawing.columns:
        rows |= _stack(units, drawing.channels_of, rows, middle)
    length = sum(abs(rows[join.left] - rows[join.right]) for join in drawing.joins)
    height = max(rows.values(), default=0.0) - min(rows.values(), default=0.0)
    crossings = sum(_crossings([(rows[join.left], rows[join.right]) for join in gap]) for gap in drawing.gaps)
    return rows, length + 1.5 * crossings + height


def _pack(order: Sequence[str], spans: dict[str, Span]) -> Rows:
    """Channels to rows in the given order; one moves up into one of the last rows if nothing there meets its span."""
    rows: list[list[Span]] = []
    result: Rows = {}
    for name in order:
        span = spans[name]
        free = [
            row
            for row in range(max(0, len(rows) - 3), len(rows))
            if all(span.first > other.last + 1 or span.last + 1 < other.first for other in rows[row])
        ]
        if free:
            row = free[-1]
        else:
            row = len(rows)
            rows.append([])
        rows[row].append(span)
        result[name] = float(row)
    return result


def _stack(units: list[Unit], channels_of: dict[str, list[str]], channels: Rows, middle: float) -> Rows:
    """Rows of the members of one column's units: each unit as near to the mean row of its channels as may be.

    Members are a row apart, or DENSE rows where no channels have to pass between them.
    """
    step = 1.0 if units[0].half else DENSE
    wanted = []
    for unit in units:
        rows = [channels[channel] for member in unit.members for channel in channels_of.get(member, ())]
        wanted.append((sum(rows) / len(rows) if rows else middle, unit))
    wanted.sort(key=lambda pair: (pair[0], pair[1].members))
    # Pool adjacent violators: overlapping neighbors merge into one block around their common mean.
    blocks: list[tuple[float, int, list[str]]] = []
    for target, unit in wanted:
        block = (target, len(unit.members), list(unit.members))
        while blocks and blocks[-1][0] + step * blocks[-1][1] / 2 > block[0] - step * block[1] / 2 + 1e-9:
            before = blocks.pop()
            total = before[1] + block[1]
            before[2].extend(block[2])
            block = ((before[0] * before[1] + block[0] * block[1]) / total, total, before[2])
        blocks.append(block)
    result: Rows = {}
    free = -1e9
    for center, size, members in blocks:
        row = center - step * (size - 1) / 2
        row = max(round(row - 0.5) + 0.5 if units[0].half else row, free)
        for member in members:
            result[member] = row
            row += step
        free = row
    return result


def _crossings(edges: Sequence[tuple[float, float]]) -> int:
    """How many pairs of edges, given by the rows of their ends, cross; edges that meet at an end do not.

    Of edges sorted by their left ends, those cross whose right ends are in the other order: inversions, counted by
    bisection. This runs thousands of times: comparing all pairs of 1,500 edges took a minute in all.
    """
    above: list[float] = []  # right ends of the edges so far, sorted
    crossings = 0
    for _, right in sorted(edges):
        position = bisect.bisect_right(above, right)
        crossings += len(above) - position
        above.insert(position, right)
    return crossings
