"""Draws what a workdir holds into one page, WORKDIR/report/index.html, that opens offline.

python -m launch.report --workdir=runs/quickstart
"""

from absl import flags

from launch import cli, stored
from sparse_gpt.folders import Before
from sparse_gpt.report import build_report
from sparse_gpt.report.files import read_workdir

cli.define_workdir()
flags.adopt_module_key_flags(cli)  # so that --help shows --workdir


def main(argv: list[str]) -> None:
    """Builds the page and prints where it is."""
    del argv
    with Before(cli.workdir()).unless():
        folder = cli.hold(stored.existing_workdir())
        path = build_report(folder)
    held = read_workdir(folder)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"  {len(held.metrics)} logged steps; circuits: {', '.join(c.folder.name for c in held.circuits) or 'none'}")


if __name__ == "__main__":
    cli.run(main)
