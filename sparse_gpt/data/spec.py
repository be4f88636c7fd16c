"""What describes a mixture of sources, item by item: ``idioms:0.7, python_source=src:0.2, jsonl=*.jsonl#text:0.1``.

A location or column with a comma, "#" or a number after its last colon is written in quotes, single or double, with a
quote of that kind in it doubled: ``text="a, b.txt":0.5``.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

from sparse_gpt.config.fields import QUOTED, items
from sparse_gpt.errors import InputError

KINDS = ("idioms", "pinned_source", "python_source", "text", "jsonl", "parquet", "hf")
_NEEDS_LOCATION = ("text", "jsonl", "parquet", "hf")
_TAKES_COLUMN = ("jsonl", "parquet", "hf")
_PART = re.compile(rf"(?P<quoted>{QUOTED})|[^#]*")
_IN_QUOTES = """a path with , or # in it goes in quotes: text="a,b.txt" (a quote in it is doubled)"""
_WEIGHT = re.compile(r"^(?P<rest>.*):(?P<weight>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """One item ``kind[=location][#column][:weight]``; weights of a mixture sum to 1."""

    kind: str
    location: str = ""
    column: str = ""
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The item without its weight, as used in messages and manifests."""
        location = f"={_quote(self.location, ',#')}" if self.location else ""
        return self.kind + location + (f"#{_quote(self.column, ',')}" if self.column else "")


def _quote(text: str, special: str) -> str:
    """In quotes if it could not be read otherwise; a colon is no reason, for every item of a mixture has a weight."""
    if any(sign in text for sign in special) or text[0] in "\"'" or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def parse_sources(sources: str | Sequence[str]) -> tuple[SourceSpec, ...]:
    """Parses ``data.sources``, a list or one text with commas; weights (default 1) are scaled to sum to 1.

    Raises:
        InputError: nothing in it, an unknown kind, a missing location, a weight that is not a positive number, or the
            same source twice.
    """
    specs = tuple(_parse_item(item) for item in (items(sources) if isinstance(sources, str) else sources))
    if not specs:
        raise InputError(f"data.sources={sources!r}: no source in it; try idioms:0.75,pinned_source:0.25")
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"data.sources: {name} is listed twice; give it once, with the sum of the weights")
    total = sum(spec.weight for spec in specs)
    if not math.isfinite(total):
        raise InputError("data.sources: the sum of the weights is too large; give shares of 1")
    return tuple(dataclasses.replace(spec, weight=spec.weight / total) for spec in specs)


def _parse_item(item: str) -> SourceSpec:
    weight, body = 1.0, item
    if match := _WEIGHT.match(item):
        body = match["rest"]
        try:
            weight = float(match["weight"])
        except ValueError:
            weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise InputError(f"data.sources: {item}: the weight after the last colon must be a positive number")
    kind, _, rest = body.partition("=")
    location, rest = _take(item, rest)
    column, rest = _take(item, rest[1:])
    column += rest  # a "#" in a column needs no quotes
    kind = kind.strip()
    if kind not in KINDS:
        raise InputError(f"data.sources: {item}: unknown kind {kind!r}; choose one of {', '.join(KINDS)}; {_IN_QUOTES}")
    if kind in _NEEDS_LOCATION and not location:
        raise InputError(f"data.sources: {item}: needs a location, such as {kind}=LOCATION")
    if kind == "idioms" and location:
        raise InputError(f"data.sources: {item}: idioms are generated and take no location")
    if kind == "pinned_source" and location:
        raise InputError(f"data.sources: {item}: a fixed list of files; for a folder write python_source={location}")
    if column and kind not in _TAKES_COLUMN:
        raise InputError(f"data.sources: {item}: {kind} has no columns; drop #{column}")
    return SourceSpec(kind, location, column or ("text" if kind in _TAKES_COLUMN else ""), weight)


def _take(item: str, text: str) -> tuple[str, str]:
    """The location or column at the start of `text`, without its quotes, and what comes after it."""
    match = _PART.match(text)
    assert match  # it matches nothing at least
    taken, rest = match[0], text[match.end() :]
    if not match["quoted"]:
        if taken[:1] in ('"', "'"):
            raise InputError(f"data.sources: {item}: the quote {taken[0]} is not closed; {_IN_QUOTES}")
        return taken, rest
    if rest and not rest.startswith("#"):
        raise InputError(f"data.sources: {item}: {rest!r} after the closing quote; {_IN_QUOTES}")
    return taken[1:-1].replace(taken[0] * 2, taken[0]), rest
