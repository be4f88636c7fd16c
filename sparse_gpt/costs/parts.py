"""The parts of launch.benchmark, and the table that shows what they measured."""

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
from tqdm import tqdm

from sparse_gpt.costs import accelerator, benchmark, circuit_benchmark
from sparse_gpt.costs.startup import quickstart, startup
from sparse_gpt.io import Tree, write_json
from sparse_gpt.visible import columns

Row = Tree
FRACTIONS = (4, 16, 32, 256)  # of the entries that a selection keeps
POPULATIONS = (1, 4, 8)  # of the mask search
PROMPT_TOKENS = 16
NODES_PER_SITE = (1, 3, 8)  # of a circuit


class Measurement(NamedTuple):
    """A part of the benchmark, and the call that measures a row or several rows of it."""

    part: str
    call: Callable[[], Row | list[Row]]

    def run(self) -> list[Row]:
        """The rows."""
        found = self.call()
        return found if isinstance(found, list) else [found]


def plan(parts: Sequence[str], sizes: Sequence[str], dtypes: Sequence[str], rounds: int) -> list[Measurement]:
    """Everything that is to be measured.

    Args:
        parts: any of train, selection, search, circuit, checkpoints, data, startup, quickstart, accelerator.
        sizes: of the train step, see `sizes.SIZES`.
        dtypes: compute dtypes of the train step.
        rounds: how often each call is timed.
    """
    return [each for each in _plan_all(sizes, dtypes, rounds) if each.part in parts]


def _plan_all(sizes: Sequence[str], dtypes: Sequence[str], rounds: int) -> Iterator[Measurement]:
    yield Measurement("startup", partial(startup, rounds))
    yield Measurement("quickstart", quickstart)
    for size in sizes:
        for dtype in dtypes:
            yield Measurement("train", partial(benchmark.train_step, size, dtype, rounds))
    for fraction in FRACTIONS:
        yield Measurement("selection", partial(benchmark.selection, rounds, fraction))
    yield Measurement("search", partial(circuit_benchmark.search_steps, POPULATIONS, PROMPT_TOKENS, rounds))
    for count in NODES_PER_SITE:
        yield Measurement("circuit", partial(circuit_benchmark.circuit_alone, rounds, count))
    yield Measurement("checkpoints", partial(benchmark.checkpoints, rounds))
    yield Measurement("data", partial(benchmark.data_wait, rounds))
    for call in accelerator.plan(rounds):
        yield Measurement("accelerator", call)


def measure(measurements: Sequence[Measurement], rounds: int, path: Path) -> Tree:
    """Takes measurements, with a bar, and writes what there is after each to `path`, should the next take too long."""
    result: Tree = {
        "format": "sparse_gpt.benchmark/1",
        "date": datetime.date.today().isoformat(),
        "machine": {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count()},
        "rounds": rounds,
    }
    for each in tqdm(measurements, desc="benchmark", unit="part"):
        result.setdefault(each.part, []).extend(each.run())
        write_json(path, result)
    return result


def print_table(rows: Sequence[Row]) -> None:
    """Prints rows with equal keys in aligned columns."""
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    print("\n".join(columns(cells)))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
