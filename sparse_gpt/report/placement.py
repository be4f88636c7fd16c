"""Vertical order of a drawing: which row each residual channel gets, and where heads and neurons sit between them.

Rows are whole numbers. Each lane (residual channel) lies on a row; lanes whose spans of columns do not meet may share
one. Heads, neurons, tokens and answers are *units*: stacks of one or more slots placed near the mean row of what they
are wired to. Heads and neurons take half rows, so that no lane runs through a node that has nothing to do with it.
"""

import dataclasses
import random
from collections.abc import Sequence

RESTARTS = 6
DENSE = 0.78  # distance of tokens and answers, in rows
MAX_TRIES = 1200  # evaluations of a layout; keeps 80 edges at about a second


@dataclasses.dataclass(frozen=True)
class Span:
    """A lane for placement: the columns it runs through, both included."""

    name: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Unit:
    """A stack of nodes in one column; `members` from top to bottom.

    `half` units lie between rows, because lanes pass through their column. All units of a column are alike in this.
    """

    column: int
    members: tuple[str, ...]
    half: bool


@dataclasses.dataclass(frozen=True)
class Join:
    """A wire for placement: a lane or a unit's member at either side, and the gap (a column number) it runs through."""

    left: str
    right: str
    gap: int


Rows = dict[str, float]


def place(spans: Sequence[Span], units: Sequence[Unit], joins: Sequence[Join]) -> Rows:
    """Row of every lane and every unit member, smallest 0. The same input always gives the same rows.

    Barycentre sweeps from several orders, then moving single lanes while that shortens or uncrosses wires.
    """
    draw = random.Random(0)
    start = [span.name for span in sorted(spans, key=lambda s: (s.first, s.last, s.name))]
    best, best_rows, best_cost = start, *_arrange(start, spans, units, joins)
    for _ in range(RESTARTS):
        order = list(start)
        for _ in range(12):
            rows, cost = _arrange(order, spans, units, joins)
            if cost < best_cost:
                best, best_rows, best_cost = order, rows, cost
            order = _barycentre(order, rows, joins)
        draw.shuffle(start)
    tries, improved = 0, True
    while improved and tries < MAX_TRIES:
        improved = False
        for name in list(best):
            for position in range(len(best)):
                order = [other for other in best if other != name]
                order.insert(position, name)
                rows, cost = _arrange(order, spans, units, joins)
                tries += 1
                if cost < best_cost - 1e-9:
                    best, best_rows, best_cost, improved = order, rows, cost, True
    lowest = min(best_rows.values(), default=0.0)
    return {name: row - lowest for name, row in best_rows.items()}


def _barycentre(order: list[str], rows: Rows, joins: Sequence[Join]) -> list[str]:
    """Lanes sorted by the mean row of what they are wired to; a lane without wires keeps its place."""
    far: dict[str, list[float]] = {name: [] for name in order}
    for join in joins:
        for mine, other in ((join.left, join.right), (join.right, join.left)):
            if mine in far:
                far[mine].append(rows[other])
    mean = {name: sum(ends) / len(ends) if ends else rows[name] for name, ends in far.items()}
    return sorted(order, key=lambda name: (mean[name], rows[name]))


def _arrange(
    order: Sequence[str], spans: Sequence[Span], units: Sequence[Unit], joins: Sequence[Join]
) -> tuple[Rows, float]:
    """Rows for a given order of lanes, and their cost: length of wires in rows, plus crossings, plus height."""
    rows = _pack(order, {span.name: span for span in spans})
    ends: dict[str, list[float]] = {}
    for join in joins:
        for mine, other in ((join.left, join.right), (join.right, join.left)):
            if other in rows:
                ends.setdefault(mine, []).append(rows[other])
    middle = (max(rows.values(), default=0.0)) / 2
    for column in sorted({unit.column for unit in units}):
        rows |= _stack([unit for unit in units if unit.column == column], ends, middle)
    length = sum(abs(rows[join.left] - rows[join.right]) for join in joins)
    height = max(rows.values(), default=0.0) - min(rows.values(), default=0.0)
    return rows, length + 1.5 * _crossings(rows, joins) + height


def _pack(order: Sequence[str], spans: dict[str, Span]) -> Rows:
    """Lanes to rows in the given order; a lane moves up into one of the last rows if nothing there meets its span."""
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


def _stack(units: list[Unit], ends: dict[str, list[float]], middle: float) -> Rows:
    """Rows of the members of one column's units: each unit as near to its wires' mean row as may be.

    Members are a row apart, or DENSE rows where no lanes have to pass between them.
    """
    step = 1.0 if units[0].half else DENSE
    wanted = []
    for unit in units:
        rows = [row for member in unit.members for row in ends.get(member, [])]
        wanted.append((sum(rows) / len(rows) if rows else middle, unit))
    wanted.sort(key=lambda pair: (pair[0], pair[1].members))
    # Pool adjacent violators: overlapping neighbours merge into one block around their common mean.
    blocks: list[tuple[float, int, list[str]]] = []
    for target, unit in wanted:
        block = (target, len(unit.members), list(unit.members))
        while blocks and blocks[-1][0] + step * blocks[-1][1] / 2 > block[0] - step * block[1] / 2 + 1e-9:
            before = blocks.pop()
            total = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / total, total, before[2] + block[2])
        blocks.append(block)
    result: Rows = {}
    free = -1e9
    for centre, size, members in blocks:
        row = centre - step * (size - 1) / 2
        row = max(round(row - 0.5) + 0.5 if units[0].half else row, free)
        for member in members:
            result[member] = row
            row += step
        free = row
    return result


def _crossings(rows: Rows, joins: Sequence[Join]) -> int:
    gaps: dict[int, list[tuple[float, float]]] = {}
    for join in joins:
        gaps.setdefault(join.gap, []).append((rows[join.left], rows[join.right]))
    return sum(
        (a[0] - b[0]) * (a[1] - b[1]) < 0 for wires in gaps.values() for i, a in enumerate(wires) for b in wires[:i]
    )
