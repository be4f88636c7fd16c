"""Tables of the report that put a circuit beside what it has to be compared with."""

from collections.abc import Sequence

from sparse_gpt.drawing.text import cell, escape, number, table, visible_token, weight
from sparse_gpt.records import Circuit, Contexts, Search
from sparse_gpt.records.search import Baseline, Trial
from sparse_gpt.records.traces import Context
from sparse_gpt.report.activations import short_name
from sparse_gpt.report.sections import percent

SHOWN_CONTEXTS = 3  # at either end; contexts.json has more


def baseline_table(search: Search) -> str:
    """Sizes at the target of the searched ranking and of the rankings that were not searched."""
    if not search.baselines:
        return ""
    named: list[tuple[str, Trial | Baseline]] = [
        *(("mask search", trial) for trial in search.trials if trial.trial == search.best_trial),
        *((entry.ranking.replace("_", " "), entry) for entry in search.baselines),
    ]
    rows = [
        [escape(name), *map(cell, (entry.nodes, entry.edges, entry.task_loss, entry.reached))] for name, entry in named
    ]
    head = ("nodes ranked by", "nodes", "edges", "task loss", "target reached")
    return table(head, rows, "Smallest first part of each ranking at the target, before any refinement")


def control_table(search: Search, circuit: Circuit) -> str:
    """Held-out losses of circuits that should not work: the middle one of the draws, and where nine in ten lie."""
    named = (
        ("random nodes, as many at every site and layer", search.random_circuit),
        ("the circuit's edges with values drawn from the same matrices", search.redrawn_values),
    )
    rows = []
    for name, control in named:
        if control.quantiles:
            found = (control.quantiles.task_loss, control.quantiles.task_loss_calibrated)
            rows.append([escape(name), cell(control.draws), *map(_spread, found)])
    if not rows:
        return ""
    own = [number(circuit.metrics.task_loss_uncalibrated), number(circuit.metrics.task_loss)]
    head = ("control", "draws", "task loss as it is", "task loss, each calibrated")
    return table(head, [["the circuit", "", *own], *rows], "Controls: median of the draws (5 % to 95 %)")


def _spread(values: Sequence[float | None]) -> str:
    return f"{number(values[1])} ({number(values[0])} to {number(values[2])})" if len(values) == 3 else "–"


def context_table(contexts: Contexts, circuit: Circuit) -> str:
    """For every node of the circuit, the text in which its value is largest and smallest."""
    known = {entry.node: entry for entry in contexts.nodes}
    found = [known[entry.node] for entry in circuit.nodes if entry.node in known]
    rows = [[short_name(entry.node), _contexts(entry.top), _contexts(entry.bottom)] for entry in found]
    if not rows:
        return ""
    note = (
        f"Of {number(contexts.tokens)} tokens of held-out text, in the full model: the value stands at the marked "
        "token. One context per window of text."
    )
    inner = table(("node", "where it is largest", "where it is smallest"), rows, note)
    return f'<details class="contexts" open><summary>What its nodes respond to</summary>{inner}</details>'


def _contexts(found: Sequence[Context]) -> str:
    """Contexts one below the other, each with its value first."""
    lines = []
    for context in found[:SHOWN_CONTEXTS]:
        at, texts = context.at, [escape(visible_token(token)) for token in context.tokens]
        before, after = "".join(texts[max(0, at - 12) : at]), "".join(texts[at + 1 :][:3])
        middle = "".join(texts[at : at + 1])
        lines.append(f"<div>{weight(context.value)} <code>{before}<mark>{middle}</mark>{after}</code></div>")
    return "".join(lines)


def overlap_note(search: Search) -> str:
    """How much the circuits of the searches share, in a sentence."""
    overlap, interval = search.overlap, search.overlap.interval
    if overlap.mean_jaccard is None:
        return ""
    if interval:
        certainty = f"95 % interval {number(interval[0])} to {number(interval[1])}, bootstrap over searches"
    else:
        certainty = "no interval: that takes five searches"
    return (
        f'<p class="note">Nodes that two of the {number(overlap.searches)} searches share, of those that either '
        f"has (Jaccard): {number(overlap.mean_jaccard)} on average ({certainty}); random circuits with the same counts "
        f"at every site: {number(overlap.random_jaccard)}.</p>"
    )


def path_tables(circuit: Circuit) -> str:
    """The strongest paths from tokens to logits, and the share of each node's edges that the circuit uses."""
    statistics, paths = circuit.path_statistics, circuit.path_statistics.paths
    parts = []
    if paths.strongest:
        rows = [
            [
                _token(path.token, path.token_id),
                " → ".join(short_name(node) for node in path.nodes),
                _token(path.answer, path.answer_id),
                number(path.strength),
            ]
            for path in paths.strongest
        ]
        caption = (
            f"The strongest of {number(paths.chains)} chains of nodes, which make {number(paths.count)} "
            "paths from single tokens to single logits. Strength: product of the sizes of all weights on the way"
        )
        parts.append(table(("token", "nodes", "logit", "strength"), rows, caption))
    if statistics.nodes:
        rows = [
            [short_name(n.node), number(n.used_edges), number(n.total_edges), percent(n.fraction)]
            for n in statistics.nodes
        ]
        head = ("node", "edges in the circuit", "edges in the model", "share")
        parts.append(table(head, rows, "Edges of each node"))
    if not parts:
        return ""
    return f"<details><summary>Paths, and the edges that are used</summary>{''.join(parts)}</details>"


def _token(text: str | None, token: int) -> str:
    return f"<code>{escape(visible_token(text))}</code>" if text is not None else f"token {number(token)}"
