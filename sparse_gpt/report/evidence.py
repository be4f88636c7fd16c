"""Tables of the report that put a circuit beside what it has to be compared with."""

from typing import Any

from sparse_gpt.drawing.graph import Node
from sparse_gpt.drawing.text import cell, escape, number, table, visible_token, weight
from sparse_gpt.report.activations import short_name
from sparse_gpt.report.sections import percent

Json = dict[str, Any]
SHOWN_CONTEXTS = 3  # at either end; contexts.json has more


def baseline_table(search: Json) -> str:
    """Sizes at the target of the searched ranking and of the rankings that were not searched."""
    if not search.get("baselines"):
        return ""
    keys = ("nodes", "edges", "task_loss", "reached")
    learned = [trial for trial in search["trials"] if trial.get("trial") == search.get("best_trial")]
    named = [("mask search", trial) for trial in learned]
    named += [(entry["ranking"].replace("_", " "), entry) for entry in search["baselines"]]
    rows = [[escape(name), *(cell(entry.get(key)) for key in keys)] for name, entry in named]
    head = ("nodes ranked by", "nodes", "edges", "task loss", "target reached")
    return table(head, rows, "Smallest first part of each ranking at the target, before any refinement")


def control_table(search: Json, circuit: Json) -> str:
    """Held-out losses of circuits that should not work: the middle one of the draws, and where nine in ten lie."""
    named = (
        ("random nodes, as many at every site and layer", "random_circuit"),
        ("the circuit's edges with values drawn from the same matrices", "redrawn_values"),
    )
    rows = []
    for name, key in named:
        quantiles = search.get(key, {}).get("quantiles")
        if quantiles:
            found = [quantiles.get(loss, []) for loss in ("task_loss", "task_loss_calibrated")]
            rows.append([escape(name), cell(search[key].get("draws")), *map(_spread, found)])
    if not rows:
        return ""
    metrics = circuit.get("metrics", {})
    own = [number(metrics.get(key)) for key in ("task_loss_uncalibrated", "task_loss")]
    head = ("control", "draws", "task loss as it is", "task loss, each calibrated")
    return table(head, [["the circuit", "", *own], *rows], "Controls: median of the draws (5 % to 95 %)")


def _spread(values: list[float | None]) -> str:
    return f"{number(values[1])} ({number(values[0])} to {number(values[2])})" if len(values) == 3 else "–"


def context_table(contexts: Json, circuit: Json) -> str:
    """For every node of the circuit, the text in which its value is largest and smallest."""
    known = {(entry["layer"], entry["site"], entry["channel"]): entry for entry in contexts["nodes"]}
    rows = []
    for node in circuit["nodes"]:
        key = (node["layer"], node["site"], node["channel"])
        if key in known:
            rows.append([short_name(Node(*key)), *(_contexts(known[key][end]) for end in ("top", "bottom"))])
    if not rows:
        return ""
    note = (
        f"Of {number(contexts['tokens'])} tokens of held-out text, in the full model: the value stands at the marked "
        "token. One context per window of text."
    )
    inner = table(("node", "where it is largest", "where it is smallest"), rows, note)
    return f'<details class="contexts" open><summary>What its nodes respond to</summary>{inner}</details>'


def _contexts(found: list[Json]) -> str:
    """Contexts one below the other, each with its value first."""
    lines = []
    for context in found[:SHOWN_CONTEXTS]:
        at, texts = context["at"], [escape(visible_token(token)) for token in context["tokens"]]
        before, after = "".join(texts[max(0, at - 12) : at]), "".join(texts[at + 1 :][:3])
        middle = "".join(texts[at : at + 1])
        lines.append(f"<div>{weight(context['value'])} <code>{before}<mark>{middle}</mark>{after}</code></div>")
    return "".join(lines)


def overlap_note(search: Json) -> str:
    """How much the circuits of the searches share, in a sentence."""
    told = search.get("overlap", {})
    if told.get("mean_jaccard") is None:
        return ""
    interval = told.get("interval")
    if interval:
        certainty = f"95 % interval {number(interval[0])} to {number(interval[1])}, bootstrap over searches"
    else:
        certainty = "no interval: that takes five searches"
    return (
        f'<p class="note">Nodes that two of the {number(told.get("searches"))} searches share, of those that either '
        f"has (Jaccard): {number(told['mean_jaccard'])} on average ({certainty}); random circuits with the same counts "
        f"at every site: {number(told.get('random_jaccard'))}.</p>"
    )


def path_tables(circuit: Json) -> str:
    """The strongest paths from tokens to logits, and the share of each node's edges that the circuit uses."""
    told = circuit.get("bookkeeping", {})
    parts = []
    paths = told.get("paths", {})
    if paths.get("strongest"):
        rows = [
            [
                _token(path.get("token"), path["token_id"]),
                " → ".join(short_name(Node(*node)) for node in path["nodes"]),
                _token(path.get("answer"), path["answer_id"]),
                number(path["strength"]),
            ]
            for path in paths["strongest"]
        ]
        caption = (
            f"The strongest of {number(paths.get('chains'))} chains of nodes, which make {number(paths.get('count'))} "
            "paths from single tokens to single logits. Strength: product of the sizes of all weights on the way"
        )
        parts.append(table(("token", "nodes", "logit", "strength"), rows, caption))
    if told.get("nodes"):
        rows = []
        for n in told["nodes"]:
            counts = number(n["used_edges"]), number(n["total_edges"]), percent(n["fraction"])
            rows.append([short_name(Node(n["layer"], n["site"], n["channel"])), *counts])
        head = ("node", "edges in the circuit", "edges in the model", "share")
        parts.append(table(head, rows, "Edges of each node"))
    if not parts:
        return ""
    return f"<details><summary>Paths, and the edges that are used</summary>{''.join(parts)}</details>"


def _token(text: str | None, token: int) -> str:
    return f"<code>{escape(visible_token(text))}</code>" if text is not None else f"token {number(token)}"
