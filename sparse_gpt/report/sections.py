"""Sections of the report about the run as a whole: what was trained, the tables of tasks, charts, files."""

import math
from collections.abc import Iterable, Mapping, Sequence

from sparse_gpt.drawing.text import compact, escape, number, script_json, sparse_nonzeros, table
from sparse_gpt.records import CircuitFiles, Evaluation, Manifest, Workdir
from sparse_gpt.records.base import CHANCE
from sparse_gpt.report.card_section import count, mark
from sparse_gpt.report.charts import Chart


def section(anchor: str, title: str, body: str) -> str:
    """A titled part of the page, reachable as #anchor."""
    return f'<section id="{escape(anchor)}"><h2>{title}</h2>{body}</section>'


def missing(what: str, command: str) -> str:
    """The sentence that stands where a part is missing."""
    return f'<p class="missing">{what} <code>{escape(command)}</code></p>'


def chart_grid(charts: Sequence[Chart]) -> str:
    """Charts for script.js to draw; wide ones take a whole row."""
    cells = []
    for chart in charts:
        spec = chart.figure.to_plotly_json()
        note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
        cells.append(
            f'<figure class="chart{" wide" if chart.wide else ""}"><figcaption>{escape(chart.title)}</figcaption>{note}'
            f'<div class="plot" style="height:{chart.figure.layout.height}px" role="img" '
            f'aria-label="{escape(chart.title)}"><script type="application/json">{script_json(spec)}</script></div>'
            "</figure>"
        )
    return f'<div class="charts">{"".join(cells)}</div>'


def headline(workdir: Workdir) -> str:
    """What was trained, on what, in one paragraph and a row of numbers; everything else folded away."""
    model, density, sources = workdir.settings.model, workdir.settings.sparsity.density, workdir.settings.data.sources
    last = workdir.metrics[-1] if workdir.metrics else None
    values = [row.val_loss for row in workdir.metrics if row.val_loss is not None]
    facts = [
        ("layers", number(model.n_layer)),
        ("channels (d_model)", number(model.d_model)),
        ("heads × width", f"{number(model.n_head)} × {number(model.d_head)}"),
        ("vocabulary", number(model.vocab_size)),
        ("context", number(model.context)),
        ("weights kept", _density(density)),
        ("nonzero weights", compact(sparse_nonzeros(last.nonzeros if last else None))),
        ("tokens seen", compact(last.tokens if last else None)),
        ("held-out loss", number(values[-1] if values else None)),
        ("device", _device(workdir.manifest)),
    ]
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts if v not in ("–", "– × –"))
    kind = "weight-sparse transformer" if (density or 1) < 1 else "dense transformer"
    lead = f"A {kind} with {number(model.n_layer)} layers, trained for {_steps(workdir)}"
    lead += f" on <code>{escape(sources)}</code>." if sources else "."
    if workdir.circuits:
        lead += f" {_count(len(workdir.circuits), 'circuit')} found in it, drawn below."
    details = _tree("Configuration", workdir.configuration)
    details += _tree("Manifest: versions, hashes, device", workdir.manifest.tree())
    return f'<p class="lead">{lead}</p><dl class="facts">{cards}</dl>{details}'


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


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _tree(title: str, tree: Mapping[str, object]) -> str:
    """Nested values as a folded two-column table."""
    rows = [(f"<code>{escape(name)}</code>", f"<code>{escape(value)}</code>") for name, value in _flat(tree)]
    return f"<details><summary>{title}</summary>{table(('field', 'value'), rows)}</details>" if rows else ""


