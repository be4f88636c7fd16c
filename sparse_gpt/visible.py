"""How tokens are shown to people, everywhere, so that nothing can be overlooked or taken for something else; tables."""

import re
from collections.abc import Sequence

# White space as signs; where a text holds such a sign itself, it is shown by its number.
SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "·"}
EMPTY = "∅"
_BYTE = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte


def token_text(data: bytes) -> str:
    """Text of one token; bytes that are only a part of a character stand as ``<E2>``."""
    return _BYTE.sub(lambda found: f"<{ord(found[0]) - 0xDC00:02X}>", data.decode("utf-8", "surrogateescape"))


def visible(text: str) -> str:
    """`text` with signs for white space (·, ↵, ␍, ⇥), and with ``<07>`` or ``<U+200B>`` for what does not print.

    Examples:
      >>> visible(" a\\n\\x07\\u200b")
      '·a↵<07><U+200B>'
    """
    return "".join(SIGNS.get(character) or _printable(character) for character in text) or EMPTY


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, two spaces in, cells aligned at their left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _printable(character: str) -> str:
    if character.isprintable() and character not in SIGNS.values() and character != EMPTY:
        return character
    number = ord(character)
    return f"<{number:02X}>" if number < 0x80 else f"<U+{number:04X}>"
