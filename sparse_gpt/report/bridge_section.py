"""The part of the report about a bridged pair of models: bridge by bridge, hybrids, steering, circuits' images."""

import plotly.graph_objects as go

from sparse_gpt.drawing.text import escape, number, table
from sparse_gpt.records import Bridge, CircuitFiles, Workdir
from sparse_gpt.records.base import CHANCE
from sparse_gpt.report.charts import LINES, Chart, add_line, empty_figure
from sparse_gpt.report.mixture_grids import Grid, mixture_grids
from sparse_gpt.report.sections import chart_grid, mean, missing, percent

LINEAR = "linear maps to an independent model"


def bridge_section(workdir: Workdir) -> str:
    """Everything that bridge.json says, and what launch.steer found for each circuit."""
    bridge = workdir.bridge
    if bridge is None:
        return ""
    parts = [_lead(bridge), _bridges(bridge)]
    charts = mixture_charts(bridge)
    parts.append(chart_grid(charts) if charts else "")
    steered = [chart for files in workdir.circuits if (chart := steering_chart(files))]
    rows = [row for files in workdir.circuits for row in _transported(files)]
    if steered or rows:
        parts += [chart_grid(steered), _transport_table(rows)]
    else:
        command = f"python -m launch.steer --workdir={workdir.folder.name}"
        parts.append(
            missing("No circuit has been taken to the dense model yet. Find one by launch.prune, then", command)
        )
    return "".join(parts)


def _lead(bridge: Bridge) -> str:
    facts = [
        ("dense model", number(bridge.dense_loss)),
        ("sparse model", number(bridge.sparse_loss)),
        ("independent model", number(bridge.independent_loss)),
    ]
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)} nats</dd></div>" for k, v in facts if v != "–")
    note = (
        f"Held-out cross-entropy over {number(bridge.tokens)} tokens. A hybrid runs one model up to a boundary "
        "and the other from there; the bridge between them is good when the hybrid loses little against the dense "
        "model. Untrained bridges, and the best linear maps to a sparse model trained apart, are the controls."
    )
    return f'<dl class="facts small">{cards}</dl><p class="note">{note}</p>'


def _bridges(bridge: Bridge) -> str:
    """One row per boundary and kind of bridge."""
    measures = ("NMSE encoder", "NMSE decoder", "KL to sparse", "KL to dense")
    head = ("boundary, dense : sparse", "bridges", *measures, "loss above dense, to sparse", "to dense")
    rows = []
    for each in bridge.bridges:
        for name, held in (("trained", each.trained), ("untrained", each.untrained), (LINEAR, each.linear)):
            if held is None:
                continue
            above = [_above(loss, bridge.dense_loss) for loss in (held.loss_to_sparse, held.loss_to_dense)]
            values = [held.nmse_encoder, held.nmse_decoder, held.kl_to_sparse, held.kl_to_dense]
            place = f"{each.dense} : {each.sparse}" if held is each.trained else ""
            shown = [number(value) for value in (*values, *above)]
            rows.append([place, name, *(f"<b>{cell}</b>" if held is each.trained else cell for cell in shown)])
    absent = "" if any(each.linear for each in bridge.bridges) else _NO_LINEAR
    return table(head, rows, "Bridge by bridge: fractions of variance, and nats per token") + absent


_NO_LINEAR = missing(
    "Without the second control: no independently trained sparse model was given. Give one by",
    "python -m launch.bridge --independent=DIR …",
)


def _above(loss: float | None, dense: float) -> float | None:
    return None if loss is None else loss - dense


def mixture_charts(bridge: Bridge) -> list[Chart]:
    """Heat maps of the loss above the dense model's: hybrids with at most two switches, and all of them if known."""
    return [Chart(grid.title, grid.note, _heat(grid), wide=True) for grid in mixture_grids(bridge)]


def _heat(grid: Grid) -> go.Figure:
    figure = empty_figure(grid.column_title, grid.row_title, height=max(300, 60 + 24 * len(grid.rows)))
    figure.add_heatmap(
        x=[escape(name) for name in grid.columns],
        y=[escape(name) for name in grid.rows],
        z=grid.above,
        text=[[escape(path) for path in row] for row in grid.paths],
        colorscale="Viridis",
        hovertemplate="%{text}: %{z:.3f} nats above the dense model<extra></extra>",
        hoverongaps=False,
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def steering_chart(files: CircuitFiles) -> Chart | None:
    """The foil's share of both answers against strength: sparse model, dense model both ways, random directions."""
    steering = files.steering
    if steering is None:
        return None
    figure = empty_figure("strength", "foil's share of both answers")
    curves, strengths, stream = steering.curves, list(steering.strengths), steering.curves.stream
    for i, curve in enumerate((*curves.random, *curves.random_stream)):
        add_line(figure, strengths, list(curve.share), "random directions", "var(--faint)")
        figure.data[-1].update(showlegend=i == 0, legendgroup="random", line={"width": 1})
    lines = (
        ("sparse model", curves.sparse),
        ("dense model, its stream", stream),
        ("dense model, one read", curves.dense),
    )
    for (name, curve), colour in zip(lines, LINES, strict=False):
        add_line(figure, strengths, list(curve.share), name, colour, markers=True)
    figure.update_yaxes(range=[-0.02, 1.02])
    at = f"{steering.dense.layer}.{steering.dense.site}"
    both: list[float | None] = [*map(sum, zip(stream.answer, stream.foil, strict=True))] or [None]
    note = (
        f"Node {steering.node.node.key} of the sparse model, moved towards its value on the other prompt, over "
        f"{steering.pairs} held-out pairs; in the dense model its decoder row is added to what {at} reads, or to the "
        "stream before it, where "
        "later sublayers read it too. Random directions have the same norms. Of all tokens the two answers together "
        f"have {percent(both[0])} in the dense model as it is, {percent(both[1])} at the last strength in its stream."
    )
    return Chart(f"Steering: {steering.task}", note, figure)


def _transported(files: CircuitFiles) -> list[list[str]]:
    transport = files.transport
    if transport is None:
        return []
    dense, image, random = transport.dense, transport.image, transport.random
    without = (image.task_loss, image.accuracy, image.loss) if image else (None, None, None)
    ranks = ", ".join(f"{b.dense}: {b.rank} of {b.width}" for b in transport.boundaries)
    return [
        [
            escape(transport.task),
            escape(ranks or "–"),
            number(dense.task_loss),
            f"<b>{number(without[0])}</b>",
            number(mean(draw.task_loss for draw in random)),
            percent(without[1]),
            percent(mean(draw.accuracy for draw in random)),
            number(_above(without[2], dense.loss)),
            number(_above(mean(draw.loss for draw in random), dense.loss)),
            number(transport.sparse.ablated_task_loss),
        ]
    ]


def _transport_table(rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head = (
        "task",
        "dimensions of the image, by boundary",
        "dense task loss",
        "without the image",
        "without random images",
        "accuracy without the image",
        "without random ones",
        "text loss added by it",
        "by random ones",
        "sparse task loss without the circuit",
    )
    note = (
        '<p class="note">The image of a circuit is spanned by the decoder rows of the residual channels it reads and '
        f"writes; there the dense stream is held at its mean. {CHANCE:.3f} (ln 2) is chance. The loss added on "
        "ordinary text tells how much else goes with it.</p>"
    )
    return table(head, rows, "Circuits transported: the dense model without a circuit’s image") + note
