"""Names that a task asks the model to copy, in the template families: all words that a tokenizer holds as one token."""

import builtins
import functools
import hashlib
import keyword
import re
from collections.abc import Sequence
from typing import Protocol

from .words import SPLITS, VOCABULARY

_WORD = re.compile(" [a-z]{3,}")
_TAKEN = frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls", "current"))
_ENDINGS = ("s", "ed", "er", "ing")
_TENTHS = ("train",) * 4 + ("validation",) * 4 + ("heldout",) * 2


class Tokenizer(Protocol):
    """What is needed of one."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def __hash__(self) -> int: ...


@functools.lru_cache(maxsize=4)
def single_tokens(tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    """By split, the words of three or more small letters that are one token after a space.

    A word that the task vocabulary has in a split belongs there. Of the others a hash of the word decides: four tenths
    are for training, four for validation, two held out. Keywords and names of builtins are left out. So are,
    beside the task vocabulary's, beginnings of longer tokens (" nam" of " name"), which hardly ever stand alone, and
    words that are not one token without the space, which a model knows from sentences and imports (" tools"): the
    stored model cannot copy them.
    """
    split_of = {word: split for split in SPLITS for word in VOCABULARY[split].all_words()}
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    longer = {text[:end] for text in texts for end in range(4, len(text)) if _goes_on(text[end:])}
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for token, text in enumerate(texts):
        word = text[1:]
        known = word in split_of or (text not in longer and len(tokenizer.encode(word)) == 1)
        if _WORD.fullmatch(text) and known and word not in _TAKEN and list(tokenizer.encode(text)) == [token]:
            found[split_of.get(word) or _TENTHS[hashlib.sha256(word.encode()).digest()[0] % 10]].append(word)
    return {split: tuple(words) for split, words in found.items()}


def _goes_on(rest: str) -> bool:
    """Whether what a token has after a word is more than an ending of it."""
    return rest.isalpha() and rest not in _ENDINGS
