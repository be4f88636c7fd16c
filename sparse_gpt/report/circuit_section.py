"""The part of the report about one circuit: drawing, nodes on sample prompts, loss versus size, the search."""

from sparse_gpt.drawing.graph import Graph, build_graph
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.drawing.text import cell, escape, number, script_json, table, visible_token, weight
from sparse_gpt.records import Circuit, CircuitFiles, Rankings, Search, Traces
from sparse_gpt.records.search import Importance
from sparse_gpt.report.activations import activation_grid, attention_maps, node_data, short_name
from sparse_gpt.report.card_section import card_section
from sparse_gpt.report.charts import loss_versus_size, search_history, size_versus_target
from sparse_gpt.report.evidence import baseline_table, context_table, control_table, overlap_note, path_tables
from sparse_gpt.report.families import family_table, minimal_note
from sparse_gpt.report.sections import chart_grid, missing, percent, section


def circuit_section(files: CircuitFiles, d_head: int, params_sha256: str = "") -> str:
    """Everything the workdir holds about the circuit of one task.

    `d_head` and `params_sha256` are the model's: for grouping channels into heads, and to tell when the circuit belongs
    to other weights.
    """
    circuit, traces = files.circuit, files.traces
    graph = build_graph(circuit, traces, d_head)
    task = circuit.task
    if files.search and files.search.samples_sha256:  # searched on pairs from a file
        task = f"…/{task}.(jsonl|csv)"
    again = f"python -m launch.prune --workdir=… --task={task}"
    judged = card_section(files.card, circuit, f"python -m launch.card --workdir=… --task={task}")
    parts = [_stale(circuit, params_sha256), _numbers(circuit), _drawing(circuit, traces, graph, d_head)]
    parts += [minimal_note(circuit), family_table(circuit), judged]
    if traces and traces.samples:
        parts += [_browser(), _grid(graph, traces), _attention(traces)]
    else:
        parts.append(missing("No traces of this circuit. Write them, with the circuit, by", again))
    if files.contexts:
        parts.append(context_table(files.contexts, circuit))
    parts.append(
        _search(files.search, circuit, files.rankings)
        if files.search
        else missing("No record of its search. Make one with", again)
    )
    parts += [path_tables(circuit), _tables(circuit, traces, files.search.importance if files.search else Importance())]
    data = f'<script type="application/json" class="circuit-data">{script_json(node_data(graph, traces))}</script>'
    body = f'<div class="circuit">{"".join(parts)}{data}</div>'
    return section(f"circuit-{circuit.task}", f"Circuit: {escape(circuit.task)}", body)


def _stale(circuit: Circuit, params_sha256: str) -> str:
    held = circuit.params_sha256
    if not held or not params_sha256 or held == params_sha256:
        return ""
    return (
        f'<p class="warning">This circuit belongs to weights <code>{escape(held[:12])}</code>, but the model in this '
        f"workdir is <code>{escape(params_sha256[:12])}</code>: find it again with "
        "<code>python -m launch.prune</code>.</p>"
    )


def _numbers(circuit: Circuit) -> str:
    metrics, calibration = circuit.metrics, circuit.calibration
    calibrated = calibration.changes_logits
    facts = [
        ("nodes", number(len(circuit.nodes) if metrics.nodes is None else metrics.nodes)),
        ("edges", number(len(circuit.edges) if metrics.edges is None else metrics.edges)),
        ("task loss", number(metrics.task_loss)),
        ("before calibration", number(metrics.task_loss_uncalibrated) if calibrated else "–"),
        ("logits scaled by", number(calibration.scale) if calibrated else "–"),
        ("full model", number(metrics.full_model_task_loss)),
        ("circuit ablated", number(metrics.ablated_task_loss)),
        ("random circuit", number(metrics.random_circuit)),
        ("accuracy", percent(metrics.accuracy)),
        ("agrees with the model", percent(metrics.agreement)),
        ("task loss, other templates", number(metrics.shifted_task_loss)),
        ("full model, other templates", number(metrics.shifted_full_model_task_loss)),
        ("accuracy, other templates", percent(metrics.shifted_accuracy)),
        ("agrees, other templates", percent(metrics.shifted_agreement)),
        *((f"task loss, {each.task}", number(each.task_loss)) for each in circuit.tasks),
        ("ablation", circuit.ablation or "–"),
        ("task loss, other draws of it", number(metrics.resampled_task_loss)),
        ("norms", circuit.norm or "–"),
        ("gates of q and k", "tied" if circuit.tie_qk else "–"),
        ("edges pruned", "yes" if circuit.edge_pruned else "no"),
    ]
    cards = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts if v != "–")
    return f'<dl class="facts small">{cards}</dl>'


def _drawing(circuit: Circuit, traces: Traces | None, graph: Graph, d_head: int) -> str:
    omitted = ""
    if graph.omitted:
        omitted = (
            f"{graph.omitted} weaker embedding or unembedding weights are not drawn; the table of edges has them. "
        )
    hint = "Point at a node to see what it is joined to. " + (
        "Choose it to see its activations below." if traces else ""
    )
    return (
        f'<div class="scroll drawing" tabindex="0">{draw_circuit(circuit, traces, d_head)}</div>'
        f'<p class="detail" aria-live="polite">&nbsp;</p><p class="note">{omitted}{hint} '
        '<button type="button" class="save">Save the drawing</button></p>'
    )


