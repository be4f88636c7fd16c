"""WORKDIR/circuits/index.html: all circuits of a workdir side by side, in one page that opens offline."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.io import write_atomic
from sparse_gpt.records import CircuitFiles, Workdir
from sparse_gpt.report.figures import LINES, Axis, Chart, Figure, Line
from sparse_gpt.report.rendering import fill
from sparse_gpt.report.sections import stale_for
from sparse_gpt.report.verdicts import card_of, count, verdict

_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What one model predicts after a prompt: its likeliest tokens with their probabilities, and answer minus foil."""

    model: str
    top: Sequence[tuple[str, float]]
    difference: float | None


@dataclasses.dataclass(frozen=True)
class SharedPrompt:
    """One prompt that several models have read."""

    task: str
    prompt: str
    answer: str
    foil: str
    predictions: Sequence[Prediction]


def build_overview(workdir: Workdir, twin: Workdir | None = None, prompts: Sequence[SharedPrompt] = ()) -> Path:
    """Writes the page and returns its path. InputError if it cannot be written.

    Args:
      workdir: whose circuits are shown.
      twin: another model's workdir, whose circuits of the same tasks stand beside these.
      prompts: what both models predict.
    """
    path = workdir.folder / "circuits" / "index.html"
    try:
        write_atomic(path, render_overview(workdir, twin, prompts).encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); free the place or make it writable") from error
    return path


def render_overview(workdir: Workdir, twin: Workdir | None = None, prompts: Sequence[SharedPrompt] = ()) -> str:
    """The page as text."""
    circuits = workdir.circuits
    return fill(
        "overview.html",
        title=workdir.folder.resolve().name,
        rows=[_row(workdir, files) for files in circuits],
        matrix=[[_shared(a, b) for b in circuits] for a in circuits],
        chart=size_curves(circuits),
        data=[_nodes_and_edges(files) for files in circuits],
        twins=_twins(workdir, twin) if twin else [],
        twin=twin.folder.resolve().name if twin else "",
        prompts=prompts,
        report=(workdir.folder / "report" / "index.html").is_file(),
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script=(_HERE / "overview.js").read_text(encoding="utf-8"),
    )


def _row(workdir: Workdir, files: CircuitFiles) -> dict[str, object]:
    name, card = files.folder.name, card_of(files)
    return {
        "name": name,
        "page": f"{name}/page.html" if (files.folder / "page.html").is_file() else "",
        "circuit": files.circuit,
        "other": stale_for(workdir, files.circuit.params_sha256),
        "verdict": verdict(card, files.circuit),
        "card": count(card) if card else "",
        "passed": len([each for each in card.rows if each.verdict == "pass"]) if card else -1,
        "marks": card.rows if card else [],
    }


def _keys(files: CircuitFiles) -> set[str]:
    return {entry.node.key for entry in files.circuit.nodes}


def _shared(a: CircuitFiles, b: CircuitFiles) -> tuple[int, float]:
    """How many nodes two circuits share, and which part that is of all that either has (Jaccard)."""
    first, second = _keys(a), _keys(b)
    return len(first & second), len(first & second) / len(first | second) if first | second else 0.0


def _nodes_and_edges(files: CircuitFiles) -> dict[str, object]:
    """What script compares."""
    names = files.labels.by_key if files.labels else {}
    edges = [f"{edge.source.key} → {edge.target.key}" for edge in files.circuit.edges]
    return {"name": files.folder.name, "nodes": sorted(_keys(files)), "edges": edges, "labels": names}


def size_curves(circuits: Sequence[CircuitFiles]) -> Chart | None:
    """Task loss against size, a line per circuit, the circuit itself as a diamond; None without records of searches."""
    figure = Figure(Axis("edges", log=True), Axis("task loss (nats)", from_zero=True), height=360, legend=True)
    for i, files in enumerate(circuits):
        name, color, metrics = files.folder.name, LINES[i % len(LINES)], files.circuit.metrics
        curve = [point for point in (files.search.loss_versus_size if files.search else ()) if point.edges > 0]
        if curve:
            line = Line(name, [p.edges for p in curve], [p.task_loss for p in curve], color)
            figure.lines.append(line)
        if metrics.edges and metrics.task_loss is not None:
            at = [metrics.edges], [metrics.task_loss]
            figure.lines.append(Line(name, *at, color, joined=False, mark="diamond", listed=not curve))
    if not figure.lines:
        return None
    note = "Circuits of growing size, by each search’s own ranking; diamonds are the circuits that were kept."
    return Chart("Loss versus size", note, figure, wide=True)


def _twins(workdir: Workdir, twin: Workdir) -> list[tuple[CircuitFiles, CircuitFiles]]:
    """Circuits of the same task in both."""
    others = {files.folder.name: files for files in twin.circuits}
    return [(files, others[files.folder.name]) for files in workdir.circuits if files.folder.name in others]
