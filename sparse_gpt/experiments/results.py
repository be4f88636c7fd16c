"""What an experiment ends with: expected against measured, for a person, as JSON, and as a page for docs/results."""

import csv
import datetime
import importlib.metadata
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparse_gpt import machine
from sparse_gpt.errors import InputError
from sparse_gpt.experiments.harness import Check
from sparse_gpt.io import Json, replacing, write_json

BY_HAND = "<!-- What follows is written by hand. -->"
MOST_ROWS = 60  # of a table in a page; the file beside it has all


def settle(name: str, command: str, checks: Sequence[Check], folder: Path, page: Path | None = None) -> bool:
    """Prints expected against measured, writes the same to the folder as reproduce.json and results.md, and says
    whether every check holds.

    Args:
        name: of the experiment.
        command: that made it.
        checks: what it has found.
        folder: of the experiment; its CSV files become tables.
        page: a further file for what results.md has; what stands there from BY_HAND on stays, see `check_page`.
    """
    rows = [
        {"figure": x.name, "measured": _finite(x.measured), "expected": x.expected, "holds": x.holds} for x in checks
    ]
    write_json(folder / "reproduce.json", {"format": "sparse_gpt.reproduce/1", "experiment": name, "figures": rows})
    text = "\n".join([*_head(name, command, checks), *_measured(checks), *_tables(folder)]) + "\n"
    with replacing(folder / "results.md") as temporary:
        temporary.write_text(text)
    if page is not None:
        with replacing(page) as temporary:
            temporary.write_text(text + (_by_hand(page) or _below("\n")))
    for check in checks:
        print(
            f"{'ok  ' if check.holds else 'MISS'}  {check.name}: {_shown(check.measured)} (expected {check.expected})"
        )
    print(f"-> {folder / 'reproduce.json'}, results.md{'' if page is None else f', {page}'}")
    return all(check.holds for check in checks)


def check_page(page: Path) -> None:
    """InputError if a page that is there has no line BY_HAND: all of it would be lost."""
    if page.is_file() and not _by_hand(page):
        raise InputError(
            f"--page={page}: has no line {BY_HAND}; put that line above what is to stay, at its end if nothing"
        )


def _finite(measured: Json) -> Json:
    """None, as in records, for what is not finite, since JSON has no such numbers."""
    return None if isinstance(measured, float) and not math.isfinite(measured) else measured


def _head(name: str, command: str, checks: Sequence[Check]) -> list[str]:
    """The lines that every page of results begins with."""
    from sparse_gpt.training.manifest import git_revision  # here, so that the table of experiments does without JAX

    facts, missed = machine.numerics(), [check.name for check in checks if not check.holds]
    cores = f"{facts['cores']} core{'s' * (facts['cores'] != 1)}"
    return [
        f"# {name}\n",
        f"- Command: `{command}`",
        f"- Revision: {git_revision()[0][:12] or 'not known'}; what its folder had already was not measured anew",
        f"- Machine: {cores} of {facts['processor']}; JAX {importlib.metadata.version('jax')}",
        f"- Date: {datetime.date.today().isoformat()}",
        f"- Result: **misses** {', '.join(missed)}" if missed else f"- Result: all {len(checks)} as expected",
    ]


def _measured(checks: Sequence[Check]) -> list[str]:
    cells = [(x.name, _shown(x.measured), x.expected, "" if x.holds else "**miss**") for x in checks]
    return ["", *_table([("", "measured", "expected", ""), *cells])]


def _tables(folder: Path) -> list[str]:
    """Every CSV file of an experiment, by name."""
    lines = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows = [[_shown(_number(cell)) for cell in row] for row in csv.reader(file)]
        more = [f"\nand {len(rows) - MOST_ROWS - 1} further rows"] if len(rows) > MOST_ROWS + 1 else []
        lines += [f"\n## {path.stem}\n", *_table(rows[: MOST_ROWS + 1]), *more]
    return lines


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first row is its head."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [lines[0], "|" + "---|" * (lines[0].count("|") - 1), *lines[1:]]


def _number(cell: str) -> object:
    try:
        return float(cell) if "." in cell else cell
    except ValueError:
        return cell


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _by_hand(path: Path) -> str:
    """What somebody has written below the tables of a page."""
    before = path.read_text() if path.is_file() else ""
    return _below(before.partition(BY_HAND)[2]) if BY_HAND in before else ""


def _below(text: str) -> str:
    return f"\n{BY_HAND}{text}"
