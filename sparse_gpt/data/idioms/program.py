"""Whole programs: a few sections, definitions among them, one after the other."""

from collections.abc import Iterator

from sparse_gpt.data.idioms.classes import class_definition
from sparse_gpt.data.idioms.functions import function
from sparse_gpt.data.idioms.sections import SECTIONS
from sparse_gpt.data.idioms.stream import draws
from sparse_gpt.data.idioms.writer import Writer

PARTS = SECTIONS + (function,) * 11 + (class_definition,) * 6
"""Everything a program is made of, by weight."""
NUMBER_OF_PARTS = (1, 1, 1, 2, 2, 2, 3, 3)


def generate(seed: int, index: int) -> str:
    """The index-th program of a seed.

    Args:
        seed: any integer; other seeds give other programs.
        index: number of the program, from 0.

    Returns:
        Python source that parses, ASCII, lines ended by a single newline, mostly 100 to 1500 characters. The same
        arguments give the same text on every platform and Python version.
    """
    w = Writer(draws(seed, index))
    first = True
    for _ in range(w.pick(NUMBER_OF_PARTS)):
        if not first and w.chance(75):
            w.lines.append("\n")
        first = False
        w.pick(PARTS)(w, "")
    if w.helpers:
        module = w.pick(("tools", "helpers", "utils", "app"))
        w.lines.insert(0, f"from {module} import {', '.join(w.helpers)}\n{w.pick(('', chr(10)))}")
    return "".join(w.lines)


def documents(seed: int, start: int, stop: int) -> Iterator[str]:
    """The programs start, start + 1, ..., stop - 1 of a seed."""
    for index in range(start, stop):
        yield generate(seed, index)
