"""The report: one HTML file that opens offline. Its content security policy forbids it to load anything."""

import dataclasses
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.io import write_atomic
from sparse_gpt.records import Workdir, read_workdir
from sparse_gpt.report.bridge_section import bridge_section
from sparse_gpt.report.circuit_section import circuit_section
from sparse_gpt.report.rendering import fill
from sparse_gpt.report.sections import evaluation, file_list, headline, summary, training

_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of the page, reachable as #anchor; `name` is what the list of links calls it instead."""

    anchor: str
    title: str
    body: str
    name: str = ""


def build_report(workdir: str | Path) -> Path:
    """Writes WORKDIR/report/index.html from the files in WORKDIR, and returns its path.

    Parts whose files are missing are left out, with the command that makes them. Raises InputError, before anything is
    written, if the workdir has no config.json or a file is broken or of another format.
    """
    files = read_workdir(workdir)
    page = render(files)
    path = files.folder / "report" / "index.html"
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, page.encode("utf-8", "replace"))  # lone surrogates become "?"
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free the place or make it writable") from error
    return path


def render(workdir: Workdir) -> str:
    """The page as text."""
    parts = [Section("summary", "Circuits", summary(workdir))]
    if measured := evaluation(workdir):
        parts.append(Section("evaluation", "Full model on the tasks", measured))
    if workdir.bridge:
        parts.append(Section("bridges", "Bridges to the dense model", bridge_section(workdir)))
    parts.append(Section("training", "Training", training(workdir)))
    d_head, fingerprint = workdir.settings.model.d_head or 0, workdir.manifest.params_sha256 or ""
    for files in workdir.circuits:
        task, body = files.circuit.task, circuit_section(files, d_head, fingerprint)
        parts.append(Section(f"circuit-{task}", f"Circuit: {task}", body, name=task))
    parts.append(Section("reading", "How to read this", fill("reading.html")))
    parts.append(Section("files", "Files", file_list(workdir)))
    return fill(
        "page.html",
        title=workdir.folder.resolve().name,
        headline=headline(workdir),
        sections=parts,
        style=_read("style.css"),
        script=_read("script.js"),
    )


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
