"""Binary next-token tasks on Python code, as data (Gao et al. 2025, appendix on tasks)."""

from tasks import conditions, delimiters, functions, loops, variables
from tasks.encoding import EncodedTask, check, encode, encode_sample, sample
from tasks.task import VARIANTS, Pair, Sample, Task, TaskError, Template, Tokenizer
from tasks.words import SPLITS, heldout_words

_TABLES = (delimiters.TASKS, loops.TASKS, variables.TASKS, functions.TASKS, conditions.TASKS)
TASKS: dict[str, Task] = {task.name: task for table in _TABLES for task in table}

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
