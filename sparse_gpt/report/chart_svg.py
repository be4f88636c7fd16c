"""Figures as SVG. Plain shapes with tips; script.js adds what the pointer is near to."""

import functools
import math
from collections.abc import Callable

from sparse_gpt.drawing.text import escape, number
from sparse_gpt.report.figures import Axis, Figure, Heat, Line, ends, ticks

NARROW, WIDE = 400, 860  # of the picture, in its own units
LEFT, RIGHT, BOTTOM, LEGEND_ROW = 68, 12, 40, 18
Place = Callable[[float], float]  # a value's place in the picture
Ends = tuple[float, float]
MARKS = {
    "dot": '<circle cx="{x}" cy="{y}" r="3.2" fill="{color}">{tip}</circle>',
    "diamond": '<path d="M{x} {y}m0 -7l6 7l-6 7l-6 -7z" fill="{color}">{tip}</path>',
    "dash": '<path d="M{x} {y}m-7 0h14" stroke="{color}" stroke-width="1.4">{tip}</path>',
}


def chart_svg(figure: Figure | Heat, title: str, wide: bool) -> str:
    """The picture. `title` is its name for those who do not see it."""
    if isinstance(figure, Heat):
        return _heat(figure, title)
    width = WIDE if wide else NARROW
    rows = _legend_rows([line for line in figure.lines if line.listed], width) if _has_legend(figure) else []
    top = 12 + LEGEND_ROW * len(rows)
    xs, ys = ([value for line in figure.lines for value in getattr(line, each)] for each in "xy")
    x_ends, y_ends = ends(figure.x, xs), ends(figure.y, [*ys, *(value for value, _ in figure.levels)])
    place_x = functools.partial(_place, x_ends, (LEFT, width - RIGHT), figure.x.log)
    place_y = functools.partial(_place, y_ends, (figure.height - BOTTOM, top), figure.y.log)
    inside = width - RIGHT, figure.height - BOTTOM
    parts = [_frame(figure, (place_x, place_y), x_ends, y_ends, top, inside)]
    for value, name in figure.levels:
        y = f"{place_y(value):.1f}"
        parts.append(f'<path class="level" d="M{LEFT} {y}H{inside[0]}"/>')
        parts.append(f'<text class="faint" x="{inside[0]}" y="{y}" dy="-4" text-anchor="end">{escape(name)}</text>')
    parts += [_line(line, place_x, place_y) for line in figure.lines]
    for row, entries in enumerate(rows):
        parts += [_legend_entry(line, left, 10 + LEGEND_ROW * row) for left, line in entries]
    scales = "".join(
        f' data-{name}="{"log" if axis.log else "linear"} {low!r} {high!r} {start:g} {stop:g}"'
        for name, axis, (low, high), start, stop in (
            ("x", figure.x, x_ends, LEFT, inside[0]),
            ("y", figure.y, y_ends, inside[1], top),
        )
    )
    return _svg(width, figure.height, title, "".join(parts), scales)


def _svg(width: int, height: int, title: str, inner: str, attributes: str = "") -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(title)}"{attributes}>{inner}</svg>'
    )


def _has_legend(figure: Figure) -> bool:
    return len(figure.lines) > 1 if figure.legend is None else figure.legend


def _place(bounds: tuple[float, float], pixels: tuple[float, float], log: bool, value: float) -> float:
    low, high = (math.log10(each) for each in bounds) if log else bounds
    share = ((math.log10(value) if log else value) - low) / (high - low)
    return pixels[0] + share * (pixels[1] - pixels[0])


