"""The part of the report about a bridged pair of models: bridge by bridge, hybrids, steering, circuits' images."""

from typing import Any

import plotly.graph_objects as go

from sparse_gpt.drawing.text import escape, number, table
from sparse_gpt.records.files import CircuitFiles, Workdir
from sparse_gpt.report.charts import CHANCE, LINES, Chart, add_line, empty_figure
from sparse_gpt.report.mixture_grids import Grid, mixture_grids
from sparse_gpt.report.sections import chart_grid, mean_of, missing, percent

Json = dict[str, Any]

KINDS = (("trained", "trained"), ("untrained", "untrained"), ("linear", "linear maps to an independent model"))


def bridge_section(workdir: Workdir) -> str:
    """Everything that bridge.json says, and what launch.steer found for each circuit."""
    bridge: Json = workdir.bridge or {}
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


def _lead(bridge: Json) -> str:
    losses = [("dense model", "dense_loss"), ("sparse model", "sparse_loss"), ("independent model", "independent_loss")]
    facts = [(name, number(bridge.get(key))) for name, key in losses]
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)} nats</dd></div>" for k, v in facts if v != "–")
    note = (
        f"Held-out cross-entropy over {number(bridge.get('tokens'))} tokens. A hybrid runs one model up to a boundary "
        "and the other from there; the bridge between them is good when the hybrid loses little against the dense "
        "model. Untrained bridges, and the best linear maps to a sparse model trained apart, are the controls."
    )
    return f'<dl class="facts small">{cards}</dl><p class="note">{note}</p>'


def _bridges(bridge: Json) -> str:
    """One row per boundary and kind of bridge."""
    measures = ("NMSE encoder", "NMSE decoder", "KL to sparse", "KL to dense")
    head = ("boundary, dense : sparse", "bridges", *measures, "loss above dense, to sparse", "to dense")
    rows = []
    for each in bridge["bridges"]:
        for key, name in KINDS:
            held = each.get(key)
            if not isinstance(held, dict):
                continue
            above = [_above(held.get(f"loss_{way}"), bridge["dense_loss"]) for way in ("to_sparse", "to_dense")]
            values = [held.get(k) for k in ("nmse_encoder", "nmse_decoder", "kl_to_sparse", "kl_to_dense")]
            place = f"{each['dense']} : {each['sparse']}" if key == "trained" else ""
            shown = [number(value) for value in (*values, *above)]
            rows.append([place, name, *(f"<b>{cell}</b>" if key == "trained" else cell for cell in shown)])
    absent = "" if any(isinstance(each.get("linear"), dict) for each in bridge["bridges"]) else _NO_LINEAR
    return table(head, rows, "Bridge by bridge: fractions of variance, and nats per token") + absent


_NO_LINEAR = missing(
    "Without the second control: no independently trained sparse model was given. Give one by",
    "python -m launch.bridge --independent=DIR …",
)


def _above(loss: Any, dense: float) -> float | None:
    return loss - dense if isinstance(loss, int | float) else None


def mixture_charts(bridge: Json) -> list[Chart]:
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
    held = files.steering
    if not held:
        return None
    figure, strengths, curves = (
        empty_figure("strength", "foil's share of both answers"),
        held["strengths"],
        held["curves"],
    )
    for i, curve in enumerate((*curves["random"], *curves["random_stream"])):
        add_line(figure, strengths, curve["share"], "random directions", "var(--faint)")
        figure.data[-1].update(showlegend=i == 0, legendgroup="random", line={"width": 1})
    lines = (("sparse", "sparse model"), ("stream", "dense model, its stream"), ("dense", "dense model, one read"))
    for (name, told), colour in zip(lines, LINES, strict=False):
        add_line(figure, strengths, curves[name]["share"], told, colour, markers=True)
    figure.update_yaxes(range=[-0.02, 1.02])
    node = ".".join(str(held["node"][key]) for key in ("layer", "site", "channel"))
    at = f"{held['dense']['layer']}.{held['dense']['site']}"
    stream = curves["stream"]
    both = [stream["answer"][i] + stream["foil"][i] for i in (0, -1)]
    note = (
        f"Node {node} of the sparse model, moved towards its value on the other prompt, over {held['pairs']} held-out "
        f"pairs; in the dense model its decoder row is added to what {at} reads, or to the stream before it, where "
        "later sublayers read it too. Random directions have the same norms. Of all tokens the two answers together "
        f"have {percent(both[0])} in the dense model as it is, {percent(both[1])} at the last strength in its stream."
    )
    return Chart(f"Steering: {held['task']}", note, figure)


def _transported(files: CircuitFiles) -> list[list[str]]:
    held = files.transport
    if not held:
        return []
    image, random = held.get("image") or {}, held["random"]
    ranks = ", ".join(f"{b['dense']}: {b['rank']} of {b['width']}" for b in held["boundaries"])
    sparse = held.get("sparse", {})

    def average(key: str) -> float | None:
        return mean_of([draw[key] for draw in random])

    return [
        [
            escape(held["task"]),
            escape(ranks or "–"),
            number(held["dense"]["task_loss"]),
            f"<b>{number(image.get('task_loss'))}</b>",
            number(average("task_loss")),
            percent(image.get("accuracy")),
            percent(average("accuracy")),
            number(_above(image.get("loss"), held["dense"]["loss"])),
            number(_above(average("loss"), held["dense"]["loss"])),
            number(sparse.get("ablated_task_loss")),
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
