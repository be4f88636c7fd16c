"""Tables of the report that put a circuit beside what it has to be compared with."""

from typing import Any

from sparse_gpt.report.text import cell, escape, table

Json = dict[str, Any]


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
