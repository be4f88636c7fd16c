"""Binary next-token tasks on Python code, as data (Gao et al. 2025, appendix on tasks)."""

from tasks import delimiters, loops
from tasks.encoding import EncodedTask, check, encode, encode_sample, sample
from tasks.task import VARIANTS, Pair, Sample, Task, TaskError, Template, Tokenizer
from tasks.words import SPLITS, heldout_words

TASKS: dict[str, Task] = {task.name: task for task in (*delimiters.TASKS, *loops.TASKS)}

__all__ = [
    "SPLITS",
    "TASKS",
    "VARIANTS",
    "EncodedTask",
    "Pair",
    "Sample",
    "Task",
    "TaskError",
    "Template",
    "Tokenizer",
    "check",
    "encode",
    "encode_sample",
    "heldout_words",
    "sample",
]
