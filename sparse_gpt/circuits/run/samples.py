"""What a circuit is searched on: samples of one task, or of several tasks that are to share one mask."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparse_gpt.circuits.run.task_batch import TaskBatch, interleave, without_longest
from sparse_gpt.errors import InputError

MAIN = "main"


class FamilySamples(NamedTuple):
    """Samples of one template family of a task."""

    train: TaskBatch
    validation: TaskBatch
    heldout: TaskBatch


@dataclasses.dataclass(frozen=True)
class TaskSamples:
    """Samples of one task (or of several, see `share`) from disjoint vocabularies. Rows 2 i and 2 i + 1 are a pair.

    A search on several template families of a task has their samples in turn, see `mixture`: `TaskBatch.task` is then a
    sample's family, so that each of them has to reach the target, with one calibration for all.
    """

    train: TaskBatch  # the search sees these
    validation: TaskBatch  # sizes are chosen and calibration is fitted on these and as many training samples
    heldout: TaskBatch  # reported
    shifted: TaskBatch | None = None  # reported too: held-out words in the templates of the shifted variant
    names: tuple[str, ...] = ("task",)  # of the tasks
    sha256: str = ""  # of the file that the samples are from, if any; of several files see `joint_sha256`
    families: Mapping[str, FamilySamples] = dataclasses.field(default_factory=dict)  # that the search sees
    others: Mapping[str, TaskBatch] = dataclasses.field(default_factory=dict)  # held-out ones of families it does not
    novel: Mapping[str, TaskBatch] = dataclasses.field(default_factory=dict)  # and of those that no search sees
    wild: TaskBatch | None = None  # natural text, see wild.py; not in pairs
    natural: str = ""  # name of one more family to search on, made of training text; "" for none
    free_words: frozenset[str] = frozenset()  # that fill held-out prompts, where the task knows them

    @property
    def parts(self) -> tuple[str, ...]:
        """What `TaskBatch.task` numbers: tasks, or where there is one the families that the search sees."""
        return self.names if len(self.names) > 1 or not self.families else tuple(self.families)

    @property
    def main_family(self) -> str:
        """The family that a minimal circuit is for: main, or the first one that was searched; "" without families."""
        return MAIN if MAIN in self.families else next(iter(self.families), "")

    @property
    def further(self) -> int:
        """How many of the training samples, the first ones, are selection samples. With those for validation these are
        twice as many as there are for validation, those too long for a mixture of families included, so that each
        family fills whole batches of an evaluator."""
        validation, families = len(self.validation.positions), self.families.values()
        if len(families) < 2:
            return validation
        return 2 * len(families) * min(len(family.validation.positions) for family in families) - validation

    def only(self, family: str) -> "TaskSamples":
        """Samples for a search on one of the families alone; held-out ones of the rest are among the `others`."""
        others = {name: held.heldout for name, held in self.families.items() if name != family}
        alone = self.families[family]
        return dataclasses.replace(self, **alone._asdict(), families={family: alone}, others={**others, **self.others})


def mixture(samples: TaskSamples, families: Mapping[str, FamilySamples]) -> TaskSamples:
    """Samples of one task for a search on some of its families, by name; of several, equally many of each."""
    if len(families) == 1:
        (only,) = families.values()
        return dataclasses.replace(samples, **only._asdict(), families=families)
    parts = list(families.values())
    return dataclasses.replace(
        samples,
        train=interleave([without_longest(part.train) for part in parts]),
        validation=interleave([without_longest(part.validation) for part in parts]),
        heldout=interleave([part.heldout for part in parts]),
        families=families,
    )


def share(samples: Mapping[str, TaskSamples]) -> TaskSamples:
    """Samples of several tasks for one mask, by name.

    Pairs of the tasks alternate, equally many of each, so that means over samples are means over tasks of their own
    means. Of every task's training samples the longest are left out first, see `without_longest`.

    Raises:
        InputError: one of them is a mixture of families.
    """
    for name, part in samples.items():
        refuse_mixture(name, tuple(part.families))
    parts = list(samples.values())
    shifted = [part.shifted for part in parts if part.shifted is not None]
    return TaskSamples(
        interleave([without_longest(part.train) for part in parts]),
        interleave([part.validation for part in parts]),
        interleave([part.heldout for part in parts]),
        interleave(shifted) if len(shifted) == len(parts) else None,
        tuple(samples),
        joint_sha256([part.sha256 for part in parts]),
        free_words=frozenset().union(*(part.free_words for part in parts)),
    )


def refuse_mixture(task: str, families: Sequence[str]) -> None:
    """InputError when a task that shares a circuit with others is to be searched on several families."""
    if len(families) > 1:
        raise InputError(
            f"task {task}: several tasks can share one circuit on one family each, not on {', '.join(families)}; "
            "name one family in --config.prune.families, or one task"
        )


def joint_sha256(hashes: Sequence[str]) -> str:
    """What identifies the files of several tasks, from the SHA-256 of each ("" for a task without one)."""
    several = len(hashes) > 1 and any(hashes)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest() if several else hashes[0]
