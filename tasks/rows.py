"""Rows of a file of own prompts, JSONL or CSV: read and checked one by one, every problem named with its line.

A row has `prompt`, `answer` and `foil`, and can have `pair`, `family` and `split`. In CSV these names are the first
line, cells are separated by commas, and a line break in a quoted cell is "\\n" however the file ends its lines. In
JSONL every line is an object. Blank lines, of spaces too, and a byte order mark are skipped.
"""

import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .task import NATURAL, VARIANTS, TaskError
from .words import SPLITS

SUFFIXES = (".jsonl", ".csv")
NEEDED, OPTIONAL = ("prompt", "answer", "foil"), ("pair", "family", "split")
MOST_BYTES = 64 << 20  # of a file
MOST_ROWS = 200_000
MOST_CHARACTERS = 1 << 16  # of a value
MOST_LINE = 1 << 20  # characters of a line of JSON

_RESERVED = (*VARIANTS, "all", NATURAL)  # in prune.families and as variants they mean other things
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Row:
    """One prompt of a file. `where` is FILE:LINE; what is not given is ""."""

    where: str
    prompt: str
    answer: str
    foil: str
    pair: str = ""
    family: str = ""
    split: str = ""


def read_rows(path: str) -> tuple[list[Row], str]:
    """All rows of a file, and the SHA-256 of its bytes.

    Raises:
        TaskError: one line that names the file, the line and the way out.
    """
    data = _read(path)
    text = _decode(path, data)
    records = _csv_records(path, text) if Path(path).suffix.lower() == ".csv" else _json_records(path, text)
    rows: list[Row] = []
    for where, record in records:
        if len(rows) == MOST_ROWS:
            raise TaskError(f"{where}: more than {MOST_ROWS:,} rows; leave some out")
        rows.append(_row(where, record))
    if not rows:
        raise TaskError(f"{path}: no rows; give prompts with {', '.join(NEEDED)}, one a row")
    return rows, hashlib.sha256(data).hexdigest()


def shown(value: object) -> str:
    """A value as messages show it: on one line and not long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _read(path: str) -> bytes:
    """All of a plain file of a size that is read; a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(f"{path}: cannot be read ({reason}); name a file of prompts, .jsonl or .csv") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
            raise TaskError(f"{path}: is {what}; name a file of prompts, .jsonl or .csv")
        if found.st_size > MOST_BYTES:
            raise TaskError(f"{path}: {found.st_size:,} bytes, more than the {MOST_BYTES:,} that are read; shorten it")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); name another file") from error
    finally:
        os.close(descriptor)


def _decode(path: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise TaskError(f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from error
    if "\0" in text:
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise TaskError(f"{path}:{line}: holds a NUL character; remove it, or save the file as UTF-8 text")
    return text


def _json_records(path: str, text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """(FILE:LINE, values) of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        if len(line) > MOST_LINE:
            raise TaskError(f"{where}: {len(line):,} characters, more than the {MOST_LINE:,} of a line; shorten it")
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except RecursionError as error:
            raise TaskError(f"{where}: nested too deep; give strings only") from error
        except ValueError as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise TaskError(f"{where}: not a JSON object on one line ({reason}); mend or remove the line") from error
        if not isinstance(record, dict):
            raise TaskError(f"{where}: {shown(record)} is not a JSON object; give {_wanted()}")
        _check_names(where, list(record))
        yield where, record


def _object(entries: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in entries]
    if repeated := _repeated(names):
        raise ValueError(f"key {shown(repeated)} stands there twice")
    return dict(entries)


def _csv_records(path: str, text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """(FILE:LINE, values) of every record; a record of several lines has the number of its first."""
    reader = csv.reader(io.StringIO(text, newline=None), strict=True)
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):  # of the module, larger than ours
                raise TaskError(
                    f"{where}: a cell has more than the {MOST_CHARACTERS:,} characters of a value; shorten it, or add "
                    "the quote that should end it"
                ) from error
            raise TaskError(
                f'{where}: not CSV ({error}); a cell with commas, quotes or line breaks stands in "quotes", a quote in '
                "it is doubled"
            ) from error
        if cells is None:
            return
        if len(cells) < 2 and not "".join(cells).strip():  # a blank line
            continue
        if not header:
            header = cells
            _check_names(where, header)
        elif len(cells) != len(header):
            raise TaskError(
                f"{where}: {len(cells)} cells, but the first line names {len(header)}; put a cell with commas or line "
                "breaks in quotes"
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def _check_names(where: str, names: Sequence[str]) -> None:
    """TaskError unless the keys of an object or the names in a CSV file's first line are the known ones, each once."""
    if repeated := _repeated(names):
        raise TaskError(f"{where}: the name {shown(repeated)} stands there twice; remove one")
    unknown = [name for name in names if name not in (*NEEDED, *OPTIONAL)]
    missing = [name for name in NEEDED if name not in names]
    if unknown:
        raise TaskError(f"{where}: unknown name {shown(unknown[0])}; give {_wanted()}, separated by commas")
    if missing:
        raise TaskError(f"{where}: no {', '.join(missing)}; give {_wanted()}")


def _repeated(names: Sequence[str]) -> str:
    return next((name for i, name in enumerate(names) if name in names[:i]), "")


def _wanted() -> str:
    return f"{', '.join(NEEDED)}, and as you wish {', '.join(OPTIONAL)}"


def _row(where: str, record: dict[str, object]) -> Row:
    values = {name: _value(where, name, record.get(name)) for name in (*NEEDED, *OPTIONAL)}
    for name in NEEDED:
        if not values[name]:
            raise TaskError(f"{where}: {name} is empty; fill it in or remove the row")
    if values["answer"] == values["foil"]:
        raise TaskError(f"{where}: answer and foil are both {shown(values['answer'])}; give a foil that is wrong")
    if values["split"] not in ("", *SPLITS):
        raise TaskError(f"{where}: split {shown(values['split'])}: unknown; choose {', '.join(SPLITS)}, in every row")
    if values["family"] in _RESERVED:
        raise TaskError(
            f"{where}: a family cannot be named {values['family']}, as {', '.join(_RESERVED)} have meanings of their "
            "own; rename it in every row"
        )
    return Row(where, **values)


def _value(where: str, name: str, value: object) -> str:
    """A value as text, "" where there is none; TaskError for what is no text that a tokenizer takes."""
    if value is None and name in OPTIONAL:
        return ""
    if name == "pair" and type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise TaskError(f"{where}: {name} is {shown(value)}; give a string")
    if len(value) > MOST_CHARACTERS:
        raise TaskError(
            f"{where}: {name} has {len(value):,} characters, more than the {MOST_CHARACTERS:,} of a value; shorten it"
        )
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise TaskError(f"{where}: {name} holds a NUL character or half of a surrogate pair; remove it")
    return value
