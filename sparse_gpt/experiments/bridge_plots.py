"""Figures of the experiment on bridges, as PNG: what bridge.json, steering.json and transport.json hold."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from sparse_gpt.experiments import plots
from sparse_gpt.records import Bridge, Steering, Transport
from sparse_gpt.records.base import CHANCE
from sparse_gpt.records.bridge import Measures
from sparse_gpt.report.mixture_grids import Grid, mixture_grids

KINDS = {"trained": "#1f6feb", "untrained": "#999999", "linear": "#b3541e"}
WAYS = {"to_sparse": ("o", "-"), "to_dense": ("s", "--")}
STEERED = (
    ("sparse", "sparse model", plots.COLORS["sparse"], "-"),
    ("stream", "dense model, its stream", plots.COLORS["dense"], "-"),
    ("dense", "dense model, one read", plots.COLORS["dense"], "--"),
)
LABELED = 100  # cells of a heat map that still have room for their numbers


def write(folder: Path, record: Bridge, found: Sequence[tuple[Steering, Transport]]) -> list[Path]:
    """Draws everything into a folder and returns the files.

    Args:
      folder: receives nmse.png, hybrids.png, mixtures.png, all_mixtures.png, steering_TASK.png and transport.png.
      record: bridge.json.
      found: steering.json and transport.json of every task whose circuit was taken to the dense model.
    """
    written = []

    def draw(name: str, title: str, x: str, y: str, plot: Callable[[Axes], None]) -> None:
        plots.draw(folder / name, title, x, y, plot, logarithmic=False)
        written.append(folder / name)

    boundary = "bridged boundary, dense : sparse"
    draw("nmse.png", "Error of the bridges", boundary, "NMSE", partial(nmse, record))
    above = "nats above the dense model's loss"
    draw("hybrids.png", "Loss of the single-switch hybrids", boundary, above, partial(hybrids, record))
    for name, grid in zip(("mixtures.png", "all_mixtures.png"), mixture_grids(record), strict=False):
        title = f"{grid.title}: {above}"
        draw(name, title, grid.column_title, grid.row_title, partial(heat_map, grid))
    for steering, _ in found:
        node = steering.node.node.key
        title = f"{steering.task}: both models steered through node {node}, {steering.pairs} held-out pairs"
        foil = "foil's share of both answers"
        draw(f"steering_{steering.task}.png", title, "strength", foil, partial(curves, steering))
    if found:
        title = "The dense model without the image of a circuit"
        draw("transport.png", title, "", "task loss (nats)", lambda axes: transported([x for _, x in found], axes))
    return written


def _boundaries(record: Bridge, axes: Axes) -> np.ndarray:
    names = [f"{each.dense} : {each.sparse}" for each in record.bridges]
    places = np.arange(len(names))
    axes.set_xticks(places, names)
    return places


def _of_kind(record: Bridge, kind: str) -> list[Measures]:
    """Of every boundary; [] without that control."""
    found = [getattr(each, kind) for each in record.bridges]
    return [] if None in found else found


def _above(loss: float | None, dense: float) -> float:
    return math.nan if loss is None else loss - dense


def nmse(record: Bridge, axes: Axes) -> None:
    """Encoders and decoders of every kind of bridge against the boundary."""
    places = _boundaries(record, axes)
    axes.set_yscale("log")
    for kind, color in KINDS.items():
        measures = _of_kind(record, kind)
        if not measures:
            continue
        for part, marker, line in (("encoder", "o", "-"), ("decoder", "s", "--")):
            values = [getattr(each, f"nmse_{part}") for each in measures]
            axes.plot(places, values, color=color, marker=marker, linestyle=line, label=f"{kind}, {part}")
    _legend_beside(axes)


def hybrids(record: Bridge, axes: Axes) -> None:
    """Loss of both hybrids at every boundary, above the dense model's."""
    places = _boundaries(record, axes)
    axes.set_yscale("symlog", linthresh=0.1)  # hybrids can be a little better than the dense model
    axes.axhline(0.15, color="#888888", linewidth=0.8, linestyle=":", label="aimed at: 0.15")
    for kind, color in KINDS.items():
        measures = _of_kind(record, kind)
        if not measures:
            continue
        for way, (marker, line) in WAYS.items():
            values = [_above(getattr(each, f"loss_{way}"), record.dense_loss) for each in measures]
            label = f"{kind}, ends {way.removeprefix('to_')}"
            axes.plot(places, values, color=color, marker=marker, linestyle=line, label=label)
    _legend_beside(axes)


def heat_map(grid: Grid, axes: Axes) -> None:
    """A grid of mixtures; cells without a hybrid stay empty."""
    values = np.array(grid.above, np.float64)
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(np.arange(len(grid.columns)), grid.columns, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(np.arange(len(grid.rows)), grid.rows, fontsize=8)
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes)
    if values.size > LABELED:
        return
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    digits = 2 if np.nanmax(np.abs(values)) >= 0.1 else 3
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        value = values[row, column]
        color = "wk"[int(value > middle)]
        axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color=color)


def curves(steering: Steering, axes: Axes) -> None:
    """The foil's share of both answers against strength: sparse model, dense model both ways, random directions."""
    strengths, found = steering.strengths, steering.curves
    for i, draw in enumerate((*found.random, *found.random_stream)):
        axes.plot(strengths, draw.share, color="#bbbbbb", linewidth=1, label=None if i else "random directions")
    for name, label, color, line in STEERED:
        axes.plot(strengths, getattr(found, name).share, line, color=color, linewidth=2, marker="o", label=label)
    axes.set_ylim(-0.02, 1.02)


def transported(found: Sequence[Transport], axes: Axes) -> None:
    """Task loss of the dense model as it is, without the image of a task's circuit, and without random images."""
    axes.set_xticks(np.arange(len(found)), [each.task for each in found])
    axes.set_xlim(-0.6, len(found) - 0.4)
    axes.axhline(CHANCE, color="#888888", linewidth=0.8, linestyle=":", label="chance")
    for i, each in enumerate(found):
        random = [draw.task_loss for draw in each.random]
        label = [None] * 3 if i else ["as it is", "without the circuit's image", "without random images"]
        axes.plot(i, each.dense.task_loss, "_", markersize=25, color="#222222", label=label[0])
        if each.image:
            axes.plot(i, each.image.task_loss, "D", color=plots.COLORS["dense"], label=label[1])
        axes.plot([i + 0.15] * len(random), random, "o", color="#999999", alpha=0.5, label=label[2])
    _legend_beside(axes)


def _legend_beside(axes: Axes) -> None:
    """The legend right of the axes: lines may be anywhere inside."""
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
