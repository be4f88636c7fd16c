"""Draws what a workdir holds into one page, WORKDIR/report/index.html, that opens offline.

python -m launch.report --workdir=runs/quickstart
"""

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()


def main() -> None:
    """Builds the page and prints where it is."""
    from sparse_gpt.records import read_workdir
    from sparse_gpt.report import build_report

    with stored.workdir() as folder:
        path = build_report(folder)
    made = read_workdir(folder)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"  {len(made.metrics)} logged steps; circuits: {', '.join(c.folder.name for c in made.circuits) or 'none'}")


if __name__ == "__main__":
    cli.run(define_flags, main)
