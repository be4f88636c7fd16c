"""The work of launch.benchmark."""

import datetime
import os
from collections.abc import Sequence

import jax
from absl import flags
from tqdm import tqdm

from sparse_gpt.costs.parts import plan, print_table
from sparse_gpt.io import Tree, write_json

from .. import cli


def main(parts: Sequence[str]) -> None:
    """Measures what flags ask for, prints a table with `parts` in their order, and writes benchmark.json."""
    f = flags.FLAGS
    measurements = plan(f.parts, f.sizes, f.dtypes, f.rounds)
    cli.hold(cli.workdir())
    result: Tree = {
        "format": "sparse_gpt.benchmark/1",
        "date": datetime.date.today().isoformat(),
        "machine": {"device": jax.devices()[0].device_kind, "cpus": os.cpu_count()},
        "rounds": f.rounds,
    }
    path = cli.workdir() / "benchmark.json"
    for each in tqdm(measurements, desc="benchmark", unit="part"):
        result.setdefault(each.part, []).extend(each.run())
        write_json(path, result)  # what is measured is kept, should the next part take too long
    for name in parts:
        if name in result:
            print(f"\n{name}")
            print_table(result[name])
    print(f"\n-> {path}")
