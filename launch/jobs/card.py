"""The work of launch.card."""

from collections.abc import Iterable

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.circuits import TaskSamples
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.card.card import ROWS, rows_of, select_rows
from sparse_gpt.circuits.run.samples import share
from sparse_gpt.config import Config, PruneConfig
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.io import read_json_if_any
from sparse_gpt.records import Card
from sparse_gpt.records.card import CardRow
from sparse_gpt.workdir import Workdir

from .. import stored

_WIDTHS = (18, 8, 9, 18, 9, 14)


def main() -> None:
    """Judges the circuit of each task, prints its card and writes it."""
    rows = rows_asked()
    with stored.workdir() as folder:
        run = Workdir(folder)
        for names in flags.FLAGS.task.split(","):
            members = [task for name in names.split("+") for task in tasks.select(name)]
            place = folder / "circuits" / "+".join(task.name for task in members)
            load(place, run.params_sha256)  # before anything that takes time
            searched = Workdir(folder, searched_with(run.config, read_json_if_any(place / "search.json")))
            found = {task.name: task_samples(task, searched.tokenizer, searched.config) for task in members}
            samples: TaskSamples = share(found) if len(found) > 1 else next(iter(found.values()))
            card = searched.judge_circuit(samples, rows)
            print("\n".join([f"{card.task}: {summary(card)}", *table(card), f"  -> {place / 'card.json'}"]))


def rows_asked() -> tuple[str, ...]:
    """What --rows and --full ask for. InputError for an unknown row, or for both."""
    names = [name.strip() for name in flags.FLAGS.rows if name.strip()]
    if names and flags.FLAGS.full:
        raise InputError(f"--rows={','.join(names)} --full: give one of them; --full is all rows")
    if names:
        return select_rows(names)
    return tuple(ROWS) if flags.FLAGS.full else rows_of("cheap", "slow")


def searched_with(config: Config, search: dict[str, object] | None) -> Config:
    """The configuration under which a circuit was searched, by its search.json; without one, the workdir's."""
    settings = (search or {}).get("hyperparameters")
    if not isinstance(settings, dict):
        return config
    known = set(configs.to_dict(config)["prune"])
    prune = PruneConfig(**{name: value for name, value in settings.items() if name in known})
    return configs.validate(configs.replace(config, {f"prune.{k}": v for k, v in vars(prune).items()}))


def summary(card: Card) -> str:
    """How many rows pass, and the names of those that do not."""
    asked = [row for row in card.rows if row.verdict != "not applicable"]
    failed = [row.name if row.samples == "main" else f"{row.name} ({row.samples})" for row in card.failed()]
    told = f"{len(asked) - len(failed)} of {len(asked)} rows of its card pass"
    return f"{told}; fail: {', '.join(failed)}" if failed else told


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
