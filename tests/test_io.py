"""The one JSON reader: whatever a file is, a value or one line that names it."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt import io
from sparse_gpt.errors import InputError
from tests import damage

GOOD = {"a": 1, "b": [1.5, None, True, "é \U0001f600"], "c": {"d": -(2**63) + 1, "e": 2**63 - 1, "f": 1e308}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    io.write_json(path, GOOD)
    assert io.read_json(path) == GOOD
    assert path.read_text() == json.dumps(GOOD, indent=1) + "\n"
    assert os.listdir(path.parent) == ["file.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"a": -math.inf}]])
def test_no_number_that_is_not_finite_is_written(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "file.json"
    io.write_json(path, GOOD)
    with pytest.raises(InputError, match="not finite"):
        io.write_json(path, value)
    assert io.read_json(path) == GOOD
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("name", sorted(damage.CONTENTS))
def test_damaged_content_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(damage.CONTENTS[name](json.dumps(GOOD).encode()))
    if name in damage.HARMLESS:
        assert isinstance(io.read_json(path), dict)
        return
    with pytest.raises(InputError) as raised:
        io.read_json(path)
    said = str(raised.value)
    assert str(path) in said
    assert "\n" not in said
    assert len(said) < 300 + len(str(path))


@pytest.mark.parametrize("name", sorted(damage.PLACES))
def test_what_is_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.json"
    damage.PLACES[name](path)
    with pytest.raises(InputError, match=r"file\.json"):
        io.read_json(path)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[]", dict, "holds a list, expected an object"),
        ("null", dict, "holds null"),
        ("true", int, "holds true or false, expected a whole number"),
        ("1" * 6000, int, "of 6000 digits"),
        (str(2**63), int, "too large"),
        ("1e999", float, "too large"),
        ("-Infinity", float, "-Infinity is no number"),
        ("NaN", float, "NaN is no number"),
        ('"\\ud800"', str, "surrogate"),
        ("[" * 200_000, list, "nested too deep"),
        ('{"a":' * 200_000, dict, "nested too deep"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_each_limit_is_named(text: str, kind: type, said: str) -> None:
    with pytest.raises(InputError, match=said):
        io.parse_json(text, "here", kind)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(InputError, match="more than the 10 that are read"):
        io.read_json(path, most_bytes=10)


def test_replacing_leaves_the_old_file_where_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_text("old")

    def fail() -> None:
        with io.replacing(path) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".npz"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    with io.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.npz"]
