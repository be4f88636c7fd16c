"""Counts the collectives of a compiled program by reading its HLO text.

XLA's own cost analysis counts the body of a loop once; here every collective counts as often as its loops run. Of
asynchronous pairs (start, done) only the start counts, and of the branches of a conditional all do (an upper bound).

TPU programs need three more rules. Their loops carry no count: it is the constant that the loop's condition compares
with. A collective spread over the operations it overlaps with is written many times, under one chain_id. A
reduce-scatter is a fusion of an all-reduce and a slice. And what goes to other slices is handed to the host ("send").
With several slices collectives lose their names; they take that of what they reduce, or of the loop around them.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BETWEEN_SLICES = "all-reduce between slices"

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.$-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
_OP = re.compile(r"^\s*(?:ROOT\s+)?%?[\w.$-]+\s*=\s*(\(.*?\)|\S+)\s+([a-z][\w-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_CONDITION = re.compile(r"\bcondition=%?([\w.$-]+)")
_CONSTANT = re.compile(r"^\s*%?([\w.$-]+)\s*=\s*s32\[\]\S*\s+constant\((\d+)\)")
_COUNTS_TO = re.compile(r"\bcompare\([^()]*%([\w.$-]+)\), direction=LT")
_NAME = re.compile(r'op_name="([^"]*)"')
_TO_SLICES = re.compile(r'\bsend\(.*_xla_megascale_transfer_type="ALL_REDUCE"')
_OPERAND = re.compile(r"\([^%]*%([\w.$-]+)")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_ALL_REDUCE = re.compile(r"^\s*(?:ROOT\s+)?%?[\w.$-]+\s*=\s*(\(.*?\)|\S+)\s+all-reduce\(")
REDUCE_SCATTER = re.compile(r"\bcalls=%?(all-reduce-scatter[\w.$-]*)")  # as TPU programs write it


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of KINDS, or BETWEEN_SLICES.
      bytes: size of its result on one device; of a reduce-scatter, of its operand.
      times: how often it runs.
      scope: path of the operation in the traced program, named scopes included.
      overlaps: whether other work goes on meanwhile.
      conditional: whether it is in a branch that may not be taken.
    """

    kind: str
    bytes: int
    times: int
    scope: str
    overlaps: bool = False
    conditional: bool = False


def collectives(text: str) -> list[Collective]:
    """Every collective of an optimised HLO module (`compiled.as_text()`), loops multiplied out.

    Raises:
      ValueError: the text holds no entry computation.
    """
    bodies, entry = _computations(text)
    return list(_walk(bodies, entry, _Place(), set()))


def trip_count(line: str, lines_of: Callable[[str], Iterable[str]]) -> int:
    """How often a loop runs.

    Args:
      line: the `while` instruction.
      lines_of: computation's name -> its lines; called with the name of the loop's condition.

    Returns:
      The count that the compiler noted, or else the constant that the loop's counter, from 0, must stay below; 1 when
      neither is there.
    """
    if noted := _TRIPS.search(line):
        return int(noted[1])
    named = _CONDITION.search(line)
    condition = list(lines_of(named[1])) if named else []
    constants = {found[1]: int(found[2]) for found in map(_CONSTANT.match, condition) if found}
    limits = [constants[found[1]] for found in map(_COUNTS_TO.search, condition) if found and found[1] in constants]
    return limits[0] if len(limits) == 1 else 1


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


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a computation is called from."""

    times: int = 1
    scope: str = ""
    conditional: bool = False


def _walk(bodies: Mapping[str, list[str]], name: str, place: _Place, chains: set[str]) -> Iterator[Collective]:
    lines = bodies.get(name, ())
    for line in lines:
        op = _OP.match(line)
        if not op or op[2].endswith(("-done", "-update")):
            continue
        kind, started = op[2].removesuffix("-start"), op[2].endswith("-start")
        is_collective = kind in KINDS or REDUCE_SCATTER.search(line) or _TO_SLICES.search(line)
        scope = _scope(line, lines if is_collective else ()) or place.scope
        at = dataclasses.replace(place, scope=scope)
        if scattered := REDUCE_SCATTER.search(line):
            whole = next(filter(None, map(_ALL_REDUCE.match, bodies[scattered[1]])))
            yield _collective("reduce-scatter", _size(whole[1], False), at)
        elif _TO_SLICES.search(line):
            yield _collective(BETWEEN_SLICES, _size(op[1].split("}")[0], False), at, overlaps=True)
        elif kind in KINDS:  # its to_apply is the reduction of two numbers
            chain = _CHAIN.search(line)
            if chain is None or chain[1] not in chains:
                chains |= {chain[1]} if chain else set()
                size = _size(op[1], started) * (_group_size(line) if kind == "reduce-scatter" else 1)
                yield _collective(kind, size, at, overlaps=started or chain is not None)
        else:
            trips = trip_count(line, lambda name: bodies.get(name, ())) if kind == "while" else 1
            inner = _Place(place.times * trips, scope, place.conditional or kind == "conditional")
            for called in _called(line):
                yield from _walk(bodies, called, inner, chains)


def _collective(kind: str, size: int, place: _Place, overlaps: bool = False) -> Collective:
    return Collective(kind, size, place.times, place.scope, overlaps, place.conditional)


def _scope(line: str, around: Sequence[str]) -> str:
    """The operation's name in the traced program, or else that of its first operand; empty when neither has one."""
    if found := _NAME.search(line):
        return found[1]
    operand = _OPERAND.search(line.partition("=")[2])
    if operand is None:
        return ""
    defined = re.compile(rf"^\s*(?:ROOT\s+)?%?{re.escape(operand[1])}\s*=")
    found = next(filter(None, (_NAME.search(each) for each in around if defined.match(each))), None)
    return found[1] if found else ""


def _group_size(line: str) -> int:
    """Over how many devices a collective goes; 1 when its line does not tell."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{((?:'[^']*',?\s*)+)\}", line):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", named[2]))
    return 1


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
