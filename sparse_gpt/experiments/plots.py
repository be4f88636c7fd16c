"""Tables and pictures of experiments: CSV files, and PNG files by matplotlib."""

import csv
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sparse_gpt.experiments import measures
from sparse_gpt.io import Json

mpl.use("agg")

COLORS = {"sparse": "#1f6feb", "sparse_half": "#2e8b57", "dense": "#b3541e"}
RANKING_COLORS = {
    "mask search": "#1f6feb",
    "attribution": "#b3541e",
    "integrated gradients": "#2e8b57",
    "weight magnitude": "#8a5fb5",
    "random": "#888888",
}


def write_csv(path: Path, rows: Sequence[Mapping[str, Json]]) -> None:
    """One line per row, columns as in the first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, title: str, x: str, y: str, plot: Callable[[Axes], None], logarithmic: bool = True) -> None:
    """A PNG of one pair of axes that `plot` fills."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7.5, 4.8), dpi=130, layout="constrained")
    axes = figure.subplots()
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
    figure.savefig(path)


def sizes_against_targets(rows: Sequence[Mapping[str, Json]], axes: Axes) -> None:
    """Edges against target loss: a thin line per model and task, a thick one for the geometric mean of each model."""
    for model in dict.fromkeys(row["model"] for row in rows):
        color = (COLORS | RANKING_COLORS)[model]
        reached = [row for row in rows if row["model"] == model and row["reached"]]
        tasks = list(dict.fromkeys(row["task"] for row in reached))
        for task in tasks:
            line = [(row["target_loss"], max(1, row["edges"])) for row in reached if row["task"] == task]
            axes.plot(*zip(*line, strict=True), color=color, alpha=0.3, linewidth=1)
        mean = [
            (target, measures.geometric_mean([row["edges"] for row in reached if row["target_loss"] == target]))
            for target in sorted({row["target_loss"] for row in reached})
            if sum(row["target_loss"] == target for row in reached) == len(tasks)
        ]
        if mean:
            label = f"{model}: geometric mean of {len(tasks)} tasks"
            axes.plot(*zip(*mean, strict=True), color=color, linewidth=2.5, marker="o", label=label)
    axes.axvline(measures.TARGET, color="#888888", linewidth=0.8, linestyle=":")
