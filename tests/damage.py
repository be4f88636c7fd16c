"""What can be wrong with a file, as tables: tests and the fuzz test go through them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

CONTENTS: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "cut in half": lambda content: content[: len(content) // 2],
    "last byte gone": lambda content: content[:-1],
    "first byte flipped": lambda content: bytes([content[0] ^ 0x80]) + content[1:] if content else b"",
    "middle byte flipped": lambda content: _flipped(content, len(content) // 2),
    "last byte flipped": lambda content: _flipped(content, len(content) - 1),
    "zeros": lambda content: bytes(len(content)),
    "zeros after": lambda content: content + bytes(100),
    "twice": lambda content: content + content,
    "list": lambda content: b"[]",
    "object": lambda content: b"{}",
    "null": lambda content: b"null",
    "number": lambda content: b"17",
    "text": lambda content: b'"text"',
    "not utf-8": lambda content: b'{"a": "\xff\xfe"}',
    "utf-16": lambda content: '{"a": 1}'.encode("utf-16"),
    "mark of utf-8": lambda content: b"\xef\xbb\xbf" + content,
    "nested lists": lambda content: b"[" * 200_000,
    "nested objects": lambda content: b'{"a":' * 200_000,
    "infinity": lambda content: b'{"a": Infinity}',
    "not a number": lambda content: b'{"a": NaN}',
    "large real": lambda content: b'{"a": 1e999}',
    "large whole": lambda content: b'{"a": ' + b"9" * 6000 + b"}",
    "half a surrogate": lambda content: b'{"a": "\\ud800"}',
    "another page": lambda content: b"<html><body>404</body></html>",
}
"""Name -> damaged content of a file, from its good content."""

HARMLESS = {"object", "mark of utf-8"}
"""Damages that leave readable JSON of the right kind."""


def _flipped(content: bytes, index: int) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[index] ^= 0xFF
    return bytes(changed)


def _closed(path: Path) -> None:
    """A link that leads nowhere: unreadable for everybody, root too."""
    path.symlink_to(path.with_name("nowhere"))


PLACES: Mapping[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "dangling link": _closed,
    "circular link": lambda path: path.symlink_to(path),
}
"""Name -> what is put where a file should be."""
