"""What a task is: something that yields minimal pairs of prompts, such as an entry of the table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .randomness import Randomness
from .template import SLOTS, Filler, kinds, sides
from .words import SPLITS, VOCABULARY, Vocabulary

VARIANTS = ("main", "shifted")
Part = tuple[str, str]
"""A split and a variant."""

_FEWEST_COPIES = 5  # a pair needs up to four
_PATIENCE = 50  # draws per wanted pair before the templates count as exhausted
_TRIES = 32  # draws for a pair of equal length
_CHECKED_PAIRS = 24


class TaskError(ValueError):
    """A task that cannot be sampled or expressed as asked. One line that names the value and the way out."""


class Tokenizer(Protocol):
    """What the tasks need of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Any, /) -> str: ...


@dataclass(frozen=True)
class Sample:
    """A prompt, the token that follows it, the token that would follow the pair's other prompt, and `rest`: text that
    makes valid Python of prompt + answer + rest. From a file, also its family of templates and FILE:LINE."""

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
        """Every (split, variant) that has pairs."""

    @property
    def checked_pairs(self) -> int:
        """Pairs of a part that a check against a tokenizer looks at."""

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
class Task:
    """A binary next-token task.

    Attributes:
        name: as on the command line.
        description: what is predicted, in one line.
        answers: the right answers for the left and the right side of the templates' contrasts; may have slots.
        main: templates of the usual surroundings.
        shifted: templates of the same behaviour in other surroundings.
        same_length: the two prompts of a pair can have equally many tokens; then a tokenizer makes pairs prefer it, so
            that length tells nothing. Where it is false, surroundings of many lengths hide the difference.
    """

    name: str
    description: str
    answers: tuple[str, str]
    main: tuple[Template, ...]
    shifted: tuple[Template, ...]
    same_length: bool = True

    def __post_init__(self) -> None:
        for template in (*self.main, *self.shifted):
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
    def parts(self) -> tuple[Part, ...]:
        """Every split in every variant."""
        return tuple((split, variant) for split in SPLITS for variant in VARIANTS)

    @property
    def checked_pairs(self) -> int:
        """Enough for every template to come."""
        return _CHECKED_PAIRS

    def pairs(
        self, split: str, count: int, seed: int = 0, variant: str = "main", tokenizer: Tokenizer | None = None
    ) -> list[Pair]:
        """The first `count` of an endless list of distinct pairs that depends on (task, split, variant, seed) alone.

        Args:
            split: "train", "validation" or "heldout"; their words are disjoint.
            variant: "main" or "shifted".
            tokenizer: with it, names that are to be copied are only those that it holds as one token, and prompts of
                equal length are preferred; the list then depends on the tokenizer too.

        Raises:
            TaskError: unknown split or variant, more pairs than there are, or too few names that are one token.
        """
        check_request(split, count, variant)
        words = self._words(split, tokenizer)
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
        template = random.choice(self.main if variant == "main" else self.shifted)
        return _fill(template, self.answers, Filler(random, words, variant))

    def _words(self, split: str, tokenizer: Tokenizer | None) -> Vocabulary:
        words = VOCABULARY[split]
        texts = [template.prompt for template in (*self.main, *self.shifted)]
        if tokenizer is None or "copy" not in kinds(*texts, *self.answers):
            return words
        copies = tuple(word for word in words.copies if len(tokenizer.encode(f" {word}")) == 1)
        if len(copies) < _FEWEST_COPIES:
            raise TaskError(
                f"task {self.name}: only {len(copies)} of the {len(words.copies)} {split} names to copy are one token "
                f"under this tokenizer ({tokenizer.vocab_size} entries), {_FEWEST_COPIES} are needed; "
                "use a larger vocabulary, or leave the task out"
            )
        return replace(words, copies=copies)


def check_request(split: str, count: int, variant: str) -> None:
    """TaskError for arguments of `pairs` that no task has pairs for."""
    if split not in SPLITS:
        raise TaskError(f"split {split!r}: unknown; choose {', '.join(SPLITS)}")
    if variant not in VARIANTS:
        raise TaskError(f"variant {variant!r}: unknown; choose {', '.join(VARIANTS)}")
    if count < 0:
        raise TaskError(f"{count} pairs: the number of pairs cannot be negative")


def _fill(template: Template, answers: tuple[str, str], filler: Filler) -> Pair:
    prompt, rest, *answer = filler.fill(template.prompt, template.rest, *answers)
    prompts, rests = sides(prompt), sides(rest)
    samples = [Sample(prompts[i], answer[i], answer[1 - i], rests[i]) for i in (0, 1)]
    if filler.random.below(2):  # so that the place in the pair tells nothing
        samples.reverse()
    return Pair(*samples)


def _same_length(pair: Pair, tokenizer: Tokenizer) -> bool:
    return len(tokenizer.encode(pair.first.prompt)) == len(tokenizer.encode(pair.second.prompt))
