"""The work of launch.card."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.circuits import TaskSamples, keep_solved, storage
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.card.card import ROWS, rows_of, select_rows
from sparse_gpt.circuits.run.samples import share
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.records import Card, Search
from sparse_gpt.records.card import CardRow
from sparse_gpt.workdir import Workdir

from .. import stored

_WIDTHS = (18, 18, 9, 18, 9, 14)


def main() -> None:
    """Judges the circuit of each task, prints its card and writes it."""
    rows = rows_asked()
    with stored.workdir() as folder:
        run = Workdir(folder)
        for names in flags.FLAGS.task.split(","):
            members = [task for name in names.split("+") for task in tasks.select(name)]
            place = folder / "circuits" / "+".join(task.name for task in members)
            load(place, run.params_sha256)  # before anything that takes time
            searched = Workdir(folder, _searched(run.config, place))
            found = {
                task.name: keep_solved(searched, task_samples(task, searched.tokenizer, searched.config))
                for task in members
            }
            samples: TaskSamples = share(found) if len(found) > 1 else next(iter(found.values()))
            card = searched.judge_circuit(samples, rows)
            print("\n".join([f"{card.task}: {summary(card)}", *table(card), f"  -> {place / 'card.json'}"]))


def _searched(config: Config, place: Path) -> Config:
    """The configuration under which the circuit in a folder was searched; the workdir's where no file says it."""
    search = Search.read_if_any(place / "search.json")
    return config if search is None else dataclasses.replace(config, prune=storage.searched_with(search))


def rows_asked() -> tuple[str, ...]:
    """What --rows and --full ask for. InputError for an unknown row, or for both."""
    names = [name.strip() for name in flags.FLAGS.rows if name.strip()]
    if names and flags.FLAGS.full:
        raise InputError(f"--rows={','.join(names)} --full: give one of them; --full is all rows")
    if names:
        return select_rows(names)
    return tuple(ROWS) if flags.FLAGS.full else rows_of("cheap", "slow")


def summary(card: Card) -> str:
    """How many rows pass, and the names of those that do not; of rows asked of several sets of samples, on how many."""
    asked = Counter(row.name for row in card.rows if row.verdict != "not applicable")
    failed = Counter(row.name for row in card.failed())
    told = f"{asked.total() - failed.total()} of {asked.total()} rows of its card pass"
    names = (f"{name} ({count} of {asked[name]})" if asked[name] > 1 else name for name, count in failed.items())
    return f"{told}; fail: {', '.join(names)}" if failed else told


def table(card: Card) -> list[str]:
    """The card as lines of text."""
    head = _line(("row", "samples", "value", "95 % interval", "clusters", "threshold"), "verdict")
    return [head, *(_line(_cells(row), row.verdict + (f" ({row.note})" if row.note else "")) for row in card.rows)]


def _cells(row: CardRow) -> tuple[str, ...]:
    interval = "" if row.interval is None else f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
    value = "" if row.value is None else f"{row.value:.3f}"
    sign = "<=" if row.sense == "at most" else ">="
    return row.name, row.samples, value, interval, str(row.clusters or ""), f"{sign} {row.threshold:.3g}"


def _line(cells: Iterable[str], last: str) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]
    return f"  {' '.join(padded)} {last}"
