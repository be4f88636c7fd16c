"""Figures of launch/reproduce that compare circuits between models: what they measure, as CSV, and how it is drawn.

Everything is measured from files that launch scripts leave: evaluation.json, metrics.jsonl, circuits/TASK/search.json.
"""

import csv
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sparse_gpt.errors import InputError
from sparse_gpt.experiments.harness import circuit, metrics_rows
from sparse_gpt.records import Evaluation, Search
from sparse_gpt.records.search import TargetPoint

mpl.use("agg")

TARGET = 0.15  # task loss in nats at which circuits are compared
RESAMPLES = 10_000  # bootstrap draws behind every interval
COLOURS = {"sparse": "#1f6feb", "dense": "#b3541e"}
RANKING_COLOURS = {
    "mask search": "#1f6feb",
    "attribution": "#b3541e",
    "integrated gradients": "#2e8b57",
    "weight magnitude": "#8a5fb5",
    "random": "#888888",
}


def validation_loss(workdir: Path) -> float:
    """The last held-out pretraining loss (nats per token) that training logged."""
    found = [row.val_loss for row in metrics_rows(workdir) if row.val_loss is not None]
    if not found:
        raise InputError(f"{workdir / 'metrics.jsonl'}: has no val_loss; finish the training first")
    return found[-1]


def solved(workdir: Path, target: float) -> list[str]:
    """Tasks whose held-out task loss is at most `target` for the whole model, in the order of the suite."""
    rows = Evaluation.read(workdir / Evaluation.FILE).tasks
    return [row.task for row in rows if row.task_loss is not None and row.task_loss <= target]


def points(workdir: Path, task: str) -> tuple[TargetPoint, ...]:
    """Sizes of a task's circuit at each target loss: the best ranking's first nodes, before any refinement."""
    path = workdir / "circuits" / task / "search.json"
    found = Search.read(path).size_versus_target
    if found is None:
        raise InputError(f"{path}: size_versus_target is missing; {Search.REMEDY}")
    return found.points


def minimal_size(workdir: Path, task: str) -> tuple[int, int]:
    """Nodes and edges of a task's circuit after refinement."""
    found = circuit(workdir, task)
    return len(found.nodes), len(found.edges)


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm; values below 1 count as 1, because a circuit may have no edge at all."""
    return float(np.exp(np.mean(np.log(np.maximum(1, values)))))


def ratio_with_interval(above: Sequence[float], below: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Ratio of geometric means over paired tasks, and its 95% bootstrap interval over tasks."""
    logs = np.log(np.maximum(1, above)) - np.log(np.maximum(1, below))
    draws = np.random.default_rng(seed).integers(0, len(logs), (RESAMPLES, len(logs)))
    low, high = np.quantile(logs[draws].mean(axis=1), (0.025, 0.975))
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def next_width(tried: Mapping[int, float], wanted: float, step: int = 4, limits: tuple[int, int] = (16, 512)) -> int:
    """The width to try next, so that a model's loss becomes `wanted`.

    Args:
      tried: width -> loss; at least two entries.
      wanted: the loss to meet.
      step: widths are multiples of this.
      limits: smallest and largest width.

    Returns:
      by the line through the two nearest losses, linear in log width; the untried multiple of `step` closest to it.
    """
    near = sorted(tried, key=lambda width: abs(tried[width] - wanted))[:2]
    x, y = np.log(near), np.array([tried[width] for width in near])
    slope = (y[1] - y[0]) / (x[1] - x[0])
    guess = math.exp(x[0] + (wanted - y[0]) / slope) if slope < 0 else near[0]
    allowed = [width for width in range(limits[0], limits[1] + 1, step) if width not in tried]
    return min(allowed, key=lambda width: abs(width - guess))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row, columns as in the first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, title: str, x: str, y: str, plot: Callable[[Axes], None], logarithmic: bool = True) -> None:
    """A PNG of one pair of axes that `plot` fills."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = Figure(figsize=(7.5, 4.8), dpi=130, layout="constrained")
    axes = canvas.subplots()
    axes.set(xlabel=x, ylabel=y)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):  # 0.02, 20 and 2,000 instead of powers of ten
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            axis.set_minor_formatter(NullFormatter())
    axes.set_title(textwrap.fill(title, 85), loc="left", fontsize=11)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    plot(axes)
    if axes.get_legend_handles_labels()[0] and axes.get_legend() is None:
        axes.legend(frameon=False, fontsize=9)
    canvas.savefig(path)


def sizes_against_targets(rows: Sequence[Mapping[str, Any]], axes: Axes) -> None:
    """Edges against target loss: a thin line per model and task, a thick one for the geometric mean of each model."""
    for model in dict.fromkeys(row["model"] for row in rows):
        colour = (COLOURS | RANKING_COLOURS)[model]
        own = [row for row in rows if row["model"] == model and row["reached"]]
        tasks = list(dict.fromkeys(row["task"] for row in own))
        for task in tasks:
            line = [(row["target_loss"], max(1, row["edges"])) for row in own if row["task"] == task]
            axes.plot(*zip(*line, strict=True), color=colour, alpha=0.3, linewidth=1)
        mean = [
            (target, geometric_mean([row["edges"] for row in own if row["target_loss"] == target]))
            for target in sorted({row["target_loss"] for row in own})
            if sum(row["target_loss"] == target for row in own) == len(tasks)
        ]
        if mean:
            label = f"{model}: geometric mean of {len(tasks)} tasks"
            axes.plot(*zip(*mean, strict=True), color=colour, linewidth=2.5, marker="o", label=label)
    axes.axvline(0.15, color="#888888", linewidth=0.8, linestyle=":")
