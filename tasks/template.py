"""The template language in which tasks are written down.

A template is Python source with two kinds of marks:

- a *slot* such as ``{name}``, ``{name2}`` or ``{number}`` is filled at random from the split's words. The same slot
  has the same value wherever it stands; different slots of names have different values. `SLOTS` lists the kinds.
- a *contrast* ``<<for|while>>`` is what differs between the two prompts of a pair: its left side in one, its right
  side in the other.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .randomness import Randomness
from .words import Vocabulary

_SLOT = re.compile(r"\{([A-Za-z]+)\d*\}")
_PARTS = re.compile(r"(\{[A-Za-z]+\d*\})")
_WORD = re.compile(r"[^\W\d_]+")
_CONTRAST = re.compile(r"<<(.*?)\|(.*?)>>", re.DOTALL)

_CONTEXT_LINES: dict[str, tuple[str, ...]] = {
    "main": (
        "{name} = {number}",
        "{name} = {name2}",
        "{function}({name})",
        "{name} = {function}({name2})",
        "{name} = {name2} + {number}",
        "print({name}, {name2})",
        "{name} = {name2} * {name3}",
        "{name} = {function}()",
        "{name} = ()",
    ),
    "shifted": (
        "# {phrase}",
        "{name}.{function}({number})",
        "{name} = {name2}.{name3}",
        "del {name}",
        "assert {name} is not None",
        "{name} = not {name2}",
        "{name} = max({name2}, {name3}) - {number}",
        "{name} = None",
        "{name} = {name2}.{function}()",
        "{name} = ()",
    ),
    "novel": (
        "{name} += {number}",
        "{name}.{name2} = {name3}",
        "{function}({name}, {number})",
        "{name} = {name2} or {name3}",
        "{name} = -{name2}",
        "{name}.{function}({name2}, {name3})",
        "{name} = {function}({name2}).{name3}",
        "{name} = {number} - {name2} * {number2}",
        "{name}, {name2} = {name3}, {name4}",
    ),
}
"""Lines before the decisive one. They have no quotes, square brackets or compound statements, so suit every task."""
_CONTEXT_LINES["selection"] = _CONTEXT_LINES["main"] + _CONTEXT_LINES["shifted"]


@dataclass
class Filler:
    """Draws the values of the slots of one pair.

    Attributes:
        random: the stream of choices.
        words: the words of the split.
        lines: which lines of context: "main", "shifted", "selection" or "novel".
        values: slot -> value, so far.
        used: names taken, which no other slot may take.
    """

    random: Randomness
    words: Vocabulary
    lines: str
    values: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def draw(self, *texts: str) -> None:
        """Values for the slots of `texts`. Context comes last, so that it cannot take a name the templates need."""
        for slot, kind in _slots(texts):
            if slot not in self.values:
                self.values[slot] = SLOTS[kind](self)

    def filled(self, text: str) -> str:
        """`text` with the values that were drawn for its slots."""
        return "".join([self.values.get(part, part) for part in _parts(text)])

    def fresh(self, draw: Callable[[], str]) -> str:
        """The first value of `draw` that is not taken yet."""
        value = draw()
        while value in self.used:
            value = draw()
        self.used.add(value)
        return value

    def several(self, low: int, high: int, draw: Callable[[], str], separator: str) -> str:
        """`low` to `high` values, joined."""
        return separator.join(draw() for _ in range(self.random.between(low, high)))


def _word(filler: Filler) -> str:
    return filler.fresh(lambda: filler.random.choice(filler.words.names))


def _name(filler: Filler) -> str:
    def draw() -> str:
        first = filler.random.choice(filler.words.names)
        return first if filler.random.below(4) else f"{first}_{filler.random.choice(filler.words.suffixes)}"

    return filler.fresh(draw)


def _letter(filler: Filler) -> str:
    return filler.fresh(lambda: filler.random.choice(filler.words.letters))


def _copy(filler: Filler) -> str:
    return filler.fresh(lambda: filler.random.choice(filler.words.copies))


def _function(filler: Filler) -> str:
    def draw() -> str:
        verb = filler.random.choice(filler.words.functions)
        return verb if filler.random.below(2) else f"{verb}_{filler.random.choice(filler.words.names)}"

    return filler.fresh(draw)


def _class(filler: Filler) -> str:
    return filler.fresh(lambda: filler.random.choice(filler.words.names).capitalize())


def _number(filler: Filler) -> str:
    return filler.random.choice(filler.words.numbers)


def _ending(filler: Filler) -> str:
    return filler.random.choice(filler.words.suffixes)


def _suffix(filler: Filler) -> str:
    """It follows the slot before it, as in ``{word}_{suffix}``; what the two make is taken."""
    word = next(reversed(filler.values.values()))
    compound = filler.fresh(lambda: f"{word}_{_ending(filler)}")
    return compound.removeprefix(f"{word}_")


def _digit(filler: Filler) -> str:
    return str(filler.random.choice(filler.words.digits))


def _text(filler: Filler) -> str:
    return filler.random.choice(filler.words.texts)


def _phrase(filler: Filler) -> str:
    return filler.several(1, 4, lambda: _text(filler), " ")


def _numbers(filler: Filler) -> str:
    return filler.several(1, 4, lambda: _number(filler), ", ")


def _names(filler: Filler) -> str:
    return filler.several(1, 3, lambda: _name(filler), ", ")


def _items(filler: Filler) -> str:
    return _numbers(filler) if filler.random.below(2) else _names(filler)


def _condition(filler: Filler) -> str:
    form = filler.random.choice(("{a}", "not {a}", "{a} == {n}", "{a} > {n}", "{a} in {b}", "{a}({b}) < {n}"))
    return form.replace("{a}", _name(filler)).replace("{b}", _name(filler)).replace("{n}", _number(filler))


def _boolean(filler: Filler) -> str:
    return filler.random.choice(("True", "False"))


def _context(indent: str, most: int) -> Callable[[Filler], str]:
    def draw(filler: Filler) -> str:
        drawn = []
        for _ in range(filler.random.between(0, most)):
            line = filler.random.choice(_CONTEXT_LINES[filler.lines])
            # A nested filler gives the line values of its own, but none of the names that are taken.
            nested = Filler(filler.random, filler.words, filler.lines, used=filler.used)
            nested.draw(line)
            drawn.append(f"{indent}{nested.filled(line)}\n")
        return "".join(drawn)

    return draw


SLOTS: dict[str, Callable[[Filler], str]] = {
    "word": _word,
    "name": _name,
    "letter": _letter,
    "copy": _copy,
    "suffix": _suffix,
    "ending": _ending,
    "function": _function,
    "Class": _class,
    "digit": _digit,
    "number": _number,
    "text": _text,
    "phrase": _phrase,
    "numbers": _numbers,
    "names": _names,
    "items": _items,
    "condition": _condition,
    "boolean": _boolean,
    "short": _context("", most=1),
    "top": _context("", most=2),
    "body": _context("    ", most=2),
    "deep": _context("        ", most=2),
}
"""The kinds of slots: word (a name without underscore), name, letter (a name of one letter), copy (a name that is one
token; see tasks.words), suffix (with the name before it it makes one that no other slot is), ending (of any compound
name), function, Class, digit, number (below 100), text (one word of a string), phrase (1-4 of them), numbers (1-4, with
commas), names (1-3), items (numbers or names), condition, boolean, and lines of context: short (0-1, not indented), top
(0-2, not indented), body (0-2, by 4 spaces), deep (0-2, by 8).
"""

_CONTEXT = ("short", "top", "body", "deep")


# Thousands of pairs are drawn from a few dozen templates, so what a template says is read once.


@functools.cache
def _slots(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(slot, kind) of each slot in `texts`, in the order in which they get their values."""
    slots = {match.group(0): match.group(1) for text in texts for match in _SLOT.finditer(text)}
    return tuple(sorted(slots.items(), key=lambda entry: entry[1] in _CONTEXT))


@functools.cache
def _parts(text: str) -> tuple[str, ...]:
    """`text` in pieces: slots, and what is between them."""
    return tuple(_PARTS.split(text))


def kinds(*texts: str) -> set[str]:
    """The kinds of slots in `texts`."""
    return {match.group(1) for text in texts for match in _SLOT.finditer(text)}


def literal_words(*texts: str) -> frozenset[str]:
    """Words that stand in `texts` outside of slots."""
    return frozenset(word for text in texts for word in _WORD.findall(_SLOT.sub(" ", text)))


@functools.cache
def sides(text: str) -> tuple[str, str]:
    """The two texts that a text with contrasts stands for."""
    return _CONTRAST.sub(lambda match: match.group(1), text), _CONTRAST.sub(lambda match: match.group(2), text)
