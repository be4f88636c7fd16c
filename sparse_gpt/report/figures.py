"""What a chart shows: lines and marks on two axes, or a grid of colors. `chart_svg` draws it.

Colors are CSS variables of the page ("var(--plus)"), so that charts follow light and dark.
"""

import dataclasses
import math
from collections.abc import Sequence

LINES = [f"var(--line{i})" for i in range(1, 9)]


@dataclasses.dataclass
class Axis:
    """One direction of a figure.

    Attributes:
      title: what it measures, with the unit.
      log: whether it is logarithmic; then all values are positive.
      bounds: its ends; those of the values without.
      from_zero: whether it starts at zero where no value is below.
    """

    title: str
    log: bool = False
    bounds: tuple[float, float] | None = None
    from_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """Points that belong together. `mark` is how each is drawn ("dot", "diamond", "dash" or, of a plain line, "")."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    joined: bool = True
    mark: str = ""
    width: float = 1.8
    opacity: float = 1.0
    told: Sequence[str] = ()  # of each point what its tip says; x and y without
    listed: bool = True  # in the legend


@dataclasses.dataclass
class Figure:
    """Lines on two axes. `levels` are values of y, each with a name, that a dotted line marks."""

    x: Axis
    y: Axis
    height: int = 300
    lines: list[Line] = dataclasses.field(default_factory=list)
    levels: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    legend: bool | None = None  # None: from the second line on


@dataclasses.dataclass(frozen=True)
class Heat:
    """A grid of values, None where there is none; `told` says of each cell what it is."""

    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float | None]]
    told: Sequence[Sequence[str]]
    column_title: str
    row_title: str
    unit: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure with what a reader needs to know about it. `wide` charts get a row of their own."""

    title: str
    note: str
    figure: Figure | Heat
    wide: bool = False


def plotted(figure: Figure | Heat) -> list[list[list[float | None]]]:
    """Of each line its x and its y as tips show them: from places in the picture they could be read only roughly."""
    if isinstance(figure, Heat):  # its cells say what they are
        return []
    return [[[_told(value) for value in values] for values in (line.x, line.y)] for line in figure.lines]


def _told(value: float) -> float | None:
    """Four digits, or all in front of the point; whole numbers as such, which are shorter. None if not finite."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
    return int(rounded) if rounded == int(rounded) else rounded


def value_axis(title: str, values: Sequence[float], logarithmic: bool) -> Axis:
    """An axis from zero, or a logarithmic one where that is wanted, possible, and spans a decade at least."""
    log = logarithmic and bool(values) and min(values) > 0 and max(values) >= 10 * min(values)
    return Axis(title, log=log, from_zero=not log)


def ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """Where an axis begins and ends; never the same place."""
    if axis.bounds:
        return axis.bounds
    low, high = min(values, default=0.0), max(values, default=1.0)
    if axis.log:
        return (low / 1.15, high * 1.15)
    low = min(low, 0.0) if axis.from_zero else low
    room = 0.04 * (high - low) or abs(high) or 1.0
    return (low if axis.from_zero and low == 0 else low - room, high + room)


def ticks(low: float, high: float, log: bool, most: int = 7) -> list[tuple[float, str]]:
    """Round numbers between two ends, with how they are written; on logarithmic axes 1, 2, 5 times powers of ten (over
    more than three decades powers alone)."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1,) if last - first > 3 else (1, 2, 5)
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    else:
        rough = (high - low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        found = [step * i for i in range(math.ceil(low / step), math.floor(high / step * (1 + 1e-12)) + 1)]
    found = [tick for tick in found if low <= tick <= high]
    plain = all(tick == 0 or 1e-4 <= abs(tick) < 1e7 for tick in found)
    return [(tick, (f"{tick:,.7g}" if plain else f"{tick:.0e}").replace("-", "−")) for tick in found]
