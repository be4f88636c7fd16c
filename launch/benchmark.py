"""Measures speed and memory on this machine and prints a table; the numbers go to WORKDIR/benchmark.json.

python -m launch.benchmark --workdir=runs/benchmark
python -m launch.benchmark --workdir=runs/benchmark --parts=selection --rounds=3
"""

import datetime
import os
from typing import Any

import jax
from absl import flags
from tqdm import tqdm

from launch import cli, measure
from sparse_gpt.errors import InputError
from sparse_gpt.training import manifest

PARTS = ("train", "selection", "search", "circuit", "checkpoints", "data")

cli.define_workdir()
flags.DEFINE_list("parts", list(PARTS), f"What to measure: any of {', '.join(PARTS)}.")
flags.DEFINE_list("sizes", list(measure.SIZES), f"Sizes of the train step: any of {', '.join(measure.SIZES)}.")
flags.DEFINE_list("dtypes", ["float32"], "Compute dtypes of the train step: float32, bfloat16.")
flags.DEFINE_integer("rounds", 7, "Timed rounds; medians are reported.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Flags to calls of launch.measure, a table, and a JSON file."""
    del argv
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
    manifest.write_json(path, result)
    for name in PARTS:
        if name in result:
            print(f"\n{name}")
            _print_table(result[name])
    print(f"\n-> {path}")


def _jobs() -> list[tuple[str, Any]]:
    """(part, call that returns rows) for everything asked for. InputError for unknown names."""
    f = flags.FLAGS
    known = {"parts": PARTS, "sizes": tuple(measure.SIZES), "dtypes": ("float32", "bfloat16")}
    for flag, choices in known.items():
        for value in getattr(f, flag):
            if value not in choices:
                raise InputError(f"--{flag}={value}: choose from {', '.join(choices)}")
    jobs: list[tuple[str, Any]] = []
    if "train" in f.parts:
        for size in f.sizes:
            for dtype in f.dtypes:
                jobs.append(("train", lambda size=size, dtype=dtype: [measure.train_step(size, dtype, f.rounds)]))
    if "selection" in f.parts:
        jobs += [("selection", lambda n=n: [measure.selection(f.rounds, n)]) for n in (4, 16, 32, 256)]
    if "search" in f.parts:
        jobs.append(("search", lambda: measure.search_steps((1, 4, 8), 16, f.rounds)))
    if "circuit" in f.parts:
        jobs += [("circuit", lambda n=n: [measure.circuit_alone(f.rounds, n)]) for n in (1, 3, 8)]
    if "checkpoints" in f.parts:
        jobs.append(("checkpoints", lambda: [measure.checkpoints(f.rounds)]))
    if "data" in f.parts:
        jobs.append(("data", lambda: [measure.data_wait(f.rounds)]))
    return jobs


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Aligned columns."""
    cells = [list(rows[0])] + [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    cli.run(main)
