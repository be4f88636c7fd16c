"""The report: one HTML file that opens offline. Its content security policy forbids it to load anything."""

from pathlib import Path

from plotly.offline import get_plotlyjs

from sparse_gpt.drawing.text import escape
from sparse_gpt.errors import InputError
from sparse_gpt.io import write_atomic
from sparse_gpt.records import Workdir, read_workdir
from sparse_gpt.report.bridge_section import bridge_section
from sparse_gpt.report.charts import training_charts
from sparse_gpt.report.circuit_section import circuit_section
from sparse_gpt.report.sections import (
    chart_grid,
    evaluation_table,
    file_list,
    headline,
    missing,
    section,
    summary,
)

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


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
        write_atomic(path, page.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free the place or make it writable") from error
    return path


def render(workdir: Workdir) -> str:
    """The page as text."""
    name = workdir.folder.resolve().name
    parts = [("summary", "Circuits", summary(workdir.circuits, workdir))]
    if workdir.evaluation:
        parts.append(("evaluation", "Full model on the tasks", evaluation_table(workdir.evaluation)))
    if workdir.bridge:
        parts.append(("bridges", "Bridges to the dense model", bridge_section(workdir)))
    parts.append(("training", "Training", _training(workdir)))
    d_head, fingerprint = workdir.settings.model.d_head or 0, workdir.manifest.params_sha256 or ""
    sections = [section(anchor, title, body) for anchor, title, body in parts]
    sections += [circuit_section(files, d_head, fingerprint) for files in workdir.circuits]
    closing = [("reading", "How to read this", _read("reading.html")), ("files", "Files", file_list(workdir))]
    sections += [section(anchor, title, body) for anchor, title, body in closing]
    links = [(anchor, title) for anchor, title, _ in parts]
    links += [(f"circuit-{files.circuit.task}", files.circuit.task) for files in workdir.circuits]
    links += [(anchor, title) for anchor, title, _ in closing]
    nav = "".join(f'<a href="#{escape(anchor)}">{escape(title)}</a>' for anchor, title in links)
    return _TEMPLATE.format(
        policy=escape(_POLICY),
        title=escape(name),
        style=_read("style.css"),
        plotly=get_plotlyjs(),
        headline=headline(workdir),
        nav=nav,
        sections="\n".join(sections),
        script=_read("script.js"),
    )


def _training(workdir: Workdir) -> str:
    charts = training_charts(workdir.metrics)
    if not charts:
        return missing(
            "No training curves yet. They appear with", f"python -m launch.train --workdir={workdir.folder.name}"
        )
    return chart_grid(charts)


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · sparse_gpt report</title>
<style>{style}</style>
<script>{plotly}</script>
</head>
<body>
<header><p class="eyebrow">sparse_gpt report</p><h1>{title}</h1>{headline}</header>
<nav aria-label="sections">{nav}</nav>
<main>
{sections}
</main>
<script>{script}</script>
</body>
</html>
"""
