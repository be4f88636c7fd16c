"""Charts of training and of the circuit search, as plotly figures.

Colors are CSS variables of the page ("var(--plus)"), which script.js resolves, so that charts follow light and dark.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from sparse_gpt.drawing.text import escape, sparse_nonzeros
from sparse_gpt.records import Circuit, MetricsRow, Rankings, Search
from sparse_gpt.records.base import CHANCE
from sparse_gpt.records.search import CurvePoint

MAX_POINTS = 1500  # per line; more would only slow the page down
LINES = [f"var(--line{i})" for i in range(1, 9)]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure with what a reader needs to know about it. `wide` charts get a row of their own."""

    title: str
    note: str
    figure: go.Figure
    wide: bool = False


# Small charts of metrics.jsonl: title, note, unit, key, whether the axis is logarithmic.
_SMALL = (
    ("Density", "Fraction of weights that are not zero.", "", "density", True),
    ("Nonzero weights", "In all tensors but the bigram table.", "", "nonzeros", False),
    ("Learning rate", "As scheduled.", "", "lr", False),
    ("Dead neurons", "MLP neurons that stayed at zero on held-out text.", "", "dead_neurons", False),
    ("Gradient RMS", "Before it is controlled.", "", "grad_rms", True),
    ("Speed", "Between one logged step and the next.", "tokens per second", "tokens_per_second", False),
)


def training_charts(metrics: Sequence[MetricsRow]) -> list[Chart]:
    """One chart per quantity that the rows of metrics.jsonl hold; quantities that no row has are left out."""
    charts = []
    loss = empty_figure("step", "nats per token")
    for name, key, color in (("training", "loss", "var(--line1)"), ("held-out", "val_loss", "var(--line2)")):
        steps, values = _series(metrics, key)
        if values:
            add_line(loss, steps, values, name, color, markers=key == "val_loss" and len(values) <= 60)
    if loss.data:
        charts.append(Chart("Loss", "Cross-entropy of the next token.", loss, wide=True))
    for title, note, unit, key, logarithmic in _SMALL:
        steps, values = _series(metrics, key)
        if values:
            figure = empty_figure("step", unit, height=210)
            add_line(figure, steps, values, title, "var(--line1)")
            _value_axis(figure, values, logarithmic)
            charts.append(Chart(title, note, figure))
    return charts


def loss_versus_size(search: Search, circuit: Circuit) -> Chart | None:
    """Task loss of growing circuits (the best trial's ranking), against chance, the target and random circuits."""
    points = _with_edges(search.loss_versus_size)
    if not points:
        return None
    edges, loss = circuit.metrics.edges, circuit.metrics.task_loss
    figure = empty_figure("edges", "task loss (nats)", height=360)
    sizes, losses = [point.edges for point in points], [point.task_loss for point in points]
    add_line(figure, sizes, losses, "circuits of growing size", "var(--line1)", markers=True)
    figure.data[-1].update(
        customdata=[[point.nodes] for point in points],
        hovertemplate="%{x} edges, %{customdata[0]} nodes<br>task loss %{y:.3f}<extra></extra>",
    )
    without = [(point.edges, point.ablated_task_loss) for point in points if point.ablated_task_loss is not None]
    if without:
        left, losses = ([pair[i] for pair in without] for i in (0, 1))
        add_line(figure, left, losses, "the model without them", "var(--line2)")
    for i, baseline in enumerate(search.baselines):
        curve = _with_edges(baseline.loss_versus_size)
        name, color = f"ranked by {baseline.ranking.replace('_', ' ')}", LINES[(2 + i) % len(LINES)]
        add_line(figure, [point.edges for point in curve], [point.task_loss for point in curve], name, color)
        sizes += [point.edges for point in curve]
    random_losses = _finite(search.random_circuit.task_loss)
    if edges and random_losses:
        marker = {"symbol": "line-ew-open", "color": "var(--faint)", "size": 13, "line": {"width": 1.4}}
        _points(figure, [edges] * len(random_losses), random_losses, "random circuits of the same size", marker)
    if edges and loss is not None:
        marker = {"symbol": "diamond", "color": "var(--line2)", "size": 12}
        _points(figure, [edges], [loss], "the circuit", marker)
    for value, name in ((CHANCE, "chance, ln 2"), (circuit.target_loss, "target")):
        if value:
            label = {"text": name, "font": {"color": "var(--faint)", "size": 11}}
            line = {"color": "var(--faint)", "width": 1, "dash": "dot"}
            figure.add_hline(y=value, line=line, annotation=label, annotation_position="top right")
    low, high = min([*sizes, edges or sizes[0]]), max([*sizes, edges or sizes[0]])
    figure.update_xaxes(type="log", range=[math.log10(low * 0.8), math.log10(high * 1.25)])
    _log_ticks(figure.layout.xaxis, low, high)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    note = "A good circuit is near the bend of the curve, far below random circuits of its size."
    return Chart("Loss versus size", note, figure, wide=True)


