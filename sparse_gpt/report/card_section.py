"""The report card of a circuit as a table, and what its verdicts come to."""

from sparse_gpt.drawing.text import escape, number, table
from sparse_gpt.records import Card, Circuit
from sparse_gpt.records.card import CardRow, circuit_sha256

ACCURATE = 0.95  # on other templates, where there is no card
_MARKS = {"pass": ("good", "✓ pass"), "fail": ("bad", "✗ fail"), "not applicable": ("", "–")}
_SAMPLES = {"main": "searched templates", "shifted": "other templates", "text": "natural text"}


def card_section(card: Card | None, circuit: Circuit, again: str) -> str:
    """Every row with value, interval, threshold and verdict; `again` is the command that makes it."""
    if card is None:
        return (
            '<h3 class="card-title">Report card</h3><p class="missing">This circuit has not been judged. Make its '
            f"report card by <code>{escape(again)}</code></p>"
        )
    rows, before = [], ""
    for row in card.rows:
        rows.append(_cells(row, repeated=row.name == before))
        before = row.name
    head = ("", "row", "what a sceptic says", "samples", "value", "95 % interval", "words", "passes if", "")
    note = (
        "Held-out words throughout. Thresholds were written down before the numbers; intervals treat all samples "
        "with the same final word as one. Other templates, families left aside and natural text took no part in the "
        "search: what fails there fails where it was not chosen."
    )
    stale = ""
    if card.circuit_sha256 and card.circuit_sha256 != circuit_sha256(circuit.tree()):
        stale = (
            '<p class="warning">This card belongs to another circuit of the task: make it again by '
            f"<code>{escape(again)}</code></p>"
        )
    return (
        f'<h3 class="card-title">Report card: {escape(count(card))}</h3>{stale}<p class="note">{note}</p>'
        f'<div class="report-card">{table(head, rows)}</div>'
    )


def _cells(row: CardRow, repeated: bool) -> list[str]:
    style, mark = _MARKS[row.verdict]
    interval = "" if row.interval is None else f"{number(row.interval[0])} to {number(row.interval[1])}"
    sign = "≤" if row.sense == "at most" else "≥"
    limit = f'<span title="{escape(row.reason)}">{sign} {number(row.threshold)}</span>'
    if row.end is not None:
        limit += f", interval {sign} {number(row.end)}"
    return [
        f'<span class="{style}">{mark}</span>',
        "" if repeated else f'<code>{escape(row.name)}</code><br><span class="measure">{escape(row.measure)}</span>',
        "" if repeated else f'<span class="says">{escape(row.criticism)}</span>',
        escape(_SAMPLES.get(row.samples, row.samples)),
        "" if row.value is None else number(row.value),
        interval,
        str(row.clusters or ""),
        limit,
        escape(row.note),
    ]


def count(card: Card) -> str:
    """ "17 of 26 rows pass"."""
    asked = [row for row in card.rows if row.verdict != "not applicable"]
    return f"{len(asked) - len(card.failed())} of {len(asked)} rows pass"


def failures_unseen(card: Card | None, circuit: Circuit) -> list[str] | None:
    """What a circuit fails where it was not chosen; None where nothing was measured there.

    By its card or, without one, by its loss and accuracy on other templates.
    """
    if card is not None and any(row.role != "selection" for row in card.rows):
        return [f"{row.name}, {_SAMPLES.get(row.samples, row.samples)}" for row in card.failed_unseen()]
    metrics, target = circuit.metrics, circuit.target_loss
    if metrics.shifted_task_loss is None:
        return None
    found = []
    if target is not None and metrics.shifted_task_loss > target:
        found.append(f"task loss {number(metrics.shifted_task_loss)} on other templates")
    if metrics.shifted_accuracy is not None and metrics.shifted_accuracy < ACCURATE:
        found.append(f"accuracy {number(metrics.shifted_accuracy)} on other templates")
    return found


def mark(card: Card | None, circuit: Circuit) -> str:
    """A check mark for a circuit that reaches its target on held-out words and other templates alike; a cross for one
    that reaches it only where it was chosen; nothing for one that does not reach it."""
    loss, target = circuit.metrics.task_loss, circuit.target_loss
    if loss is None or target is None or loss > target:
        return ""
    failed = failures_unseen(card, circuit)
    if failed is None:
        return ' <span class="note" title="other templates were not measured">(main templates only)</span>'
    if failed:
        return f' <span class="bad" title="fails where it was not chosen: {escape("; ".join(failed))}">✗</span>'
    return ' <span class="good" title="at or below the target, on other templates too">✓</span>'