def _frame(figure: Figure, places: tuple[Place, Place], x_ends: Ends, y_ends: Ends, top: float, inside: Ends) -> str:
    """Axes with ticks, grid and titles."""
    right, bottom = inside
    place_x, place_y = places
    parts = [f'<path class="axis" d="M{LEFT} {top}V{bottom}H{right}"/>']
    for value, text in ticks(*x_ends, log=figure.x.log, most=int(right - LEFT) // 70):
        x = f"{place_x(value):.1f}"
        parts.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{text}</text>')
    for value, text in ticks(*y_ends, log=figure.y.log, most=max(2, int(bottom - top) // 38)):
        y = f"{place_y(value):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{text}</text>')
    middle = (top + bottom) / 2
    parts.append(_title(figure.x, f'x="{(LEFT + right) / 2:g}" y="{bottom + 32}"'))
    parts.append(_title(figure.y, f'transform="translate(11 {middle:g}) rotate(-90)"'))
    return "".join(parts)


def _title(axis: Axis, where: str) -> str:
    return f'<text class="faint" {where} text-anchor="middle">{escape(axis.title)}</text>' if axis.title else ""


def _line(line: Line, place_x: Place, place_y: Place) -> str:
    points = [(f"{place_x(x):.1f}", f"{place_y(y):.1f}") for x, y in zip(line.x, line.y, strict=True)]
    joined = "stroke" if line.joined else "none"
    color, name = escape(line.color), escape(line.name)
    path = (
        f'<polyline class="line {joined}" data-name="{name}" points="{" ".join(map(",".join, points))}"'
        f' style="stroke:{color};stroke-width:{line.width:g}"/>'
    )
    marks = []
    if line.mark:
        told = line.told or [f"{number(x)}: {number(y)}" for x, y in zip(line.x, line.y, strict=True)]
        for (x, y), tip in zip(points, told, strict=True):
            title = f"<title>{name}: {escape(tip)}</title>"
            marks.append(MARKS[line.mark].format(x=x, y=y, color=color, tip=title))
    return f'<g opacity="{line.opacity:g}">{path}{"".join(marks)}</g>'


def _legend_rows(lines: list[Line], width: int) -> list[list[tuple[int, Line]]]:
    """Entries with the place of each from the left, row by row."""
    rows: list[list[tuple[int, Line]]] = [[]]
    left = LEFT
    for line in lines:
        size = 34 + round(6.4 * len(line.name))
        if rows[-1] and left + size > width:
            rows.append([])
            left = LEFT
        rows[-1].append((left, line))
        left += size
    return rows


def _legend_entry(line: Line, left: int, y: int) -> str:
    color = escape(line.color)
    mark = MARKS[line.mark].format(x=left + 8, y=y, color=color, tip="") if line.mark else ""
    stroke = f'<path d="M{left} {y}h16" style="stroke:{color};stroke-width:{line.width:g}"/>' if line.joined else ""
    return f'{stroke}{mark}<text x="{left + 21}" y="{y}" dy="4">{escape(line.name)}</text>'


def _heat(heat: Heat, title: str) -> str:
    """Cells the darker the larger, on a scale from the least to the largest value."""
    known = [value for row in heat.values for value in row if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    left = 30 + round(6.6 * max((len(name) for name in heat.rows), default=0))
    step = max(14, min(46, (WIDE - left - RIGHT) // max(1, len(heat.columns))))
    top, bottom, parts = 40, 40 + 24 * len(heat.rows), []
    for i, (name, values, told) in enumerate(zip(heat.rows, heat.values, heat.told, strict=True)):
        y = top + 24 * i
        parts.append(f'<text x="{left - 6}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for j, (value, tip) in enumerate(zip(values, told, strict=True)):
            if value is None:
                continue
            share = round(8 + 92 * (value - low) / ((high - low) or 1))
            color = f"color-mix(in srgb, var(--line1) {share}%, transparent)"
            text = f"{tip}: {number(value)} {heat.unit}"
            parts.append(
                f'<rect x="{left + step * j}" y="{y}" width="{step - 1}" height="23" style="fill:{color}">'
                f"<title>{escape(text)}</title></rect>"
            )
    longest = max((len(name) for name in heat.columns), default=0)
    for j, name in enumerate(heat.columns):
        x = left + step * j + step / 2
        turned = f"translate({x:g} {bottom + 8}) rotate(-60)"
        parts.append(f'<text transform="{turned}" text-anchor="end" dy="4">{escape(name)}</text>')
    bound = f"light is {number(low)}, dark {number(high)} {heat.unit}"
    parts.append(
        f'<text class="faint" x="{left}" y="14">{escape(heat.column_title)}, by {escape(heat.row_title)}</text>'
    )
    parts.append(f'<text class="faint" x="{left}" y="31">{escape(bound)}</text>')
    return _svg(WIDE, bottom + 24 + round(6 * longest), title, "".join(parts))
