"""What a task is: something that yields minimal pairs of prompts, such as an entry of the table.

A task of the table has two *variants*, `main` and `shifted`, whose samples never change, and *template families*: named
sets of templates that differ in surroundings, in depth, and in distractors which an obvious shortcut would fall for.
`families` may take part in the selection of a circuit: `main` (the variant, and all that is searched by default),
`elsewhere` (the templates of the variant `shifted`) and those of the table's `selection`. `novel` are those of its
`unseen`: they have held-out samples only, so that no search, ranking, size or calibration can see them.

Both kinds have distractors, in different forms. All families but `main` have words of their own, see tasks.made_up and
tasks.copies; the variant `shifted` keeps its 16 words and takes part in no selection.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from .copies import Tokenizer, single_tokens
from .made_up import FAMILY_VOCABULARY
from .randomness import Randomness
from .template import SLOTS, Filler, kinds, literal_words, sides
from .words import SPLITS, VOCABULARY, Vocabulary

VARIANTS = ("main", "shifted")
ELSEWHERE = "elsewhere"  # the family of the shifted variant's templates
NATURAL = "natural"  # not a family of templates: occurrences in the text that a model was trained on
Part = tuple[str, str]
"""A split, and a variant or family."""

_FEWEST_COPIES = 5  # a pair needs up to four
_PATIENCE = 50  # draws per wanted pair before the templates count as exhausted
_TRIES = 32  # draws for a pair of equal length
_CHECKED_PAIRS = 24


class TaskError(ValueError):
    """A task that cannot be sampled or expressed as asked. One line that names the value and the way out."""


@dataclass(frozen=True)
class Sample:
    """A prompt, the token that follows it, the token that would follow the pair's other prompt, and `rest`: text that
    makes valid Python of prompt + answer + rest. Beside them its family of templates and, from a file, FILE:LINE."""

    prompt: str
    answer: str
    foil: str
    rest: str = ""
    family: str = field(default="", repr=False)
    where: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Pair:
    """Two samples that differ minimally; each one's answer is the other's foil."""

    first: Sample
    second: Sample


class AnyTask(Protocol):
    """A binary next-token task, from wherever its pairs are."""

    @property
    def name(self) -> str:
        """Of its circuit's folder."""

    @property
    def source(self) -> str:
        """What --task takes for it."""

    @property
    def description(self) -> str:
        """What is predicted, in one line."""

    @property
    def samples_sha256(self) -> str:
        """Of the file that the pairs are from; "" for a task of the table."""

    @property
    def parts(self) -> Sequence[Part]:
        """Every (split, variant) that has pairs; of the table's tasks, every (split, family) too."""

    @property
    def families(self) -> Sequence[str]:
        """Template families that may take part in a selection; pairs of every split, by `variant`."""

    @property
    def novel(self) -> Sequence[str]:
        """Template families that no selection sees; they have held-out pairs alone."""

    @property
    def checked_pairs(self) -> int:
        """Pairs of a part that a check against a tokenizer looks at."""

    def free_words(self, tokenizer: Tokenizer) -> frozenset[str]:
        """Words that fill held-out prompts and that no template has, as they stand there; none where that is not
        known."""

    def pairs(
        self, split: str, count: int, seed: int = 0, variant: str = "main", tokenizer: Tokenizer | None = None
    ) -> list[Pair]:
        """`count` pairs of a part, or all that a file has. TaskError if there are none, or as the class says."""


@dataclass(frozen=True)
class Template:
    """A prompt in the language of tasks.template, and what may follow the answer to make valid Python."""

    prompt: str
    rest: str = ""


@dataclass(frozen=True)
class Family:
    """Templates of one kind, by a name: other surroundings, or a distractor that a shortcut would fall for."""

    name: str
    templates: tuple[Template, ...]


def family(name: str, *templates: Template) -> Family:
    """A `Family`, as the tables write it."""
    return Family(name, templates)


