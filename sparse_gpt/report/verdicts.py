"""What the report card of a circuit comes to."""

import dataclasses

from sparse_gpt.drawing.text import number
from sparse_gpt.records import Card, Circuit, CircuitFiles
from sparse_gpt.records.card import circuit_sha256

ACCURATE = 0.95  # on other templates, where there is no card
LOSS = "task_loss"  # the row that says whether the target is kept
SAMPLES = {"main": "searched templates", "shifted": "other templates", "text": "natural text"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A sign beside a circuit's loss, its CSS class, and what it says when pointed at."""

    style: str
    sign: str
    reason: str


def samples(name: str) -> str:
    """How a set of samples of a card is called."""
    return SAMPLES.get(name, name)


def count(card: Card) -> str:
    """ "17 of 26 rows pass"."""
    asked = [row for row in card.rows if row.verdict != "not applicable"]
    return f"{len(asked) - len(card.failed())} of {len(asked)} rows pass"


def sentence(card: Card) -> str:
    """What the rows come to, set of samples by set of samples.

    "Holds on the searched templates, though 5 of 15 rows fail there; fails on 7 of 7 sets of samples where it was not
    chosen." A set fails with any of its rows; the searched templates hold where the loss keeps its target, and families
    where it does not are named.
    """
    asked = [row for row in card.rows if row.verdict != "not applicable"]
    searched, unseen = ([row for row in asked if (row.role == "selection") == wanted] for wanted in (True, False))
    failed = [row for row in searched if row.verdict == "fail"]
    lost = [row.samples for row in failed if row.name == LOSS]
    searched_on = "the searched templates"
    if lost and "main" not in lost:  # the one that stands for all of them
        parts = [f"Fails on {', '.join(lost)}, of {searched_on}"]
    else:
        parts = [f"{'Fails' if lost else 'Holds'} on {searched_on}"]
    rows = f"{len(failed)} of {len(searched)} rows fail"
    parts[0] += f" ({rows})" if lost else f", though {rows} there" if failed else ""
    sets = {row.samples for row in unseen}
    wrong = {row.samples for row in unseen if row.verdict == "fail"}
    of = f"{len(sets)} set{'s' * (len(sets) != 1)} of samples where it was not chosen"
    parts.append(
        f"fails on {len(wrong)} of {of}" if wrong else f"passes on all {of}" if sets else "measured nowhere else"
    )
    return "; ".join(parts) + "."


def failures_unseen(card: Card | None, circuit: Circuit) -> list[str] | None:
    """What a circuit fails where it was not chosen; None where nothing was measured there.

    By its card or, without one, by its loss and accuracy on other templates.
    """
    if card is not None and any(row.role != "selection" for row in card.rows):
        return [f"{row.name}, {samples(row.samples)}" for row in card.failed_unseen()]
    metrics, target = circuit.metrics, circuit.target_loss
    if metrics.shifted_task_loss is None:
        return None
    found = []
    if target is not None and metrics.shifted_task_loss > target:
        found.append(f"task loss {number(metrics.shifted_task_loss)} on other templates")
    if metrics.shifted_accuracy is not None and metrics.shifted_accuracy < ACCURATE:
        found.append(f"accuracy {number(metrics.shifted_accuracy)} on other templates")
    return found


def verdict(card: Card | None, circuit: Circuit) -> Verdict | None:
    """A check mark for a circuit that reaches its target on held-out words and other templates alike; a cross for one
    that reaches it only where it was chosen; nothing for one that does not reach it."""
    loss, target = circuit.metrics.task_loss, circuit.target_loss
    if loss is None or target is None or loss > target:
        return None
    failed = failures_unseen(card, circuit)
    if failed is None:
        return Verdict("note", "(main templates only)", "other templates were not measured")
    if failed:
        return Verdict("bad", "✗", f"fails where it was not chosen: {'; '.join(failed)}")
    return Verdict("good", "✓", "at or below the target, on other templates too")


def card_of(files: CircuitFiles) -> Card | None:
    """The report card, if there is one and it is of this circuit."""
    card, circuit = files.card, files.circuit
    if card is None or card.circuit_sha256 not in ("", circuit_sha256(circuit.tree())):
        return None
    return card if card.params_sha256 in ("", circuit.params_sha256) else None
