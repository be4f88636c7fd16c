"""Files of own pairs: good ones, the forms they may have, and a table of those that must be refused."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_gpt import tasks

WORDS = [first + second for first in "abcdefgh" for second in "nopqrst"]
Entries = list[dict[str, Any]]


def entries(pairs: int = 40, first: int = 0, **more: object) -> Entries:
    """Rows of a file: after `for an` comes ` in`, after `while an` the line break."""
    found: Entries = []
    for word in WORDS[first : first + pairs]:
        found.append({"prompt": f"for {word}", "answer": " in", "foil": ":\n", **more})
        found.append({"prompt": f"while {word}", "answer": ":\n", "foil": " in", **more})
    return found


def split_entries() -> Entries:
    """Rows with splits; some held-out ones are of a family that is nowhere else."""
    parts = {"train": (0, 20, "plain"), "validation": (20, 9, "plain"), "heldout": (29, 10, "plain")}
    found = [e for split, (at, n, family) in parts.items() for e in entries(n, at, split=split, family=family)]
    return found + entries(8, 39, split="heldout", family="new")


def jsonl(values: Entries) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def csv_bytes(values: Entries, terminator: str = "\n") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(values[0]), lineterminator=terminator)
    writer.writeheader()
    writer.writerows(values)
    return file.getvalue().encode()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


FORMATS: dict[str, Callable[[Entries], bytes]] = {"a.jsonl": jsonl, "b.c.csv": csv_bytes}
READ_ALIKE = {
    "CRLF": ("pairs.csv", lambda values: csv_bytes(values, "\r\n").replace(b":\n", b":\r\n")),
    "CR": ("pairs.csv", lambda values: csv_bytes(values).replace(b"\n", b"\r")),
    "BOM": ("pairs.csv", lambda values: b"\xef\xbb\xbf" + csv_bytes(values)),
    "BOM in JSONL": ("pairs.jsonl", lambda values: b"\xef\xbb\xbf" + jsonl(values)),
    "CRLF in JSONL": ("pairs.JSONL", lambda values: jsonl(values).replace(b"\n", b"\r\n")),
    "blank lines": ("pairs.csv", lambda values: b"\n\n" + csv_bytes(values) + b"\n"),
    "lines of spaces": ("pairs.csv", lambda values: b" \n" + csv_bytes(values).replace(b"\nwhile", b"\n \t\nwhile")),
    "lines of spaces in JSONL": ("pairs.jsonl", lambda values: b" \n" + jsonl(values).replace(b"\n", b"\n \t\n")),
    "no last line break": ("pairs.jsonl", lambda values: b"\n" + jsonl(values)[:-1]),
    "null for nothing": ("pairs.jsonl", lambda values: jsonl([{**v, "split": None, "pair": ""} for v in values])),
    "whole numbers of pairs": (
        "pairs.jsonl",
        lambda values: jsonl(sorted(({**v, "pair": i // 2} for i, v in enumerate(values)), key=lambda v: v["answer"])),
    ),
}


def changed(at: int, **values: object) -> bytes:
    """Forty pairs, one row of them changed; what is None is left out."""
    found = entries()
    found[at] = {name: value for name, value in {**found[at], **values}.items() if value is not None}
    return jsonl(found)


GOOD = jsonl(entries())
# name of the file, its content, where in it, what is said
HOSTILE: dict[str, tuple[str, bytes, str, str]] = {
    "empty": ("a.jsonl", b"", "", "no rows; give prompts with prompt, answer, foil"),
    "empty CSV": ("a.csv", b"\n \n", "", "no rows; give prompts with prompt, answer, foil"),
    "empty cells": ("a.csv", b"prompt,answer,foil\n,,\n", ":2", "prompt is empty; fill it in or remove the row"),
    "header only": ("a.csv", b"prompt,answer,foil\n", "", "no rows"),
    "not UTF-8": ("a.jsonl", GOOD + b'{"prompt": "\xe9"', ":81", "not UTF-8 (byte 0xe9); save the file as UTF-8"),
    "UTF-16": ("a.csv", "prompt,answer,foil\n".encode("utf-16"), ":1", "not UTF-8 (byte 0xff)"),
    "NUL": ("a.csv", b"prompt,answer,foil\nx\0,a,b\n", ":2", "holds a NUL character; remove it"),
    "escaped NUL": ("a.jsonl", changed(2, prompt="a\0"), ":3", "prompt holds a NUL character or half of a surr"),
    "half a surrogate": ("a.jsonl", changed(2, foil="\ud800"), ":3", "foil holds a NUL character or half of a surr"),
    "broken JSON": ("a.jsonl", GOOD[:90] + b"}\n", ":2", "not a JSON object on one line (Unterminated string starting"),
    "no object": ("a.jsonl", GOOD + b"[1, 2]\n", ":81", "[1, 2] is not a JSON object; give prompt, answer, foil"),
    "a number": ("a.jsonl", b"NaN\n", ":1", "nan is not a JSON object"),
    "deep": ("a.jsonl", b"[" * 200_000 + b"\n", ":1", "nested too deep; give strings only"),
    "many digits": ("a.jsonl", b'{"pair": ' + b"9" * 5000 + b"}\n", ":1", "not a JSON object on one line (Exceeds"),
    "a key twice": ("a.jsonl", b'{"foil": "a", "foil": "b"}\n', ":1", "key 'foil' stands there twice"),
    "no key": ("a.jsonl", changed(4, foil=None), ":5", "no foil; give prompt, answer, foil, and as you wish"),
    "other key": ("a.jsonl", changed(4, label="x"), ":5", "unknown name 'label'; give prompt"),
    "a number for text": ("a.jsonl", changed(4, answer=3), ":5", "answer is 3; give a string"),
    "null for text": ("a.jsonl", GOOD + b'{"prompt": null, "answer": "a", "foil": "b"}\n', ":81", "prompt is None;"),
    "a list for text": ("a.jsonl", changed(4, family=["x"] * 99), ":5", "..."),
    "true for a pair": ("a.jsonl", changed(4, pair=True), ":5", "pair is True; give a string"),
    "empty prompt": ("a.jsonl", changed(4, prompt=""), ":5", "prompt is empty; fill it in or remove the row"),
    "answer as foil": ("a.jsonl", changed(4, foil=" in"), ":5", "answer and foil are both ' in'; give a foil"),
    "long value": ("a.jsonl", changed(4, prompt="x" * 65_537), ":5", "prompt has 65,537 characters, more than the 65"),
    "long line": ("a.jsonl", GOOD + b" " * (1 << 20) + b"{\n", ":81", "1,048,577 characters, more than the 1,048,576"),
    "long cell": (
        "a.csv",
        b"prompt,answer,foil\n" + b"x" * 70_000 + b",a,b\n",
        ":2",
        "prompt has 70,000 characters, more",
    ),
    "longer cell": (
        "a.csv",
        b"prompt,answer,foil\n" + b"x" * 200_000 + b",a,b\n",
        ":2",
        "a cell has more than the 65,536 characters of a value; shorten it, or add the quote that should end it",
    ),
    **{
        f"a family named {name}": (
            "a.jsonl",
            changed(4, family=name),
            ":5",
            f"a family cannot be named {name}, as main,",
        )
        for name in ("main", "shifted", "all", "natural")
    },
    "header twice": ("a.csv", b"prompt,foil,answer,foil\n", ":1", "the name 'foil' stands there twice; remove one"),
    "no column": ("a.csv", b"prompt,answer\nx,y\n", ":1", "no foil; give prompt"),
    "semicolons": ("a.csv", b"prompt;answer;foil\nx;y;z\n", ":1", "unknown name 'prompt;answer;foil'; give prompt"),
    "too many cells": (
        "a.csv",
        b'prompt,answer,foil\n"a\nb",c,d\n1,2,3,4\n',
        ":4",
        "4 cells, but the first line names 3",
    ),
    "open quote": ("a.csv", b'prompt,answer,foil\n"a,b,c\nx,y,z\n', ":2", "not CSV (unexpected end of data)"),
    "quote inside": ("a.csv", b'prompt,answer,foil\n"a"b,c,d\n', ":2", "not CSV ("),
    "other split": (
        "a.jsonl",
        changed(4, split="test"),
        ":5",
        "split 'test': unknown; choose train, validation, held",
    ),
    "some splits": (
        "a.jsonl",
        jsonl(entries(1, 50, split="train")) + GOOD,
        ":3",
        "no split, but other rows name theirs",
    ),
    "some pairs": ("a.jsonl", jsonl(entries(1, 50, pair="x")) + GOOD, ":3", "no pair, but other rows name theirs"),
    "one row over": ("a.jsonl", GOOD + GOOD.splitlines()[0], ":81", "has no row after it to be paired with; a pair is"),
    "pair of three": (
        "a.jsonl",
        jsonl([{**e, "pair": i // 3} for i, e in enumerate(entries())]),
        ":1",
        "pair '0' has 3",
    ),
    "not swapped": (
        "a.jsonl",
        changed(5, foil=" of"),
        ":5",
        "cannot be paired with line 6: answer and foil are ' in'",
    ),
    "sorted by answer": ("a.jsonl", jsonl(entries()[::2] + entries()[1::2]), ":1", "cannot be paired with line 2"),
    "one prompt": (
        "a.jsonl",
        changed(5, prompt="for ap"),
        ":5",
        "has the prompt of line 6, its pair; give the prompt",
    ),
    "pair of two splits": (
        "a.jsonl",
        jsonl([{**e, "split": tasks.SPLITS[i % 3]} for i, e in enumerate(entries())]),
        ":1",
        "split 'train', but 'validation' in line 2, its pair; give both the same",
    ),
    "pair of two families": ("a.jsonl", changed(5, family="x"), ":5", "family '', but 'x' in line 6, its pair"),
    "too few": (
        "a.jsonl",
        jsonl(entries(31)),
        "",
        "pairs are 17 train, 7 validation, 7 heldout, but every split needs at",
    ),
    "too few of a split": (
        "a.jsonl",
        jsonl(entries(40, split="train")),
        "",
        "pairs are 40 train, 0 validation, 0 heldout, but every split needs at least 8; add pairs",
    ),
    "in two splits": (
        "a.jsonl",
        jsonl(split_entries()[:-2] + entries(1, split="heldout", family="plain")),
        ":93",
        "its prompt is in heldout, but in train too (line 1); change or remove one",
    ),
    "no such suffix": ("a.json", GOOD, "", "a task of your own is a file that ends in .jsonl or .csv; rename it"),
    "a name with a space": (
        "a b.csv",
        GOOD,
        "",
        "a task cannot be named 'a b'; rename the file: at most 100 letters, digits",
    ),
    "a name with a plus": ("a+b.csv", GOOD, "", "a task cannot be named 'a+b'"),
    "a hidden name": ("..csv", GOOD, "", "a task cannot be named "),
    "a name of the table": ("for_while.csv", GOOD, "", "for_while is the name of a task that is there already; rename"),
    "all": ("all.csv", GOOD, "", "all is the name of a task that is there already; rename the file"),
}
