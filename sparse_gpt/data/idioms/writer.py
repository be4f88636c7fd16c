"""The state of one program while it is being written: its lines, its random draws and the names in scope."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sparse_gpt.data.idioms import words

T = TypeVar("T")

INDENT = "    "


class Scope:
    """Names bound so far in one function (or in the module), by the kind of value they hold."""

    __slots__ = ("dicts", "flags", "number_lists", "numbers", "objects", "taken", "text_lists", "texts")

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.numbers: list[str] = []
        self.texts: list[str] = []
        self.flags: list[str] = []
        self.number_lists: list[tuple[str, str]] = []
        self.text_lists: list[tuple[str, str]] = []
        self.dicts: list[str] = []
        self.objects: list[str] = []

    def mark(self) -> tuple[int, int, int, int, int, int]:
        """The state of the scope, for `back_to`."""
        return (
            len(self.numbers),
            len(self.texts),
            len(self.flags),
            len(self.number_lists),
            len(self.text_lists),
            len(self.dicts),
        )

    def back_to(self, mark: tuple[int, int, int, int, int, int]) -> None:
        """Forgets the values bound since the mark; their names stay taken."""
        del self.numbers[mark[0] :], self.texts[mark[1] :], self.flags[mark[2] :]
        del self.number_lists[mark[3] :], self.text_lists[mark[4] :], self.dicts[mark[5] :]


class Writer:
    """Collects the lines of a program. `pad` arguments are the indentation of the line about to be written."""

    __slots__ = ("draw", "functions", "helpers", "lines", "scope")

    def __init__(self, draw: Callable[[], int]) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.functions: list[tuple[str, list[str], int]] = []
        """Functions defined so far: name, parameters, how many of them have no default."""
        self.helpers: list[str] = []
        """Functions that the program imports."""
        self.scope = Scope()

    # Draws.

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely (up to 2**-16)."""
        return options[self.draw() * len(options) >> 16]

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return self.draw() * limit >> 16

    def chance(self, percent: int) -> bool:
        """True in `percent` of 100 cases."""
        return self.draw() * 100 >> 16 < percent

    # Names.

    def fresh(self, pool: Sequence[str]) -> str:
        """A name of the pool that is not bound yet in this scope; it is bound from now on."""
        taken = self.scope.taken
        for _ in range(6):
            name = self.pick(pool)
            if name not in taken:
                taken.add(name)
                return name
        number = 2
        while f"{name}{number}" in taken:
            number += 1
        taken.add(f"{name}{number}")
        return f"{name}{number}"

    def rare(self) -> str:
        """A word of the long tail, or one put together from two halves."""
        if self.draw() & 1:
            return self.pick(words.RARE)
        return self.pick(words.FIRST_HALVES) + self.pick(words.SECOND_HALVES)

    def rare_name(self) -> str:
        """A rare word, or two or three words joined, the first of them rare: a name of many pieces."""
        form = self.below(20)
        if form < 12:
            return self.rare()
        last = self.pick(words.OBJECTS if form & 1 else words.NUMBER_NAMES)
        return f"{self.rare()}_{last}" if form < 18 else f"{self.rare()}_{self.rare()}_{last}"

    def fresh_name(self, pool: Sequence[str]) -> str:
        """A new name, mostly of the pool; else a rare word, or a compound (`new_size`, `sunstone_size`)."""
        form = self.draw()
        if form < 34000:
            return self.fresh(pool)
        if form < 40000:
            return self.fresh((f"{self.pick(words.PREFIXES)}_{self.pick(pool)}",))
        return self.fresh((self.rare_name(),))

    def fresh_value(self) -> str:
        """A new name for a number: a letter or a word."""
        return self.fresh(words.LETTERS) if self.draw() < 24000 else self.fresh_name(words.NUMBER_NAMES)

    def helper(self) -> str:
        """The name of a function that takes a message: imported by the program."""
        helpers = self.helpers
        if helpers and self.draw() < 36000:
            return self.pick(helpers)
        name = self.pick(words.VERBS) if self.draw() < 45000 else self.rare()
        if name not in helpers:
            helpers.append(name)
        return name

    def fresh_list(self, numbers: bool) -> str:
        """A new name for a flat list, whose members have a fitting name (`name` for `names`)."""
        pairs = words.NUMBER_LISTS if numbers else words.TEXT_LISTS
        taken = self.scope.taken
        pair = self.pick(pairs)
        if self.draw() < 20000:
            member = self.rare_name()
            pair = (member, self.fresh((f"{member}s",)))
        elif pair[1] in taken:
            pair = (pair[0], self.fresh((pair[1], f"new_{pair[1]}", f"all_{pair[1]}", f"other_{pair[1]}")))
        else:
            taken.add(pair[1])
        (self.scope.number_lists if numbers else self.scope.text_lists).append(pair)
        return pair[1]

    # Names that must exist already: bound by a line of their own where they do not.

    def number(self, pad: str) -> str:
        """The name of a number in scope."""
        numbers = self.scope.numbers
        if numbers and self.draw() < 56000:
            return self.pick(numbers)
        name = self.fresh_value()
        self.lines.append(f"{pad}{name} = {self.below(10)}\n")
        numbers.append(name)
        return name

    def text(self, pad: str) -> str:
        """The name of a string in scope."""
        texts = self.scope.texts
        if texts and self.draw() < 56000:
            return self.pick(texts)
        name = self.fresh_name(words.TEXT_NAMES)
        quote = self.quote()
        self.lines.append(f"{pad}{name} = {quote}{self.pick(words.THINGS)}{quote}\n")
        texts.append(name)
        return name

    def flag(self, pad: str) -> str:
        """The name of a truth value in scope."""
        flags = self.scope.flags
        if flags and self.draw() < 50000:
            return self.pick(flags)
        name = self.fresh_name(words.FLAG_NAMES) if self.chance(75) else self.fresh(words.LETTERS)
        self.lines.append(f"{pad}{name} = {self.pick(('True', 'False'))}\n")
        flags.append(name)
        return name

    def quote(self) -> str:
        """A quotation mark, single or double with equal chance."""
        return '"' if self.draw() & 1 else "'"
