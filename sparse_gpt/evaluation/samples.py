"""Samples of a task as the mask search takes them, and as steering does."""

from sparse_gpt import tasks
from sparse_gpt.bridges.steering import comparable
from sparse_gpt.circuits import TaskBatch, TaskSamples, task_batch
from sparse_gpt.circuits.run.task_batch import padded, rows, without_longest
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.tasks import AnyTask

MAX_TRAIN_PAIRS = 8192  # the search uses them cyclically
STEERED_PAIRS = 64  # of validation samples, on which a node is chosen, and of held-out ones
DRAWN_PAIRS = 2 * STEERED_PAIRS  # so that enough are left without the longest and those of unequal length


def task_samples(task: AnyTask, tokenizer: Tokenizer, config: Config) -> TaskSamples:
    """Samples of a task, of its own file at most what that has; TaskError if the tokenizer or the model's context does
    not allow them."""
    prune = config.prune
    tasks.check(task, tokenizer)
    counts = {
        "train": min(prune.steps * prune.batch_pairs, MAX_TRAIN_PAIRS),
        "validation": prune.evaluation_pairs,
        "heldout": prune.evaluation_pairs,
    }
    seed, context = prune.seed, config.model.context
    train, validation, heldout = (
        task_batch(tasks.sample(task, tokenizer, split, count, seed, context=context))
        for split, count in counts.items()
    )
    try:
        shifted = task_batch(
            tasks.sample(task, tokenizer, "heldout", prune.evaluation_pairs, seed, "shifted", context=context)
        )
    except tasks.TaskError as error:
        print(f"other templates are left out: {error}")
        shifted = None
    length = max(batch.tokens.shape[1] for batch in (validation, heldout))  # one shape, one program
    parts = padded(validation, length), padded(heldout, length), shifted
    return TaskSamples(train, *parts, (task.name,), task.samples_sha256)


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