def _flat(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in tree.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


def summary(circuits: Sequence[CircuitFiles], workdir: Workdir) -> str:
    """The table of circuits, one row per task."""
    if not circuits:
        return missing("No circuits yet. Find one with", f"python -m launch.prune --workdir={workdir.folder.name}")
    head = (
        "task",
        "nodes",
        "edges",
        "circuit",
        "target",
        "other templates",
        "report card",
        "full model",
        "circuit ablated",
        "random circuit",
        "accuracy",
        "calibrated",
    )
    rows = [_summary_row(files) for files in circuits]
    sizes = [files.circuit.metrics.edges or 0 for files in circuits]
    text = (
        '<p class="note">Task losses are means over held-out samples, in nats, between answer and foil only: '
        f"{CHANCE:.3f} (ln 2) is chance, 0 is certainty. A good circuit keeps the loss near the full model’s; ablating "
        "it brings the loss to chance or above (necessity); a random circuit of its size stays at chance. ✓: the "
        "target is reached on words and templates that took no part in the search; ✗: only on templates that did.</p>"
    )
    if len(sizes) > 1 and all(sizes):
        mean = math.exp(sum(math.log(size) for size in sizes) / len(sizes))
        text += f'<p class="note">Geometric mean of edges over the {len(sizes)} tasks: <b>{number(mean)}</b>.</p>'
    return table(head, rows) + text


def _summary_row(files: CircuitFiles) -> list[str]:
    circuit, metrics = files.circuit, files.circuit.metrics
    card = "–" if files.card is None else escape(count(files.card))
    return [
        f'<a href="#circuit-{escape(circuit.task)}">{escape(circuit.task)}</a>',
        number(metrics.nodes),
        number(metrics.edges),
        f"<b>{number(metrics.task_loss)}</b>{mark(files.card, circuit)}",
        number(circuit.target_loss),
        number(metrics.shifted_task_loss),
        card,
        number(metrics.full_model_task_loss),
        number(metrics.ablated_task_loss),
        number(metrics.random_circuit),
        percent(metrics.accuracy),
        "yes" if circuit.calibration.changes_logits else "no",
    ]


def mean(values: Iterable[float]) -> float | None:
    """None of no values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def percent(value: float | None) -> str:
    """0.987 as "98.7 %"."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u202f%"


def evaluation_table(evaluation: Evaluation) -> str:
    """How the full model does on every task, from evaluation.json."""
    head = ("task", "task loss", "accuracy", "full-vocabulary loss", "task loss, shifted", "accuracy, shifted")
    rows = [
        [
            escape(row.task),
            number(row.task_loss),
            percent(row.accuracy),
            number(row.full_vocabulary_loss),
            number(row.shifted_task_loss),
            percent(row.shifted_accuracy),
        ]
        for row in evaluation.tasks
        if row.reason is None
    ]
    note = '<p class="note">The whole model on held-out samples, and on samples from a shifted template.</p>'
    left_out = [f"<li>{escape(row.reason)}</li>" for row in evaluation.tasks if row.reason is not None]
    return table(head, rows) + note + (f'<p class="note">Left out:</p><ul>{"".join(left_out)}</ul>' if left_out else "")


def file_list(workdir: Workdir) -> str:
    """Where the numbers of this page stand, relative to the workdir."""
    known = {
        "config.json": "the resolved configuration",
        "manifest.json": "versions, hashes, seeds, device, nonzeros per tensor",
        "metrics.jsonl": "one object per logged training step",
        "evaluation.json": "the full model on every task",
        "bridge.json": "hybrids of the sparse and the dense model, with controls",
        "tokenizer": "the tokenizer",
        "checkpoints": "parameters and optimizer state",
    }
    rows = [(name, text) for name, text in known.items() if (workdir.folder / name).exists()]
    for files in workdir.circuits:
        place = files.folder.relative_to(workdir.folder).as_posix()
        rows.append((f"{place}/circuit.json", "nodes, edges, calibration and metrics of the circuit"))
        rows += [(f"{place}/{name}", text) for name, text in _CIRCUIT_FILES.items() if (files.folder / name).exists()]
    return table(("file", "what it holds"), [(f"<code>{escape(name)}</code>", escape(text)) for name, text in rows])


_CIRCUIT_FILES = {
    "ablation.npz": "the values that nodes outside the circuit take",
    "card.json": "the report card, with the losses of single samples",
    "search.json": "trials, search history, loss versus size, random circuits",
    "traces.json": "activations and attention on sample prompts",
    "rankings.json": "sizes at every target loss, of the search and of rankings that nobody searched",
    "steering.json": "one node steered, in the sparse and the dense model",
    "transport.json": "the circuit’s image ablated in the dense model",
}
