"""The work of launch.benchmark."""

from collections.abc import Sequence

from absl import flags

from sparse_gpt.costs.parts import measure, plan, print_table

from .. import cli


def main(parts: Sequence[str]) -> None:
    """Measures what flags ask for, prints a table with `parts` in their order, and writes benchmark.json."""
    f = flags.FLAGS
    measurements, path = plan(f.parts, f.sizes, f.dtypes, f.rounds), cli.workdir() / "benchmark.json"
    cli.hold(cli.workdir())
    result = measure(measurements, f.rounds, path)
    for name in parts:
        if name in result:
            print(f"\n{name}")
            print_table(result[name])
    print(f"\n-> {path}")
