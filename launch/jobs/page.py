"""The work of launch.page."""

from pathlib import Path

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.errors import InputError
from sparse_gpt.page import build_gallery, build_pages, shared_prompts
from sparse_gpt.records import read_workdir
from sparse_gpt.report import build_overview, build_report
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

from .. import stored


def main() -> None:
    """Builds the pages and prints where they are."""
    named, twin = flags.FLAGS.task, flags.FLAGS.twin
    if flags.FLAGS.gallery and twin:
        raise InputError("--twin goes with the page of all circuits, not with --gallery; leave one of them out")
    if named and twin:
        raise InputError("--twin goes with the page of all circuits; leave --task out")
    chosen = tasks.select_circuits(named) if named else []
    with stored.workdir() as folder:
        run, other = Workdir(folder), Workdir(twin) if twin else None
        if flags.FLAGS.gallery:
            path = build_gallery(run, chosen or _all(folder))
            print(f"gallery: {path} ({path.stat().st_size / 1e6:.1f} MB)")
            return
        for path in build_pages(run, chosen or _all(folder), indexed=not named):
            print(f"{path.parent.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        if not named:
            _compare(folder, run, other)
        _join_report(folder)


def _compare(folder: Path, run: Workdir, other: Workdir | None) -> None:
    """Writes the page of all circuits, beside those of another model if there is one."""
    members = [task for circuit in _all(folder) for task in circuit]
    prompts = shared_prompts(run, other, members) if other else []
    path = build_overview(read_workdir(folder), read_workdir(other.folder) if other else None, prompts)
    print(f"all circuits: {path}")


def _join_report(folder: Path) -> None:
    """Makes a report that is there again if it does not lead to all the pages yet."""
    report = folder / "report" / "index.html"
    if not report.is_file():
        return
    text = report.read_text(encoding="utf-8")
    if not all(f"circuits/{path.parent.name}/page.html" in text for path in folder.glob("circuits/*/page.html")):
        print(f"report, which leads to it now: {build_report(folder)}")


def _all(folder: Path) -> list[list[AnyTask]]:
    """Tasks of every circuit that is there. Those of files of one's own have to be named by --task."""
    found = (path.parent.name.split("+") for path in sorted(folder.glob("circuits/*/circuit.json")))
    return [[tasks.TASKS[name] for name in names] for names in found if all(name in tasks.TASKS for name in names)]
