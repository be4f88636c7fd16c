"""The work of launch.benchmark."""

import datetime
import os
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from tqdm import tqdm

from sparse_gpt.costs import benchmark
from sparse_gpt.costs.startup import quickstart, startup
from sparse_gpt.io import write_json

from .. import cli


def main(parts: Sequence[str]) -> None:
    """Flags to calls of sparse_gpt.costs.benchmark, a table with `parts` in their order, and a JSON file."""
    jobs = _jobs()
    cli.hold(cli.workdir())
    result: dict[str, Any] = {
        "format": "sparse_gpt.benchmark/1",
        "date": datetime.date.today().isoformat(),
        "machine": {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count()},
        "rounds": flags.FLAGS.rounds,
    }
    for name, job in tqdm(jobs, desc="benchmark", unit="part"):
        result.setdefault(name, []).extend(job())
    path = cli.workdir() / "benchmark.json"
    write_json(path, result)
    for name in parts:
        if name in result:
            print(f"\n{name}")
            _print_table(result[name])
    print(f"\n-> {path}")


def _jobs() -> list[tuple[str, Any]]:
    """(part, call that returns rows) for everything asked for."""
    f = flags.FLAGS
    jobs: list[tuple[str, Any]] = []
    if "startup" in f.parts:
        jobs.append(("startup", lambda: startup(f.rounds)))
    if "quickstart" in f.parts:
        jobs.append(("quickstart", lambda: [quickstart()]))
    if "train" in f.parts:
        for size in f.sizes:
            for dtype in f.dtypes:
                jobs.append(("train", lambda size=size, dtype=dtype: [benchmark.train_step(size, dtype, f.rounds)]))
    if "selection" in f.parts:
        jobs += [("selection", lambda n=n: [benchmark.selection(f.rounds, n)]) for n in (4, 16, 32, 256)]
    if "search" in f.parts:
        jobs.append(("search", lambda: benchmark.search_steps((1, 4, 8), 16, f.rounds)))
    if "circuit" in f.parts:
        jobs += [("circuit", lambda n=n: [benchmark.circuit_alone(f.rounds, n)]) for n in (1, 3, 8)]
    if "checkpoints" in f.parts:
        jobs.append(("checkpoints", lambda: [benchmark.checkpoints(f.rounds)]))
    if "data" in f.parts:
        jobs.append(("data", lambda: [benchmark.data_wait(f.rounds)]))
    return jobs


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Aligned columns."""
    cells = [list(rows[0])] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
