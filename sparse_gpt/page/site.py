"""All pages of a workdir: those of its circuits, the one that compares them, and the way to them from the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sparse_gpt import tasks
from sparse_gpt.page.page import build_pages
from sparse_gpt.page.twin import shared_prompts
from sparse_gpt.records import read_workdir
from sparse_gpt.report import build_overview, build_report
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir


def build_site(run: Workdir, circuits: Sequence[Sequence[AnyTask]], twin: Workdir | None = None) -> Iterator[str]:
    """Writes the pages of some circuits, or of all with the page that compares them, and leads a report there.

    Args:
      run: the model.
      circuits: as of `build_pages`; none for all.
      twin: another model, whose circuits the page of all shows beside these.

    Yields:
      A line for each page that is made.

    Raises:
      InputError, TaskError: as `build_pages`; TaskError also where there is no circuit at all.
    """
    if not circuits:
        tasks.circuit_names(
            run.folder
        )  # a table of files' circuits is made, though they have no page without their files
    every = tasks.circuits_in(run.folder)
    for path in build_pages(run, circuits or every, indexed=not circuits):
        yield f"{path.parent.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)"
    if not circuits:
        prompts = shared_prompts(run, twin, [task for members in every for task in members]) if twin else []
        beside = read_workdir(twin.folder) if twin else None
        yield f"all circuits: {build_overview(read_workdir(run.folder), beside, prompts)}"
    if not _leads_to_all(run.folder):
        yield f"report, which leads to it now: {build_report(run.folder)}"


def _leads_to_all(folder: Path) -> bool:
    """Whether the report, if there is one, leads to the pages of all circuits."""
    report = folder / "report" / "index.html"
    if not report.is_file():
        return True
    text = report.read_text(encoding="utf-8")
    return all(f"circuits/{path.parent.name}/page.html" in text for path in folder.glob("circuits/*/page.html"))