def _browser() -> str:
    """Filled by script.js: one node's activation at every token of every sample."""
    return (
        '<div class="browser"><h3>One node on sample prompts</h3><div class="controls"><label>node '
        '<select class="node-choice"></select></label>'
        '<button type="button" class="previous" aria-label="previous node">←</button>'
        '<button type="button" class="next" aria-label="next node">→</button><span class="ramp"></span></div>'
        '<p class="node-about"></p><div class="samples"></div></div>'
    )


def _grid(graph: Graph, traces: Traces) -> str:
    return (
        "<h3>All nodes on one pair of prompts</h3>"
        '<p class="note">Rows are nodes in the order of the forward pass, each on its own scale (at its end); columns '
        "are tokens. What differs between the two prompts is underlined.</p>"
        f'<div class="scroll" tabindex="0">{activation_grid(graph, traces.samples[:2])}</div>'
    )


def _attention(traces: Traces) -> str:
    maps = attention_maps(traces.samples[:2])
    if not maps:
        return ""
    return (
        "<h3>Where its heads look</h3>"
        '<p class="note">The same pair, within the circuit. A row is the token that looks, a column the token it looks '
        "at; a row sums to less than 1 where an attention sink takes the rest.</p>"
        f'<div class="attention-maps">{maps}</div>'
    )


def _search(search: Search, circuit: Circuit, rankings: Rankings | None) -> str:
    curves = [loss_versus_size(search, circuit), size_versus_target(rankings) if rankings else None]
    parts = ["<h3>Size and search</h3>", chart_grid([curve for curve in curves if curve])]
    parts += [control_table(search, circuit), baseline_table(search), overlap_note(search)]
    charts = search_history(search)
    trials = [trial.tree() for trial in search.trials]
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    rows = []
    for trial in trials:
        cells = [cell(trial.get(name)) for name in names]
        best = trial.get("trial") == search.best_trial
        rows.append([f"<b>{text}</b>" for text in cells] if best else cells)
    caption = f"{len(trials)} trials of {number(search.steps)} steps"
    caption += f", {number(search.batch_pairs)} pairs a batch"
    if search.seconds is not None:
        caption += f", {number(search.seconds)} s in all"
    inner = chart_grid(charts) + table(
        [escape(name.replace("_", " ")) for name in names], rows, f"{caption}. The best one is bold."
    )
    if search.stages:
        origin = escape(search.refined_from.replace("_", " ").capitalize())
        rows = [[escape(s.stage), cell(s.nodes), cell(s.edges), cell(s.task_loss)] for s in search.stages]
        inner += table(("stage", "nodes", "edges", "task loss"), rows, f"{origin} from stage to stage")
    if search.size_versus_target:
        head = ("target loss", "nodes", "edges", "task loss", "reached")
        points = search.size_versus_target.points
        rows = [[*map(cell, (p.target_loss, p.nodes, p.edges, p.task_loss, p.reached))] for p in points]
        inner += table(head, rows, "Smallest first part of the best trial's ranking by target")
    if search.hyperparameters:
        shared = [(f"<code>{escape(k)}</code>", cell(v)) for k, v in search.hyperparameters.items()]
        inner += table(("shared by all trials", "value"), shared)
    parts.append(f"<details><summary>Search history and trials</summary>{inner}</details>")
    return "".join(parts)


def _tables(circuit: Circuit, traces: Traces | None, importance: Importance) -> str:
    """Edges, nodes with the loss without each, and the entries of embedding and unembedding."""
    without = {(edge.source, edge.target): edge.task_loss for edge in importance.edges}
    rows = [
        (
            short_name(edge.source),
            short_name(edge.target),
            weight(edge.weight),
            number(without.get((edge.source, edge.target))),
        )
        for edge in sorted(circuit.edges, key=lambda edge: -abs(edge.weight))
    ]
    head = ("from", "to", "weight", "task loss without it")
    inner = table(head, rows, "Edges of the circuit, largest first")
    nodes = sorted(importance.nodes, key=lambda entry: -(entry.task_loss or 0))
    if nodes:
        losses = [(short_name(entry.node), number(entry.task_loss)) for entry in nodes]
        inner += table(("node", "task loss without it"), losses, "Nodes of the circuit, most needed first")
    parts = (("embedding", traces.embedding), ("unembedding", traces.unembedding)) if traces else ()
    for part, listed in parts:
        entries = sorted(listed, key=lambda entry: -abs(entry.weight))
        if entries:
            cells = [
                (f"<code>{escape(visible_token(entry.token))}</code>", number(entry.channel), weight(entry.weight))
                for entry in entries
            ]
            inner += table(
                ("token", "residual channel", "weight"),
                cells,
                f"Entries of the {part} that join the task to the circuit",
            )
    return f'<details><summary>All {len(rows)} edges as a table</summary><div class="tables">{inner}</div></details>'