@dataclass(frozen=True)
class Task:
    """A binary next-token task.

    Attributes:
        name: as on the command line.
        description: what is predicted, in one line.
        answers: the right answers for the left and the right side of the templates' contrasts; may have slots.
        main: templates of the usual surroundings.
        shifted: templates of the same behavior in other surroundings.
        same_length: the two prompts of a pair can have equally many tokens; then a tokenizer makes pairs prefer it, so
            that length tells nothing. Where it is false, surroundings of many lengths hide the difference.
        selection: template families, beside `main` and `elsewhere`, that may take part in the selection of a circuit.
        unseen: template families that never do.
    """

    name: str
    description: str
    answers: tuple[str, str]
    main: tuple[Template, ...]
    shifted: tuple[Template, ...]
    same_length: bool = True
    selection: tuple[Family, ...] = ()
    unseen: tuple[Family, ...] = ()

    def __post_init__(self) -> None:
        names = [*VARIANTS, ELSEWHERE, "all", NATURAL, *(family.name for family in (*self.selection, *self.unseen))]
        if wrong := next((n for i, n in enumerate(names) if not n.isidentifier() or n in names[:i]), ""):
            raise TaskError(f"task {self.name}: a family cannot be named {wrong!r}; give each a name of its own")
        for template in self._templates():
            unknown = kinds(template.prompt, template.rest, *self.answers) - SLOTS.keys()
            if unknown:
                raise TaskError(f"task {self.name}: unknown slot {{{min(unknown)}}}; known are {', '.join(SLOTS)}")
            if len(set(sides(template.prompt))) == 1:
                raise TaskError(f"task {self.name}: template {template.prompt!r} has no contrast <<...|...>>")

    @property
    def source(self) -> str:
        """What --task takes for it: its name."""
        return self.name

    @property
    def samples_sha256(self) -> str:
        """Nothing: the pairs are drawn, not read."""
        return ""

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that may take part in a selection, `main` first."""
        return ("main", *((ELSEWHERE,) if self.shifted else ()), *(family.name for family in self.selection))

    @property
    def novel(self) -> tuple[str, ...]:
        """Names of the families that no selection sees."""
        return tuple(family.name for family in self.unseen)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every split in every variant and family, and the held-out one of families that no selection sees."""
        seen = dict.fromkeys((*VARIANTS, *self.families))
        return (*((split, name) for split in SPLITS for name in seen), *(("heldout", name) for name in self.novel))

    @property
    def checked_pairs(self) -> int:
        """Enough for every template to come."""
        return _CHECKED_PAIRS

    def free_words(self, tokenizer: Tokenizer) -> frozenset[str]:
        """Held-out words of every variant and family, those to copy as `tokenizer` allows, as names and as classes; but
        for words that the task's own templates have."""
        fills: set[str] = set()
        for variant in ("main", *self.families, *self.novel):
            with contextlib.suppress(TaskError):  # a family that the tokenizer cannot express has no samples
                fills |= self._words("heldout", variant, tokenizer).all_words()
        said = literal_words(*(template.prompt for template in self._templates()), *self.answers)
        return frozenset(fills.union(word.capitalize() for word in fills) - said)

    def pairs(
        self, split: str, count: int, seed: int = 0, variant: str = "main", tokenizer: Tokenizer | None = None
    ) -> list[Pair]:
        """The first `count` of an endless list of distinct pairs that depends on (task, split, variant, seed) alone.

        Args:
            split: "train", "validation" or "heldout"; their words are disjoint.
            variant: "main", "shifted", or the name of a family.
            tokenizer: with it, names that are to be copied are only those that it holds as one token (in families, of
                all words that it holds), and prompts of equal length are preferred; the list then depends on the
                tokenizer too.

        Raises:
            TaskError: unknown split or variant, a split that a novel family does not have, more pairs than there are,
                or too few names that are one token.
        """
        check_request(self, split, count, variant)
        words = self._words(split, variant, tokenizer)
        found: dict[Pair, None] = {}
        for index in range(_PATIENCE * count):
            if len(found) == count:
                break
            found.setdefault(self._pair((split, variant, int(seed), index), variant, words, tokenizer))
        if len(found) < count:
            raise TaskError(f"task {self.name}: only {len(found)} distinct {split} pairs ({variant}); ask for fewer")
        return list(found)

    def _pair(self, key: tuple[str | int, ...], variant: str, words: Vocabulary, tokenizer: Tokenizer | None) -> Pair:
        """The first of a few draws whose prompts have equal length, or else the first."""
        pair = self._draw(key, 0, variant, words)
        if tokenizer is None or not self.same_length or _same_length(pair, tokenizer):
            return pair
        others = (self._draw(key, attempt, variant, words) for attempt in range(1, _TRIES))
        return next((other for other in others if _same_length(other, tokenizer)), pair)

    def _draw(self, key: tuple[str | int, ...], attempt: int, variant: str, words: Vocabulary) -> Pair:
        random = Randomness("tasks/1", self.name, *key, attempt)
        template = random.choice(self._templates(variant))
        lines = variant if variant in VARIANTS else "novel" if variant in self.novel else "selection"
        return _fill(template, self.answers, Filler(random, words, lines), variant)

    def _templates(self, variant: str = "") -> tuple[Template, ...]:
        """Those of a variant or family; without a name, of all."""
        named = {"main": self.main, "shifted": self.shifted}
        named |= {family.name: family.templates for family in (*self.selection, *self.unseen)}
        if not variant:
            return tuple(template for templates in named.values() for template in templates)
        return self.shifted if variant == ELSEWHERE else named[variant]

    def _words(self, split: str, variant: str, tokenizer: Tokenizer | None) -> Vocabulary:
        usual = variant in VARIANTS
        words = (VOCABULARY if usual else FAMILY_VOCABULARY)[split]
        texts = [template.prompt for template in self._templates()]
        if tokenizer is None or "copy" not in kinds(*texts, *self.answers):
            return words
        known = words.copies if usual else single_tokens(tokenizer)[split]
        copies = tuple(word for word in known if len(tokenizer.encode(f" {word}")) == 1)
        if len(copies) < _FEWEST_COPIES:
            raise TaskError(
                f"task {self.name}: only {len(copies)} of the {len(known)} {split} names to copy are one token "
                f"under this tokenizer ({tokenizer.vocab_size} entries), {_FEWEST_COPIES} are needed; "
                "use a larger vocabulary, or leave the task out"
            )
        return replace(words, copies=copies)


