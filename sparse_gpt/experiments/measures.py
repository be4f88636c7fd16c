"""What experiments measure of finished runs, from the files that launch scripts leave, and the statistics of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sparse_gpt.errors import InputError
from sparse_gpt.experiments.harness import circuit, metrics_rows
from sparse_gpt.records import Evaluation, Search
from sparse_gpt.records.search import TargetPoint

TARGET = 0.15  # task loss in nats at which circuits are compared
RESAMPLES = 10_000  # bootstrap draws for every interval


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


def target_points(workdir: Path, task: str) -> tuple[TargetPoint, ...]:
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
    # A line that is nearly flat leads to widths beyond any number.
    guess = math.exp(np.clip(x[0] + (wanted - y[0]) / slope, *np.log(limits))) if slope < 0 else near[0]
    allowed = [width for width in range(limits[0], limits[1] + 1, step) if width not in tried]
    return min(allowed, key=lambda width: abs(width - guess))
