"""What a compiled program does on one device, instruction by instruction, with loops multiplied out.

`compiled.cost_analysis()` counts the body of a loop once. The selections of this project are loops, so bytes and vector
operations are counted here from the text of the optimised program. Matrix products are never in those loops, and their
count is left to the compiler.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from sparse_gpt.training import hlo

_INSTRUCTION = re.compile(r"^\s*(?:ROOT\s+)?%?([\w.$-]+)\s*=\s*(\(.*?\)|\S+)\s+([a-z][\w-]*)\((.*)$")
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.$-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](\{[^}]*\})?")
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":\s*"(\d+)"')
_SCOPE = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"\b(?:calls|to_apply)=%?([\w.$-]+)")
_BODY = re.compile(r"\bbody=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.$-]+))")

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_LAYOUT = {
    "copy",
    "broadcast",
    "iota",
    "reshape",
    "transpose",
    "slice",
    "dynamic-slice",
    "concatenate",
    "pad",
    "gather",
}
_NOT_VECTOR = _FREE | _LAYOUT | {"fusion", "convolution", "dot", "custom-call", "call", "while", "conditional"}


@dataclasses.dataclass(frozen=True)
class Work:
    """One instruction on one device: HBM bytes, elementwise operations, the compiler's estimate in cycles
    (0: none), all for one run; it runs `times` times, if at all when `conditional`."""

    bytes: int
    vector: int
    cycles: int
    times: int
    scope: str
    conditional: bool


@dataclasses.dataclass(frozen=True)
class _Instruction:
    shape: str
    op: str
    operands: list[str]
    line: str


def work(text: str) -> list[Work]:
    """Every instruction of an optimised HLO module (`compiled.as_text()`), collectives left out (see training/hlo)."""
    computations, entry = _parse(text)
    return list(_walk(computations, entry, 1, False))


def _parse(text: str) -> tuple[Mapping[str, dict[str, _Instruction]], str]:
    computations: dict[str, dict[str, _Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = None if line[:1].isspace() else _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            operands = re.findall(r"%([\w.$-]+)", _inside(match[4]))
            current[match[1]] = _Instruction(match[2], match[3], operands, line)
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return computations, entry


def _inside(rest: str) -> str:
    """Text up to the parenthesis that closes the operands."""
    depth = 1
    for index, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:index]
    return rest


def _walk(
    computations: Mapping[str, dict[str, _Instruction]], name: str, times: int, conditional: bool
) -> Iterator[Work]:
    for each in computations.get(name, {}).values():
        kind = each.op.removesuffix("-start").removesuffix("-done").removesuffix("-update")
        if each.op in _FREE or each.op.endswith(("-done", "-update")) or kind in hlo.KINDS:
            continue
        if each.op == "while":
            trips, body = _TRIPS.search(each.line), _BODY.search(each.line)
            if body:
                yield from _walk(computations, body[1], times * (int(trips[1]) if trips else 1), conditional)
        elif each.op == "conditional":
            for several, one in _BRANCHES.findall(each.line):
                for branch in (several or one).split(","):
                    yield from _walk(computations, branch.strip().lstrip("%"), times, True)
        elif each.op in ("call", "async-start") and (called := _CALLED.search(each.line)):
            yield from _walk(computations, called[1], times, conditional)
        else:
            scope, cycles = _SCOPE.search(each.line), _CYCLES.search(each.line)
            yield Work(
                _traffic(computations[name], each),
                _vector(computations, computations[name], each),
                int(cycles[1]) if cycles else 0,
                times,
                scope[1] if scope else "",
                conditional,
            )


def _traffic(around: Mapping[str, _Instruction], each: _Instruction) -> int:
    shapes = [each.shape, *(around[name].shape for name in each.operands if name in around)]
    if each.op in ("dynamic-slice", "slice", "gather"):  # reads what it gives, not all of its operand
        shapes = [each.shape, each.shape]
    return sum(_bytes(shape) for shape in shapes)


def _vector(
    computations: Mapping[str, dict[str, _Instruction]], around: Mapping[str, _Instruction], each: _Instruction
) -> int:
    """Elementwise operations of an instruction, or of all inside a fusion."""
    if each.op == "fusion":
        called = _CALLED.search(each.line)
        inner = computations.get(called[1], {}) if called else {}
        return sum(_vector(computations, inner, one) for one in inner.values())
    if each.op in _NOT_VECTOR:
        return 0
    if each.op in ("reduce", "reduce-window", "scatter") and each.operands and each.operands[0] in around:
        return _elements(around[each.operands[0]].shape)
    return _elements(each.shape)


def _elements(shape: str) -> int:
    return sum(math.prod(int(d) for d in dims.split(",") if d) for _, _, dims, _ in _ARRAY.findall(shape))


def _bytes(shape: str) -> int:
    """Bytes in HBM: what the compiler placed in the chip's own vector memory, memory space S(1), costs no traffic."""
    total = 0
    for kind, bits, dims, layout in _ARRAY.findall(shape):
        if "S(" not in layout:
            size = int(bits) if bits else 8 * (kind == "pred")
            total += math.prod(int(d) for d in dims.split(",") if d) * size // 8
    return total