def check_request(task: AnyTask, split: str, count: int, variant: str) -> None:
    """TaskError for arguments of `pairs` that a task has no pairs for."""
    if split not in SPLITS:
        raise TaskError(f"split {split!r}: unknown; choose {', '.join(SPLITS)}")
    if variant not in (*VARIANTS, *task.families, *task.novel):
        known = dict.fromkeys((*VARIANTS, *task.families, *task.novel))
        raise TaskError(f"variant {variant!r}: unknown; choose {', '.join(known)}")
    if variant in task.novel and split != "heldout":
        raise TaskError(f"task {task.name}: family {variant} is novel, so it has held-out pairs only, no {split} ones")
    if count < 0:
        raise TaskError(f"{count} pairs: the number of pairs cannot be negative")


def searched_families(task: AnyTask, names: Sequence[str]) -> tuple[str, ...]:
    """The template families that a list names for the selection of a circuit: none is `main`, "all" every one there is.
    Whether it names NATURAL beside them is left to others: its samples are text, not templates.

    Raises:
        TaskError: a name that the task does not have, or that of a novel family.
    """
    names = tuple(name for name in names if name != NATURAL)
    if names == ("all",):
        return tuple(task.families)
    chosen = tuple(dict.fromkeys(names)) or ("main",)
    for name in chosen:
        if name in task.novel:
            raise TaskError(f"task {task.name}: family {name} is novel, no search sees it; leave it out")
        if name not in (*task.families, "main"):
            known = ", ".join(dict.fromkeys(("main", *task.families)))
            raise TaskError(
                f"task {task.name}: no family {name!r} to search on; choose all, or some of {known}, and beside them "
                f"{NATURAL}, which is training text"
            )
    return chosen


def _fill(template: Template, answers: tuple[str, str], filler: Filler, family: str) -> Pair:
    filler.draw(template.prompt, template.rest, *answers)
    texts = zip(sides(template.prompt), sides(template.rest), answers, reversed(answers), strict=True)
    filled = [[filler.filled(text) for text in side] for side in texts]
    samples = [Sample(prompt, answer, foil, rest, family) for prompt, rest, answer, foil in filled]
    if filler.random.below(2):  # so that the place in the pair tells nothing
        samples.reverse()
    return Pair(*samples)


def _same_length(pair: Pair, tokenizer: Tokenizer) -> bool:
    return len(tokenizer.encode(pair.first.prompt)) == len(tokenizer.encode(pair.second.prompt))
