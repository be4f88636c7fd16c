"""What circuits/circuit.py alone still checks circuit.json by; everything else uses sparse_gpt.records, which replaces
this.

A schema is one of
  * a dict: an object with these keys; "key?" may be absent; "*" stands for all other keys, which are otherwise ignored;
  * a list of one schema: a list of such values; of several schemas: a list of exactly these;
  * a `Leaf`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from sparse_gpt.errors import InputError


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A value that is no container: `ok` accepts it, `name` says what is wanted."""

    name: str
    ok: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MOST = 10**6  # layers and channels
NUMBER = Leaf("a number", _is_number)
MAYBE = Leaf("a number or null", lambda value: value is None or _is_number(value))
LOSSES = Leaf(
    "a number, null or a list of numbers",
    lambda value: all(map(MAYBE.ok, value if isinstance(value, list) else [value])),
)
INDEX = Leaf(f"a whole number from 0 to {MOST}", lambda value: type(value) is int and 0 <= value <= MOST)
FLAG = Leaf("true or false", lambda value: isinstance(value, bool))
TEXT = Leaf("a string", lambda value: isinstance(value, str))
ANY = Leaf("anything", lambda value: True)


def check(value: Any, schema: Any, place: str = "") -> None:
    """Raises InputError, with the place and what is wanted there, if `value` is not as `schema` says."""
    where = place or "the file"
    if isinstance(schema, Leaf):
        if not schema.ok(value):
            raise InputError(f"{where} is {shown(value)}, expected {schema.name}")
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {shown(value)}, expected an object")
        _check_object(value, schema, place)
    else:
        if not isinstance(value, list):
            raise InputError(f"{where} is {shown(value)}, expected a list")
        if len(schema) > 1 and len(value) != len(schema):
            raise InputError(f"{where} has {len(value)} items, expected {len(schema)}")
        for i, item in enumerate(value):
            check(item, schema[i if len(schema) > 1 else 0], f"{place}[{i}]")


def _check_object(value: dict[str, Any], schema: dict[str, Any], place: str) -> None:
    prefix = f"{place}." if place else ""
    for name, inner in schema.items():
        key = name.removesuffix("?")
        if key in value and key != "*":
            check(value[key], inner, prefix + key)
        elif name == key != "*":
            raise InputError(f"{prefix}{key} is missing")
    if "*" in schema:
        named = {name.removesuffix("?") for name in schema}
        for key in value.keys() - named - {"format"}:
            check(value[key], schema["*"], prefix + key)


def shown(value: Any) -> str:
    """A value in a message, short and in ASCII."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:40]
