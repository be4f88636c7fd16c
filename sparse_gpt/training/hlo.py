"""Counts the collectives of a compiled program by reading its HLO text.

XLA's own cost analysis counts the body of a loop once; here every collective counts as often as its loops run. Of
asynchronous pairs (start, done) only the start counts, and of the branches of a conditional all do (an upper bound).
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.$-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
_OP = re.compile(r"^\s*(?:ROOT\s+)?%?[\w.$-]+\s*=\s*(\(.*?\)|\S+)\s+([a-z][\w-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction. `bytes` is the size of its result on one device, `times` how often it runs, `scope`
    the path of the operation in the traced program (named scopes included)."""

    kind: str
    bytes: int
    times: int
    scope: str


def collectives(text: str) -> list[Collective]:
    """Every collective of an optimised HLO module (`compiled.as_text()`), loops multiplied out.

    Raises:
      ValueError: the text holds no entry computation.
    """
    bodies, entry = _computations(text)
    return list(_walk(bodies, entry, 1))


def total(found: list[Collective]) -> dict[str, dict[str, int]]:
    """kind -> {"count", "bytes"}: how often each kind runs per step, and the bytes of all its results."""
    sums: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for each in found:
        sums[each.kind]["count"] += each.times
        sums[each.kind]["bytes"] += each.times * each.bytes
    return dict(sums)


def _computations(text: str) -> tuple[Mapping[str, list[str]], str]:
    """Lines of every computation by name, and the entry's name."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = None if line[:1].isspace() else _HEAD.match(line)
        if head:
            current = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.append(line)
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return bodies, entry


def _walk(bodies: Mapping[str, list[str]], name: str, times: int) -> Iterator[Collective]:
    for line in bodies.get(name, ()):
        op = _OP.match(line)
        if not op or op[2].endswith(("-done", "-update")):
            continue
        kind = op[2].removesuffix("-start")
        if kind in KINDS:
            scope = _NAME.search(line)
            yield Collective(kind, _size(op[1], op[2].endswith("-start")), times, scope[1] if scope else "")
            continue  # its to_apply is the reduction of two numbers
        trips = _TRIPS.search(line)
        inner = times * int(trips[1]) if trips and kind == "while" else times
        for called in _called(line):
            yield from _walk(bodies, called, inner)


def _called(line: str) -> list[str]:
    names = [match[2] for match in _CALLED.finditer(line)]
    for match in _BRANCHES.finditer(line):
        names += [name.strip().lstrip("%") for name in match[1].split(",")]
    return names


def _size(shape: str, started: bool) -> int:
    """Bytes of a result; a started operation's tuple holds operands, results and perhaps context words."""
    arrays = [_bytes(kind, dims) for kind, dims in _ARRAY.findall(shape)]
    if started and len(arrays) > 1 and shape.startswith("(("):
        return sum(arrays[len(arrays) // 2 :])
    return arrays[1] if started and len(arrays) in (2, 4) and shape.startswith("(") else sum(arrays)


@functools.cache
def _bytes(kind: str, dims: str) -> int:
    digits = re.search(r"\d+", kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 8)
    return math.prod(int(d) for d in dims.split(",") if d) * bits // 8
