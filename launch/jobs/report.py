"""The work of launch.report."""

from sparse_gpt.records.files import read_workdir
from sparse_gpt.report import build_report

from .. import stored


def main() -> None:
    """Builds the page and prints where it is."""
    with stored.workdir() as folder:
        path = build_report(folder)
    held = read_workdir(folder)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"  {len(held.metrics)} logged steps; circuits: {', '.join(c.folder.name for c in held.circuits) or 'none'}")
