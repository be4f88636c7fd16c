"""Made-up words for the template families: two pieces each, such as `mog` + `ath`, and their split by the first piece.

There are 360 held-out ones, so that no number hangs on a single word. Every one is *reserved*, in all splits: corpora
leave out a document that has one standing alone (`has_made_up_word`). No real text that we have seen has one, so that
costs nothing; a sample of a template family has at least one of the held-out ones when it is held out, and so no
training text can hold it.
"""

from dataclasses import replace

from .words import VOCABULARY, Vocabulary, letter_runs


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = {
    "train": _pieces("kel glo cru nel fru bli quo"),
    "validation": _pieces("tav gav zeb wim"),
    "heldout": _pieces("dov hax jum sab vop wex zam fep jep lix mog vax pru dre tro"),
}
_SECOND = _pieces("ack ath ane elt eng ery ibe ick ift ilo ind ole omp onk oot ory osh oum ude ule umb ung urb ush")

MADE_UP = {split: tuple(first + second for first in firsts for second in _SECOND) for split, firsts in _FIRST.items()}


def _family_words(split: str) -> Vocabulary:
    """The usual words and made-up ones; held out, made-up ones alone."""
    usual, made_up = VOCABULARY[split], MADE_UP[split]
    if split == "heldout":
        return replace(usual, names=made_up, functions=made_up, texts=made_up)
    return replace(usual, names=usual.names + made_up, functions=usual.functions + made_up, texts=usual.texts + made_up)


FAMILY_VOCABULARY = {split: _family_words(split) for split in VOCABULARY}
"""The words of the template families, by split; `main` and `shifted` have those of `VOCABULARY`."""

_EVERY = frozenset(word.encode() for each in MADE_UP.values() for word in each)


def has_made_up_word(document: bytes) -> bool:
    """Whether a document has one of the made-up words, in any case, standing alone or between underscores or digits."""
    return not _EVERY.isdisjoint(letter_runs(document))
