"""The picture of formation.json: losses, sizes and overlap over training, and when nodes appear."""

import math
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_gpt.records import Formation
from sparse_gpt.records.base import CHANCE

mpl.use("agg")

BLUE, BROWN, GREY = "#1f6feb", "#b3541e", "#888888"
CONSTANT = "#ffe9a8"  # a node whose values do not vary has no correlation
IN, OUT = 46, 9  # area of a mark, by whether the node is in the circuit
ROW_HEIGHT, CURVE_HEIGHT = 0.17, 2.1  # inches


def write(path: Path, found: Formation) -> Path:
    """Draws a PNG and returns its path."""
    rows = ROW_HEIGHT * len(found.nodes) + 0.8
    figure = Figure(figsize=(9, 3 * CURVE_HEIGHT + rows), dpi=120, layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[CURVE_HEIGHT] * 3 + [rows])
    for each in axes:
        each.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    _losses(found, axes[0])
    _sizes(found, axes[1])
    _overlaps(found, axes[2])
    _nodes(found, axes[3], figure)
    figure.suptitle(f"{found.task}: circuits while the model was trained", x=0.01, ha="left", fontsize=11)
    axes[3].set_xlabel("million tokens of training")
    for each in axes[:3]:
        each.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1, 0.96), ncols=3)
    figure.savefig(path)
    return path


def _losses(found: Formation, axes: Axes) -> None:
    every = found.checkpoints
    tokens = [_million(each.tokens) for each in every]
    axes.plot(tokens, [_known(each.model_task_loss) for each in every], color=GREY, marker=".", label="full model")
    losses = [_known(each.circuit.task_loss if each.circuit else None) for each in every]
    axes.plot(tokens, losses, color=BLUE, marker="o", markersize=4, label="its circuit then")
    finals = [_known(each.final_circuit_task_loss) for each in every]
    axes.plot(tokens, finals, color=BROWN, marker="s", markersize=4, label="final circuit, with the weights of then")
    axes.axhline(found.target_loss, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(ylabel="held-out task loss\n(nats)", ylim=(0, 1.6 * CHANCE))


def _sizes(found: Formation, axes: Axes) -> None:
    some = [(_million(each.tokens), each.circuit) for each in found.checkpoints if each.circuit]
    tokens = [at for at, _ in some]
    axes.plot(tokens, [len(circuit.nodes) for _, circuit in some], color=BLUE, marker="o", markersize=4, label="nodes")
    axes.plot(tokens, [len(circuit.edges) for _, circuit in some], color=BROWN, marker="s", markersize=4, label="edges")
    axes.set(ylabel="size of the circuit", ylim=(0, None))


def _overlaps(found: Formation, axes: Axes) -> None:
    some = [(_million(each.tokens), each.circuit) for each in found.checkpoints if each.circuit]
    tokens = [at for at, _ in some]
    axes.plot(
        tokens, [circuit.node_overlap for _, circuit in some], color=BLUE, marker="o", markersize=4, label="nodes"
    )
    axes.plot(
        tokens, [circuit.edge_overlap for _, circuit in some], color=BROWN, marker="s", markersize=4, label="edges"
    )
    axes.set(ylabel="overlap with the\nfinal circuit", ylim=(-0.03, 1.05))


def _nodes(found: Formation, axes: Axes, figure: Figure) -> None:
    """A row per node of the final circuit: large marks where it is in the circuit, colored by its correlation."""
    nodes = sorted(found.nodes, key=lambda node: node.from_step)
    points = [
        (_million(each.tokens), row, _known(value), bool(each.circuit and node.node in each.circuit.nodes))
        for row, node in enumerate(nodes)
        for each, value in zip(found.checkpoints, node.correlation, strict=True)
    ]
    drawn = axes.scatter(
        [point[0] for point in points],
        [point[1] for point in points],
        c=[point[2] for point in points],
        s=[IN if point[3] else OUT for point in points],
        marker="s",
        cmap=mpl.colormaps["RdBu"].with_extremes(bad=CONSTANT),
        vmin=-1,
        vmax=1,
        edgecolors=["#333333" if point[3] else "none" for point in points],
        linewidths=0.6,
        plotnonfinite=True,
    )
    axes.set_yticks(range(len(nodes)), [f"layer {node.layer} {node.site} {node.channel}" for node in nodes], fontsize=7)
    axes.set_ylim(len(nodes) - 0.4, -0.6)
    bar = figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.4, aspect=40)
    bar.set_label(
        "correlation of a node’s values with its final ones (yellow: they do not vary); large: it is in the circuit",
        fontsize=8,
    )


def _known(value: float | None) -> float:
    """A value as matplotlib takes it: it leaves out what is not a number."""
    return math.nan if value is None else value


def _million(tokens: int) -> float:
    return tokens / 1e6
