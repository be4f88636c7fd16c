"""The work of launch.card."""

import dataclasses
from pathlib import Path

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.circuits import TaskSamples, keep_solved, storage
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.card.card import ROWS, rows_of, select_rows
from sparse_gpt.circuits.run.samples import share
from sparse_gpt.circuits.summary import describe_card
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.records import Search
from sparse_gpt.workdir import Workdir

from .. import stored


def main() -> None:
    """Judges the circuit of each task, prints its card and writes it."""
    rows = rows_asked()
    with stored.workdir() as folder:
        run = Workdir(folder)
        for names in flags.FLAGS.task.split(","):
            members = [task for name in names.split("+") for task in tasks.select(name)]
            place = folder / "circuits" / "+".join(task.name for task in members)
            load(place, run.params_sha256)  # before anything that takes time
            workdir = Workdir(folder, searched(run.config, place))
            found = {
                task.name: keep_solved(workdir, task_samples(task, workdir.tokenizer, workdir.config))
                for task in members
            }
            samples: TaskSamples = share(found) if len(found) > 1 else next(iter(found.values()))
            card = workdir.judge_circuit(samples, rows)
            print("\n".join([f"{card.task}:", *describe_card(card), f"  -> {place / 'card.json'}"]))


def searched(config: Config, place: Path) -> Config:
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
