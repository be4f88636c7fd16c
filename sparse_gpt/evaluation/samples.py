"""Samples of a task as the mask search takes them, and as steering does."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sparse_gpt import tasks
from sparse_gpt.bridges.steering import comparable
from sparse_gpt.circuits import TaskSamples, keep_solved, storage, task_batch
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.run.samples import FamilySamples, joint_sha256, mixture, refuse_mixture, share
from sparse_gpt.circuits.run.task_batch import TaskBatch, padded, rounded, rows, without_longest
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.records import Search
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

MAX_TRAIN_PAIRS = 8192  # the search uses them cyclically
FEWEST = 32  # validation pairs of each of several families, where there are as many
STEERED_PAIRS = 64  # of validation samples, on which a node is chosen, and of held-out ones
DRAWN_PAIRS = 2 * STEERED_PAIRS  # so that enough are left without the longest and those of unequal length


def task_samples(task: AnyTask, tokenizer: Tokenizer, config: Config) -> TaskSamples:
    """Samples of a task, of its own file at most what that has: of the families that prune.families names, and held-out
    ones of all others.

    A further family whose samples the tokenizer or the model's context does not allow is left out, and named.

    Raises:
        TaskError: the tokenizer or the context does not allow the task, or prune.families names what it does not have.
    """
    tasks.check(task, tokenizer)
    wanted = tasks.searched_families(task, config.prune.families)
    families, share = {}, len(wanted)
    for name in wanted:
        try:
            families[name] = _family(task, tokenizer, config, name, share)
        except tasks.TaskError as error:
            if share == 1:
                raise
            print(f"family {name} is left out: {error}")
    if not families:
        raise tasks.TaskError(f"task {task.name}: none of its families is left to search on")
    first = next(iter(families.values()))
    others = heldout_batches(task, tokenizer, config, [name for name in task.families if name not in wanted])
    samples = TaskSamples(
        *first,
        shifted=heldout_batches(task, tokenizer, config, ["shifted"], "other templates are").get("shifted"),
        names=(task.name,),
        sha256=task.samples_sha256,
        others=others,
        novel=heldout_batches(task, tokenizer, config, task.novel),
        natural=tasks.NATURAL if tasks.NATURAL in config.prune.families else "",
        free_words=task.free_words(tokenizer),
    )
    return mixture(samples, families)


def require_shareable(members: Sequence[AnyTask], config: Config) -> None:
    """InputError unless tasks can share one circuit: one template family of each and no natural text, equally many
    pairs in every batch."""
    if tasks.NATURAL in config.prune.families:
        raise InputError(
            f"prune.families={','.join(config.prune.families)}: several tasks can share one circuit on one family of "
            f"templates each, not on text; leave {tasks.NATURAL} out"
        )
    for task in members:
        refuse_mixture(task.name, tasks.searched_families(task, config.prune.families))
    if config.prune.batch_pairs % len(members):
        raise InputError(
            f"prune.batch_pairs={config.prune.batch_pairs}: must be a multiple of the {len(members)} tasks that share "
            "a circuit, so that every batch has equally many pairs of each"
        )


def solved_samples(chosen: Sequence[AnyTask], run: Workdir, skip: bool = False) -> dict[str, TaskSamples]:
    """Samples of tasks, by name.

    Args:
        chosen: the tasks.
        run: the model.
        skip: leave out what cannot be searched, and say so.

    Raises:
        InputError: the model cannot do one of the tasks.
        TaskError: as `task_samples`.
    """
    found = {}
    for task in chosen:
        try:
            found[task.name] = keep_solved(run, task_samples(task, run.tokenizer, run.config))
        except (InputError, tasks.TaskError) as error:
            if not skip:
                raise
            print(f"left out: {error}")
    return found


def searched_samples(run: Workdir, members: Sequence[AnyTask]) -> tuple[Workdir, TaskSamples, Path]:
    """The run as the circuit of a task, or of several that share it, was searched in, where its files say how; the
    samples of the search; and the circuit's folder. InputError if there is no such circuit, or if it was searched on
    other pairs."""
    place = run.folder / "circuits" / "+".join(task.name for task in members)
    load(place, run.params_sha256, run.config.model)  # before anything that takes time
    search = Search.read_if_any(place / "search.json")
    if search is not None:
        require_same_pairs(run.folder, members, search)
    prune = run.config.prune if search is None else storage.searched_with(search)
    workdir = Workdir(run.folder, dataclasses.replace(run.config, prune=prune))
    found = solved_samples(members, workdir)
    return workdir, share(found) if len(found) > 1 else found[members[0].name], place


def require_same_pairs(folder: Path, members: Sequence[AnyTask], search: Search | None) -> None:
    """InputError unless a circuit of the workdir `folder` was searched on the files of its tasks as they are."""
    if (search.samples_sha256 if search else "") != joint_sha256([task.samples_sha256 for task in members]):
        sources = ",".join(task.source for task in members)
        again = f"--task={sources}{' --shared' if len(members) > 1 else ''}"
        raise InputError(
            f"--task={sources}: {folder / 'circuits' / '+'.join(task.name for task in members)} was searched on other "
            f"pairs; python -m launch.prune --workdir={folder} {again} searches on these"
        )


def heldout_batches(
    task: AnyTask, tokenizer: Tokenizer, config: Config, names: Sequence[str], what: str = ""
) -> dict[str, TaskBatch]:
    """Held-out samples of variants or families, by name; what cannot be is left out, with a line."""
    found = {}
    for name in names:
        try:
            found[name] = _batch(task, tokenizer, config, "heldout", config.prune.evaluation_pairs, name)
        except tasks.TaskError as error:
            print(f"{what or f'family {name} is'} left out: {error}")
    return found


def _family(task: AnyTask, tokenizer: Tokenizer, config: Config, name: str, share: int) -> FamilySamples:
    """Samples of one of `share` families. As many in all as of one, so that a search costs about as much; of held-out
    ones as many of each, for they are reported one by one."""
    prune = config.prune
    counts = {
        "train": -(-min(prune.steps * prune.batch_pairs, MAX_TRAIN_PAIRS) // share),
        "validation": max(-(-prune.evaluation_pairs // share), min(FEWEST, prune.evaluation_pairs)),
        "heldout": prune.evaluation_pairs,
    }
    train, validation, heldout = (
        _batch(task, tokenizer, config, split, count, name) for split, count in counts.items()
    )
    longest = max(batch.tokens.shape[1] for batch in (validation, heldout))
    length = rounded(longest, config.model.context)  # one shape, one program
    return FamilySamples(train, padded(validation, length), padded(heldout, length))


def _batch(task: AnyTask, tokenizer: Tokenizer, config: Config, split: str, count: int, name: str) -> TaskBatch:
    seed, context = config.prune.seed, config.model.context
    batch = task_batch(tasks.sample(task, tokenizer, split, count, seed, name, context))
    return padded(batch, rounded(batch.tokens.shape[1], context))


def equally_long_samples(task: AnyTask, tokenizer: Tokenizer, config: Config) -> dict[str, TaskBatch]:
    """At most STEERED_PAIRS pairs of a task whose two prompts have one length, by split (validation, heldout); of one
    shape, so that both splits share programs.

    Raises:
        TaskError: the tokenizer or the context does not allow the task.
        InputError: no pair has prompts of one length.
    """
    tasks.check(task, tokenizer)
    batches = {}
    for split in ("validation", "heldout"):
        drawn = tasks.sample(task, tokenizer, split, DRAWN_PAIRS, config.prune.seed, context=config.model.context)
        batches[split] = comparable(without_longest(task_batch(drawn)), task.name)
    length = max(batch.tokens.shape[1] for batch in batches.values())
    return {split: padded(rows(batch, slice(2 * STEERED_PAIRS)), length) for split, batch in batches.items()}
