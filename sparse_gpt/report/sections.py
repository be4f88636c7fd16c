"""Parts of the report about the run as a whole: what was trained, the table of circuits, charts, files."""

import statistics
from collections.abc import Mapping

from sparse_gpt.drawing.text import number, sparse_nonzeros
from sparse_gpt.records import Manifest, Workdir
from sparse_gpt.report.charts import training_charts
from sparse_gpt.report.circuit_section import page_of
from sparse_gpt.report.rendering import fill
from sparse_gpt.report.verdicts import card_of, verdict


def headline(workdir: Workdir) -> str:
    """What was trained, on what; configuration and manifest folded away."""
    density, last = workdir.settings.sparsity.density, workdir.metrics[-1] if workdir.metrics else None
    losses = [row.val_loss for row in workdir.metrics if row.val_loss is not None]
    return fill(
        "headline.html",
        settings=workdir.settings,
        kind="weight-sparse transformer" if (density or 1) < 1 else "dense transformer",
        steps=_steps(workdir),
        circuits=len(workdir.circuits),
        density=_density(density),
        nonzeros=sparse_nonzeros(last.nonzeros if last else None),
        tokens=last.tokens if last else None,
        loss=losses[-1] if losses else None,
        device=_device(workdir.manifest),
        configuration=_flat(workdir.configuration),
        manifest=_flat(workdir.manifest.tree()),
    )


def _density(density: float | None) -> str:
    if not density:
        return "–"
    share = f"{100 * density:.3g} %"
    return f"{share} (1 in {1 / density:.0f})" if density <= 0.5 else share


def _device(manifest: Manifest) -> str:
    count, kind = manifest.device_count, manifest.device_kind
    return "–" if kind is None else f"{count} × {kind}" if count is not None and count > 1 else kind


def _steps(workdir: Workdir) -> str:
    planned, done = workdir.settings.train.steps, workdir.manifest.step
    if done is None and workdir.metrics:
        return f"{number(workdir.metrics[-1].step + 1)} of {number(planned)} steps (not finished)"
    return f"{number(done if done is not None else planned)} steps"


def _flat(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in tree.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


def summary(workdir: Workdir) -> str:
    """The table of circuits, one row per task."""
    rows = [
        {
            "circuit": files.circuit,
            "card": (card := card_of(files)),
            "verdict": verdict(card, files.circuit),
            "page": page_of(files),
            "other": stale_for(workdir, files.circuit.params_sha256),
        }
        for files in workdir.circuits
    ]
    sizes = [files.circuit.metrics.edges or 0 for files in workdir.circuits]
    mean_edges = statistics.geometric_mean(sizes) if len(sizes) > 1 and all(sizes) else None
    return fill("summary.html", circuits=rows, mean_edges=mean_edges, folder=workdir.folder.name, index=_index(workdir))


def stale_for(workdir: Workdir, params_sha256: str) -> str:
    """Fingerprint of the model's weights, if what was made for `params_sha256` is of other ones; else ""."""
    own = workdir.manifest.params_sha256 or ""
    return own if params_sha256 not in ("", own) else ""


def evaluation(workdir: Workdir) -> str:
    """The full model on every task, "" if that was not measured."""
    found = workdir.evaluation
    if found is None:
        return ""
    other = stale_for(workdir, found.params_sha256)
    return fill("evaluation.html", evaluation=found, other=other, folder=workdir.folder.name)


def _index(workdir: Workdir) -> str:
    """Address of the page that compares all circuits, "" if there is none."""
    return "../circuits/index.html" if (workdir.folder / "circuits" / "index.html").is_file() else ""


def training(workdir: Workdir) -> str:
    """Charts of metrics.jsonl."""
    return fill("training.html", charts=training_charts(workdir.metrics), folder=workdir.folder.name)


def file_list(workdir: Workdir) -> str:
    """Where the numbers of this page stand, relative to the workdir."""
    rows = [(name, text) for name, text in _FILES.items() if (workdir.folder / name).exists()]
    for files in workdir.circuits:
        place = files.folder.relative_to(workdir.folder).as_posix()
        rows += [(f"{place}/{name}", text) for name, text in _CIRCUIT_FILES.items() if (files.folder / name).exists()]
    return fill("files.html", files=rows)


_FILES = {
    "config.json": "the resolved configuration",
    "manifest.json": "versions, hashes, seeds, device, nonzeros per tensor",
    "metrics.jsonl": "one object per logged training step",
    "evaluation.json": "the full model on every task",
    "bridge.json": "hybrids of the sparse and the dense model, with controls",
    "tokenizer": "the tokenizer",
    "checkpoints": "parameters and optimizer state",
}
_CIRCUIT_FILES = {
    "circuit.json": "nodes, edges, calibration and metrics of the circuit",
    "ablation.npz": "the values that nodes outside the circuit take",
    "page.html": "the circuit, running in the browser",
    "card.json": "the report card, with the losses of single samples",
    "search.json": "trials, search history, loss versus size, random circuits",
    "traces.json": "activations and attention on sample prompts",
    "rankings.json": "sizes at every target loss, of the search and of rankings that nobody searched",
    "steering.json": "one node steered, in the sparse and the dense model",
    "transport.json": "the circuit’s image ablated in the dense model",
}
