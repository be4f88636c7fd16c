"""Samples of a task as the mask search takes them."""

from sparse_gpt import tasks
from sparse_gpt.circuits import TaskSamples, task_batch
from sparse_gpt.circuits.run.task_batch import padded
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.tasks import AnyTask

MAX_TRAIN_PAIRS = 8192  # the search goes around them


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
