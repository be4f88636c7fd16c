"""Twenty binary next-token tasks on Python code, as data (Gao et al. 2025, the paper's table of tasks).

A sample is a prompt, the token that must follow (the answer), and the token that would have to follow if the prompt
were the other one of its pair (the foil). The prompts of a pair differ minimally. Nothing here depends on the model;
a tokenizer is any object with `encode`, `decode` and `vocab_size`.

    task = tasks.TASKS["for_while"]
    pairs = task.pairs("heldout", 64, seed=0, tokenizer=tokenizer)      # text, or at once as arrays:
    batch = tasks.sample(task, tokenizer, "heldout", 64, seed=0)        # .tokens .lengths .answer_id .foil_id

A further task is one table entry, here or in any program (templates: see tasks.template):

    from sparse_gpt.tasks import TASKS, Family, Task, Template

    TASKS["import_from"] = Task(
        name="import_from",
        description="after a module's name: import where the line began with from, else the line break",
        answers=(" import", "\\n"),
        main=(Template("{top}<<from|import>> {word}", rest="<< {word2}\\n|>>"),),
        shifted=(Template("{top}def {function}():\\n{body}    <<from|import>> {word}", rest="<< {word2}\\n|>>"),),
        selection=(Family("imports", (Template("import {word3}\\n<<from|import>> {word}", rest="<< {word2}\\n|>>"),)),),
    )

``<<left|right>>`` is what differs in the pair, ``{slots}`` are filled at random from words that are disjoint between
train, validation and heldout, `answers` follow the left and the right prompt, and `rest` makes valid Python of both.

Pairs that somebody has written down are a task too: `find("my/pairs.csv")`, see tasks.own.
"""

import os
from pathlib import Path

from . import conditions, delimiters, functions, loops, own, variables
from .copies import Tokenizer
from .encoding import EncodedTask, check, encode, encode_sample, encode_samples, sample
from .made_up import has_made_up_word
from .rows import SUFFIXES
from .task import NATURAL, VARIANTS, AnyTask, Family, Pair, Sample, Task, TaskError, Template, searched_families
from .words import SPLITS, has_heldout_word, heldout_words

_TABLES = (delimiters.TASKS, loops.TASKS, variables.TASKS, functions.TASKS, conditions.TASKS)
TASKS: dict[str, Task] = {task.name: task for table in _TABLES for task in table}


def select(names: str, every: str = "all") -> list[AnyTask]:
    """The tasks of a comma-separated list of names and files, or the whole table for the word `every`, in order.

    Raises:
        TaskError: a name that is not a task, a file that is none, two tasks of one name, or an empty list.
    """
    if names.strip() == every:
        return list(TASKS.values())
    chosen: dict[str, AnyTask] = {}
    for name in filter(None, map(str.strip, names.split(","))):
        task = find(name, every)
        if chosen.setdefault(task.name, task).source != task.source:
            raise TaskError(
                f"{chosen[task.name].source} and {name}: both are named {task.name}; rename one of the files"
            )
    if not chosen:
        raise TaskError(f"no task named; {_choice(every)}")
    return list(chosen.values())


def select_circuits(names: str) -> list[list[AnyTask]]:
    """The tasks of each circuit in a comma-separated list; those that share one stand as TASK+TASK. None for the word
    `all`: which circuits there are, the workdir knows.

    Raises:
        TaskError: a name that is not a task, a file that is none, or an empty list.
    """
    if names.strip() == "all":
        return []
    circuits = [circuit.split("+") for circuit in map(str.strip, names.split(",")) if circuit]
    if not circuits or not all(name.strip() for circuit in circuits for name in circuit):
        raise TaskError(f"no task named in {names!r}; {_choice('all')}")
    return [[find(name.strip()) for name in circuit] for circuit in circuits]


def circuit_names(folder: Path) -> list[str]:
    """Names of all circuits of a workdir, those of its folders. TaskError if it has none."""
    names = [path.parent.name for path in sorted(folder.glob("circuits/*/circuit.json"))]
    if not names:
        raise TaskError(
            f"{folder}: has no circuits; find some with python -m launch.prune --workdir={folder} --task=TASK"
        )
    return names


def circuits_in(folder: Path) -> list[list[AnyTask]]:
    """The tasks of every circuit of a workdir. Those of files are left out."""
    found = (path.parent.name.split("+") for path in sorted(folder.glob("circuits/*/circuit.json")))
    return [[TASKS[name] for name in names] for names in found if all(name in TASKS for name in names)]


def every_circuit(folder: Path) -> list[list[AnyTask]]:
    """`circuits_in`. TaskError if that is none."""
    names, found = circuit_names(folder), circuits_in(folder)
    if not found:
        raise TaskError(
            f"{folder}: its circuits ({', '.join(names)}) are of files of pairs; name the files, as --task=FILE.jsonl"
        )
    return found


def require_variant(chosen: list[AnyTask], variant: str) -> None:
    """TaskError unless every task has a variant or family of this name."""
    for task in chosen:
        known = tuple(dict.fromkeys((*VARIANTS, *task.families, *task.novel)))
        if variant not in known:
            raise TaskError(f"--variant={variant}: task {task.name} has {', '.join(known)}")


def find(name: str, every: str = "all") -> AnyTask:
    """One task: an entry of the table, or a file of pairs, known by its dot or slash. TaskError if it is neither."""
    if name in TASKS:
        return TASKS[name]
    if name == every:
        raise TaskError(f"{every} stands alone, not beside other tasks; {_choice(every)}")
    if "." in name or os.sep in name:
        return own.load(name, tuple(TASKS))
    raise TaskError(f"unknown task {name!r}; {_choice(every)}")


def _choice(every: str) -> str:
    return f"choose {every}, or some of {', '.join(TASKS)}, or a file of pairs ({', '.join(SUFFIXES)})"


def prompts(count: int, seed: int = 0) -> set[str]:
    """Prompts of two lines or more, `count` pairs per task, split, variant and family; no training program should hold
    one."""
    pairs = [
        pair
        for task in TASKS.values()
        for split, variant in task.parts
        for pair in task.pairs(split, count, seed, variant)
    ]
    both = {sample.prompt for pair in pairs for sample in (pair.first, pair.second)}
    return {prompt for prompt in both if "\n" in prompt.rstrip("\n")}


__all__ = [
    "NATURAL",
    "SPLITS",
    "SUFFIXES",
    "TASKS",
    "VARIANTS",
    "AnyTask",
    "EncodedTask",
    "Family",
    "Pair",
    "Sample",
    "Task",
    "TaskError",
    "Template",
    "Tokenizer",
    "check",
    "circuit_names",
    "circuits_in",
    "encode",
    "encode_sample",
    "encode_samples",
    "every_circuit",
    "find",
    "has_heldout_word",
    "has_made_up_word",
    "heldout_words",
    "prompts",
    "require_variant",
    "sample",
    "searched_families",
    "select",
    "select_circuits",
]
