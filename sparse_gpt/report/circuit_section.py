"""The part of the report about one circuit: drawing, nodes on sample prompts, loss versus size, the search."""

from sparse_gpt.drawing.activations import activation_grid, attention_maps
from sparse_gpt.drawing.graph import MAX_TOKENS, build_graph
from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.drawing.text import number
from sparse_gpt.records import Circuit, CircuitFiles, Rankings, Search, Traces
from sparse_gpt.records.search import Importance
from sparse_gpt.report.charts import loss_versus_size, search_history, size_versus_target
from sparse_gpt.report.node_browser import node_data
from sparse_gpt.report.rendering import fill
from sparse_gpt.report.verdicts import card_of

View = dict[str, object]


def circuit_section(files: CircuitFiles, d_head: int, params_sha256: str = "") -> str:
    """Everything the workdir holds about the circuit of one task.

    `d_head` and `params_sha256` are the model's: for grouping channels into heads, and to tell when the circuit belongs
    to other weights.
    """
    circuit, traces, search = files.circuit, files.traces, files.search
    graph = build_graph(circuit, traces, d_head, MAX_TOKENS)
    of_file = search is not None and search.samples_sha256  # searched on pairs from a file
    known = {entry.node: entry for entry in files.contexts.nodes} if files.contexts else {}
    pair = traces.samples[:2] if traces else ()
    return fill(
        "circuit.html",
        **vars(files),
        page=page_of(files),
        of_file=bool(of_file),
        again_task=f"…/{circuit.task}.(jsonl|csv)" if of_file else circuit.task,
        stale_for=params_sha256 if circuit.params_sha256 not in (None, "", params_sha256) else "",
        each_task=[(f"task loss, {each.task}", number(each.task_loss)) for each in circuit.tasks],
        card_is_stale=files.card is not None and card_of(files) is None,
        drawing=draw_circuit(circuit, traces, d_head, files.labels),
        omitted=graph.omitted,
        node_data=node_data(graph, traces),
        grid=activation_grid(graph, pair) if pair else "",
        attention=attention_maps(pair),
        node_contexts=[known[entry.node] for entry in circuit.nodes if entry.node in known],
        context_tokens=files.contexts.tokens if files.contexts else 0,
        **(_search(search, circuit, files.rankings) if search else {}),
        **_edges(circuit, traces, search.importance if search else Importance()),
    )


def page_of(files: CircuitFiles) -> str:
    """Address of the circuit's own page from WORKDIR/report/, "" if there is none."""
    return f"../circuits/{files.folder.name}/page.html" if (files.folder / "page.html").is_file() else ""


def _search(search: Search, circuit: Circuit, rankings: Rankings | None) -> View:
    """Charts, the controls that were drawn, and the trials as a table of whatever they hold."""
    curves = [loss_versus_size(search, circuit), size_versus_target(rankings) if rankings else None]
    controls = (
        ("random nodes, as many at every site and layer", search.random_circuit),
        ("the circuit's edges with values drawn from the same matrices", search.redrawn_values),
    )
    trials = [trial.tree() for trial in search.trials]
    return {
        "size_charts": [curve for curve in curves if curve],
        "controls": [(name, control) for name, control in controls if control.quantiles],
        "history_charts": search_history(search),
        "trials": trials,
        "trial_names": list(dict.fromkeys(name for trial in trials for name in trial)),
    }


def _edges(circuit: Circuit, traces: Traces | None, importance: Importance) -> View:
    """Edges and entries of the vocabulary, largest first; nodes, most needed first."""
    without = {(edge.source, edge.target): edge.task_loss for edge in importance.edges}
    edges = sorted(circuit.edges, key=lambda edge: -abs(edge.weight))
    parts = (("embedding", traces.embedding), ("unembedding", traces.unembedding)) if traces else ()
    return {
        "edges": [(edge, without.get((edge.source, edge.target))) for edge in edges],
        "own_loss": importance.task_loss,
        "node_losses": sorted(importance.nodes, key=lambda entry: -(entry.task_loss or 0)),
        "vocabulary": [(part, sorted(listed, key=lambda entry: -abs(entry.weight))) for part, listed in parts],
    }
