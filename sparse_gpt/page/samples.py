"""Prompts that the page offers: pairs of a task by template family, and places of natural text."""

from collections.abc import Sequence

from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.run.task_batch import task_batch
from sparse_gpt.data import Tokenizer
from sparse_gpt.io import Tree
from sparse_gpt.tasks import AnyTask, Sample, TaskError
from sparse_gpt.tasks.task import ELSEWHERE
from sparse_gpt.workdir import Workdir

PAIRS = 8  # of each family
WILD_BATCHES = 4  # of validation text in which natural occurrences are sought


def offered_samples(run: Workdir, members: Sequence[AnyTask], circuit: Circuit) -> list[Tree]:
    """Groups of samples {name, role, pairs}; a pair is two samples, or one where the text is natural. A sample is its
    prompt, and the ids of answer and foil.

    Families that the tokenizer or the context does not allow are left out.

    Raises:
      TaskError: none is left.
    """
    roles, groups, problem = roles_of(circuit), [], TaskError("no task has samples")
    for task in members:
        for name in dict.fromkeys(family for _, family in task.parts):
            try:
                pairs = _pairs(run, task, name)
            except TaskError as error:
                problem = error
                continue
            title = name if len(members) == 1 else f"{task.name}: {name}"
            groups.append({"name": title, "role": roles.get(name, ""), "pairs": pairs})
    if not groups:
        raise problem
    natural = _natural(run, members[0]) if len(members) == 1 else []
    return groups + ([{"name": "natural text", "role": "wild", "pairs": natural}] if natural else [])


def roles_of(circuit: Circuit) -> dict[str, str]:
    """What the search made of every template family; the variant `shifted` has the templates of one of them."""
    roles: dict[str, str] = {entry.family: entry.role for entry in circuit.families}
    return {"shifted": roles.get(ELSEWHERE, ""), **roles}


def _pairs(run: Workdir, task: AnyTask, family: str) -> list[list[Tree]]:
    """Held-out pairs where there are some, of those that the model's context can hold."""
    split = "heldout" if ("heldout", family) in task.parts else next(s for s, name in task.parts if name == family)
    drawn = task.pairs(split, PAIRS, 0, family, run.tokenizer)
    found = [[_sample(each, run.tokenizer) for each in (pair.first, pair.second)] for pair in drawn]
    context = run.config.model.context
    short = [pair for pair in found if all(len(run.tokenizer.encode(each["prompt"])) <= context for each in pair)]
    if not short:
        raise TaskError(
            f"task {task.name}: all prompts of family {family} are longer than the model's context {context}"
        )
    return short


def _sample(sample: Sample, tokenizer: Tokenizer) -> Tree:
    _, answer, foil = tasks.encode_sample(sample, tokenizer)
    return {"prompt": sample.prompt, "answer": answer, "foil": foil}


def _natural(run: Workdir, task: AnyTask) -> list[list[Tree]]:
    """Places of validation text where the task's decision comes up; none without such text, or where samples do not all
    decide between the same two tokens."""
    try:
        some = task_batch(tasks.sample(task, run.tokenizer, "train", PAIRS))
    except TaskError:
        return []
    batch = run.natural_samples(some, WILD_BATCHES, PAIRS)
    if batch is None:
        return []
    found = []
    for row, position, answer, foil in zip(batch.tokens, batch.positions, batch.answer, batch.foil, strict=True):
        ids = row[: position + 1].tolist()
        text = run.tokenizer.decode(ids)
        if run.tokenizer.encode(text) == ids:  # not where a window begins within a word or a character
            found.append([{"prompt": text, "answer": int(answer), "foil": int(foil)}])
    return found
