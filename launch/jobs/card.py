"""The work of launch.card."""

import dataclasses
from pathlib import Path

from absl import flags

from sparse_gpt.circuits import TaskSamples, keep_solved, storage
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.evidence.card.card import ROWS, rows_of, select_rows
from sparse_gpt.circuits.run.samples import share
from sparse_gpt.circuits.summary import describe_card
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.records import Search
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

from .. import stored


def main(chosen: list[list[AnyTask]]) -> None:
    """Judges the circuit of each task, or of several that share one, prints its card and writes it."""
    rows = rows_asked()
    with stored.workdir() as folder:
        run = Workdir(folder)
        for members in chosen:
            workdir, samples, place = searched(run, members)
            card = workdir.judge_circuit(samples, rows)
            print("\n".join([f"{card.task}:", *describe_card(card), f"  -> {place / 'card.json'}"]))


def searched(run: Workdir, members: list[AnyTask]) -> tuple[Workdir, TaskSamples, Path]:
    """The run as the circuit of a task, or of several that share it, was searched in, where its files say how; the
    samples of the search; and the circuit's folder. InputError if there is no such circuit."""
    place = run.folder / "circuits" / "+".join(task.name for task in members)
    load(place, run.params_sha256)  # before anything that takes time
    search = Search.read_if_any(place / "search.json")
    prune = run.config.prune if search is None else storage.searched_with(search)
    workdir = Workdir(run.folder, dataclasses.replace(run.config, prune=prune))
    found = {task.name: keep_solved(workdir, task_samples(task, workdir.tokenizer, workdir.config)) for task in members}
    return workdir, share(found) if len(found) > 1 else next(iter(found.values())), place


def rows_asked() -> tuple[str, ...]:
    """What --rows and --full ask for. InputError for an unknown row, or for both."""
    names = [name.strip() for name in flags.FLAGS.rows if name.strip()]
    if names and flags.FLAGS.full:
        raise InputError(f"--rows={','.join(names)} --full: give one of them; --full is all rows")
    if names:
        return select_rows(names)
    return tuple(ROWS) if flags.FLAGS.full else rows_of("cheap", "slow")
