"""The log of a training run: metrics.jsonl, one object per logged step, and the same numbers for TensorBoard."""

import json
import math
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, Tree, read_bytes, write_atomic
from sparse_gpt.records import MetricsRow
from sparse_gpt.training import distributed
from sparse_gpt.training.schedules import StepSettings


class MetricsLog:
    """Written by process 0; every process may call it. A context manager, which closes TensorBoard's file."""

    def __init__(self, workdir: Path, tokens_per_step: int, start: int):
        """Goes on with the log of `workdir` at step `start`; later lines are of steps that will be done again."""
        self._path = workdir / "metrics.jsonl"
        self._tokens_per_step = tokens_per_step
        self._dead_neurons: int | None = None  # as last measured
        self._tensorboard = None
        if distributed.is_first():
            self._tensorboard = SummaryWriter(str(workdir / "tensorboard"))
            self._dead_neurons = forget_after(self._path, start)
        self._mark, self._marked_step = time.perf_counter(), start  # since when tokens per second are counted

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._tensorboard:
            self._tensorboard.close()

    def write(
        self,
        step: int,
        settings: StepSettings,
        metrics: Tree,
        nonzeros: dict[str, int],
        evaluated: Tree,
    ) -> None:
        """Adds a line.

        Args:
          step: number of the step, from 0.
          settings: what the step was given.
          metrics: what it returned, fetched from the devices: loss, grad_rms; further ones under their own names.
          nonzeros: entries that are not zero, per tensor.
          evaluated: results of an evaluation after the step; empty when there was none.
        """
        now, tokens = time.perf_counter(), self._tokens_per_step
        entry = {
            "step": step,
            "tokens": (step + 1) * tokens,
            "loss": float(metrics["loss"]),
            "lr": settings.learning_rate,
            "density": settings.density,
            "grad_rms": float(metrics["grad_rms"]),
            "tokens_per_second": (step + 1 - self._marked_step) * tokens / max(now - self._mark, 1e-9),
            "nonzeros": nonzeros,
        }
        entry |= {name: _plain(metrics[name]) for name in sorted(metrics.keys() - {"loss", "grad_rms"})}
        self._dead_neurons = evaluated.get("dead_neurons", self._dead_neurons)
        entry |= {name: _plain(value) for name, value in evaluated.items()} | {"dead_neurons": self._dead_neurons}
        self._mark, self._marked_step = time.perf_counter(), step + 1
        if self._tensorboard is None:
            return
        with self._path.open("a") as file:
            file.write(_line(MetricsRow.from_tree(entry)))
        for name, value in entry.items():
            if isinstance(value, int | float) and name != "step":
                self._tensorboard.add_scalar(name, value, step)


def forget_after(path: Path, start: int) -> int | None:
    """Drops lines of steps from `start` on, and one cut short by a kill. Returns dead_neurons of the last line left."""
    if not path.is_file():
        return None
    kept, dropped, dead_neurons = [], 0, None
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = MetricsRow.parse(line, f"{path}: line {number}")
        except InputError:
            dropped += number < len(lines)  # what is after the last line break was cut short by a kill
            continue
        if row.step < start:
            kept.append(_line(row))
            dead_neurons = row.dead_neurons
    if dropped:
        tqdm.write(f"{path}: {dropped} damaged lines are left out")
    write_atomic(path, "".join(kept).encode())
    return dead_neurons


def _line(row: MetricsRow) -> str:
    """As it stands in metrics.jsonl."""
    return json.dumps(row.tree(), allow_nan=False) + "\n"


def _plain(value: object) -> Json:
    """A number or a list of numbers as JSON has them; None for what was not measured (NaN) or is infinite."""
    listed = np.asarray(value, np.float64).tolist()
    if isinstance(listed, list):
        return [_plain(number) for number in listed]
    return listed if math.isfinite(listed) else None
