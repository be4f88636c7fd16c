"""Twenty binary next-token tasks on Python code, as data (Gao et al. 2025, the paper's table of tasks).

A sample is a prompt, the token that must follow (the answer), and the token that would have to follow if the prompt
were the other one of its pair (the foil). The prompts of a pair differ minimally. Nothing here depends on the model;
a tokenizer is any object with `encode`, `decode` and `vocab_size`.

    task = tasks.TASKS["for_while"]
    pairs = task.pairs("heldout", 64, seed=0, tokenizer=tokenizer)      # text, or at once as arrays:
    batch = tasks.sample(task, tokenizer, "heldout", 64, seed=0)        # .tokens .lengths .answer_id .foil_id

A further task is one table entry, here or in any program (templates: see tasks.template):

    from sparse_gpt.tasks import TASKS, Task, Template

    TASKS["import_from"] = Task(
        name="import_from",
        description="after a module's name: import where the line began with from, else the line break",
        answers=(" import", "\\n"),
        main=(Template("{top}<<from|import>> {word}", rest="<< {word2}\\n|>>"),),
        shifted=(Template("{top}def {function}():\\n{body}    <<from|import>> {word}", rest="<< {word2}\\n|>>"),),
    )

``<<left|right>>`` is what differs in the pair, ``{slots}`` are filled at random from words that are disjoint between
train, validation and heldout, `answers` follow the left and the right prompt, and `rest` makes valid Python of both.
"""

from . import conditions, delimiters, functions, loops, variables
from .encoding import EncodedTask, check, encode, encode_sample, sample
from .task import VARIANTS, Pair, Sample, Task, TaskError, Template, Tokenizer
from .words import SPLITS, has_heldout_word, heldout_words

_TABLES = (delimiters.TASKS, loops.TASKS, variables.TASKS, functions.TASKS, conditions.TASKS)
TASKS: dict[str, Task] = {task.name: task for table in _TABLES for task in table}


def select(names: str) -> list[Task]:
    """The tasks of a comma-separated list of names, or all of them for "all", in the order given.

    Raises:
        TaskError: a name that is not a task, or an empty list.
    """
    if names.strip() == "all":
        return list(TASKS.values())
    chosen = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    unknown = [name for name in chosen if name not in TASKS]
    if unknown or not chosen:
        what = f"task {unknown[0]!r}: unknown" if unknown else "no task named"
        raise TaskError(f"{what}; choose all, or some of {', '.join(TASKS)}")
    return [TASKS[name] for name in chosen]


def prompts(count: int, seed: int = 0) -> set[str]:
    """Prompts of two lines or more, `count` pairs per task, split and variant; no training program should hold one."""
    pairs = [
        pair
        for task in TASKS.values()
        for split in SPLITS
        for variant in VARIANTS
        for pair in task.pairs(split, count, seed, variant)
    ]
    both = {sample.prompt for pair in pairs for sample in (pair.first, pair.second)}
    return {prompt for prompt in both if "\n" in prompt.rstrip("\n")}


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
    "has_heldout_word",
    "heldout_words",
    "prompts",
    "sample",
    "select",
]
