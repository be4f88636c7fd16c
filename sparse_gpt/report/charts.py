"""Charts of training and of the circuit search."""

import math
from collections.abc import Iterable, Sequence

from sparse_gpt.drawing.text import sparse_nonzeros
from sparse_gpt.records import Circuit, MetricsRow, Rankings, Search
from sparse_gpt.records.base import CHANCE
from sparse_gpt.records.search import CurvePoint
from sparse_gpt.report.figures import LINES, Axis, Chart, Figure, Line, value_axis

MAX_POINTS = 1500  # per line; more would only slow the page down

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
    loss = Figure(Axis("step"), Axis("nats per token"))
    for name, key, color in (("training", "loss", "var(--line1)"), ("held-out", "val_loss", "var(--line2)")):
        steps, values = _series(metrics, key)
        if values:
            mark = "dot" if key == "val_loss" and len(values) <= 60 else ""
            loss.lines.append(Line(name, steps, values, color, mark=mark))
    if loss.lines:
        charts.append(Chart("Loss", "Cross-entropy of the next token.", loss, wide=True))
    for title, note, unit, key, logarithmic in _SMALL:
        steps, values = _series(metrics, key)
        if values:
            axis = value_axis(unit, values, logarithmic)
            line = Line(title, steps, values, "var(--line1)")
            charts.append(Chart(title, note, Figure(Axis("step"), axis, height=210, lines=[line])))
    return charts


def loss_versus_size(search: Search, circuit: Circuit) -> Chart | None:
    """Task loss of growing circuits (the best trial's ranking), against chance, the target and random circuits."""
    points = _with_edges(search.loss_versus_size)
    if not points:
        return None
    edges, loss = circuit.metrics.edges, circuit.metrics.task_loss
    figure = Figure(Axis("edges", log=True), Axis("task loss (nats)", from_zero=True), height=360, legend=True)
    told = [f"{point.edges} edges, {point.nodes} nodes, task loss {point.task_loss:.3f}" for point in points]
    growing = Line("circuits of growing size", *_curve(points), LINES[0], mark="dot", told=told)
    figure.lines.append(growing)
    without = [(point.edges, point.ablated_task_loss) for point in points if point.ablated_task_loss is not None]
    if without:
        figure.lines.append(Line("the model without them", *_columns(without), LINES[1]))
    for i, baseline in enumerate(search.baselines):
        curve = _curve(_with_edges(baseline.loss_versus_size))
        name = f"ranked by {baseline.ranking.replace('_', ' ')}"
        figure.lines.append(Line(name, *curve, LINES[(2 + i) % len(LINES)]))
    random_losses = _finite(search.random_circuit.task_loss)
    if edges and random_losses:
        at = [float(edges)] * len(random_losses)
        name = "random circuits of the same size"
        figure.lines.append(Line(name, at, random_losses, "var(--faint)", joined=False, mark="dash"))
    if edges and loss is not None:
        figure.lines.append(Line("the circuit", [edges], [loss], LINES[1], joined=False, mark="diamond"))
    figure.levels += [
        (value, name) for value, name in ((CHANCE, "chance, ln 2"), (circuit.target_loss, "target")) if value
    ]
    sizes = [x for line in figure.lines for x in line.x]
    figure.x.bounds = (min(sizes) * 0.8, max(sizes) * 1.25)
    note = "A good circuit is near the bend of the curve, far below random circuits of its size."
    return Chart("Loss versus size", note, figure, wide=True)


def _curve(points: Sequence[CurvePoint]) -> tuple[list[float], list[float]]:
    return [point.edges for point in points], [point.task_loss for point in points]


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _with_edges(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Those that a logarithmic axis of edges can show."""
    return [point for point in curve if point.edges > 0]


def size_versus_target(rankings: Rankings) -> Chart | None:
    """Edges that each ranking of nodes needs for a target loss; targets that it does not reach are left out."""
    lines, shown = [], []
    for i, entry in enumerate(rankings.rankings):
        points = sorted((p.target_loss, p.edges) for p in entry.points if p.reached)
        points = [(target, edges) for target, edges in points if target > 0 and edges > 0]
        if points:
            line = Line(entry.ranking.replace("_", " "), *_columns(points), LINES[i % len(LINES)], mark="dot")
            lines.append(line)
            shown += [edges for _, edges in points]
    if not shown:
        return None
    axes = Axis("target task loss (nats)", log=True), value_axis("edges", shown, logarithmic=True)
    note = "First parts of rankings of nodes, before any refinement: the mask search, and rankings nobody searched."
    return Chart("Size versus target loss", note, Figure(*axes, height=320, lines=lines), wide=True)


def search_history(search: Search) -> list[Chart]:
    """Task loss and open gates of every trial during the search."""
    history = search.history
    if not history:
        return []
    charts = []
    steps = [point.step for point in history]
    losses, sizes = [point.loss for point in history], [point.open_nodes for point in history]
    for title, unit, values in (("Task loss", "nats", losses), ("Open gates", "nodes", sizes)):
        axis = value_axis(unit, _finite(value for row in values for value in row), logarithmic=values is sizes)
        figure = Figure(Axis("search step"), axis, height=280, legend=False)
        for i, trial in enumerate(search.trials):
            number = i if trial.trial is None else trial.trial
            best = number == search.best_trial
            name, color = f"trial {number}" + (" (chosen)" if best else ""), LINES[i % len(LINES)]
            found = [(step, value) for step, row in zip(steps, values, strict=True) for value in _finite([row[i]])]
            line = Line(name, *_columns(found), color, width=3 if best else 1.2, opacity=1 if best else 0.7)
            figure.lines.append(line)
        charts.append(Chart(title, "During the search, one line per trial; the thick one was chosen.", figure))
    return charts


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