def _with_edges(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Those that a logarithmic axis of edges can show."""
    return [point for point in curve if point.edges > 0]


def size_versus_target(rankings: Rankings) -> Chart | None:
    """Edges that each ranking of nodes needs for a target loss; targets that it does not reach are left out."""
    figure = empty_figure("target task loss (nats)", "edges", height=320)
    shown: list[tuple[float, float]] = []
    for i, entry in enumerate(rankings.rankings):
        points = sorted((p.target_loss, p.edges) for p in entry.points if p.reached)
        points = [(target, edges) for target, edges in points if target > 0 and edges > 0]
        if points:
            x, y = map(list, zip(*points, strict=True))
            add_line(figure, x, y, entry.ranking.replace("_", " "), LINES[i % len(LINES)], markers=True)
            shown += points
    if not shown:
        return None
    figure.update_xaxes(type="log")
    _log_ticks(figure.layout.xaxis, min(x for x, _ in shown), max(x for x, _ in shown))
    _value_axis(figure, [y for _, y in shown], logarithmic=True)
    note = "First parts of rankings of nodes, before any refinement: the mask search, and rankings nobody searched."
    return Chart("Size versus target loss", note, figure, wide=True)


def search_history(search: Search) -> list[Chart]:
    """Task loss and open gates of every trial during the search."""
    history = search.history
    if not history:
        return []
    charts = []
    steps = [point.step for point in history]
    losses, sizes = [point.loss for point in history], [point.open_nodes for point in history]
    for title, unit, values in (("Task loss", "nats", losses), ("Open gates", "nodes", sizes)):
        figure = empty_figure("search step", unit, height=280)
        for i, trial in enumerate(search.trials):
            number = i if trial.trial is None else trial.trial
            best = number == search.best_trial
            name = f"trial {number}" + (" (chosen)" if best else "")
            add_line(figure, steps, [row[i] for row in values], name, LINES[i % len(LINES)])
            figure.data[-1].update(line={"width": 3 if best else 1.2}, opacity=1 if best else 0.7)
        _value_axis(figure, _finite(value for row in values for value in row), logarithmic=values is sizes)
        figure.update_layout(showlegend=False)
        charts.append(Chart(title, "During the search, one line per trial; the thick one was chosen.", figure))
    return charts


def empty_figure(x_title: str, y_title: str, height: int = 300) -> go.Figure:
    """An empty figure with the page's margins; plotly's own template is dropped, script.js sets fonts and grid."""
    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "margin": {"l": 52, "r": 14, "t": 28 if height >= 300 else 8, "b": 40},
            "hovermode": "closest",
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "xanchor": "left"},
            "xaxis": {"title": {"text": escape(x_title), "standoff": 6}},
            "yaxis": {"title": {"text": escape(y_title), "standoff": 6}},
        }
    )


def add_line(figure: go.Figure, x: list, y: list, name: str, color: str, markers: bool = False) -> None:
    """A line through the points; a legend from the second one on."""
    figure.add_scatter(
        x=x,
        y=y,
        name=escape(name),
        mode="lines+markers" if markers else "lines",
        line={"color": color, "width": 1.8},
        hovertemplate=f"%{{x}}: %{{y:.4g}}<extra>{escape(name)}</extra>",
    )
    figure.update_layout(showlegend=len(figure.data) > 1)


def _points(figure: go.Figure, x: list, y: list, name: str, marker: dict[str, object]) -> None:
    hover = f"{escape(name)}: %{{x}} edges<br>task loss %{{y:.3f}}<extra></extra>"
    figure.add_scatter(x=x, y=y, mode="markers", name=escape(name), marker=marker, hovertemplate=hover)


def _series(metrics: Sequence[MetricsRow], key: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of the rows that have one, thinned to MAX_POINTS. Counts per tensor are added up."""
    found = []
    for row in metrics:
        value = sparse_nonzeros(row.nonzeros) if key == "nonzeros" else getattr(row, key)
        found += [(row.step, finite) for finite in _finite([value])]
    found = found[:: math.ceil(len(found) / MAX_POINTS)] if found else []
    return [step for step, _ in found], [value for _, value in found]


def _finite(values: Iterable[object]) -> list[float]:
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def _value_axis(figure: go.Figure, values: list[float], logarithmic: bool) -> None:
    """A y axis from zero, or a logarithmic one where that is wanted, possible, and spans a decade at least."""
    if logarithmic and values and min(values) > 0 and max(values) >= 10 * min(values):
        figure.update_yaxes(type="log")
        _log_ticks(figure.layout.yaxis, min(values), max(values))
    else:
        figure.update_yaxes(rangemode="tozero")


def _log_ticks(axis: go.layout.XAxis | go.layout.YAxis, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 × powers of ten (only powers over more than three decades), written out plainly."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    plain = all(1e-4 <= tick < 1e6 for tick in ticks)
    axis.update(tickvals=ticks, ticktext=[f"{tick:,.10g}" if plain else f"{tick:.0e}" for tick in ticks])
