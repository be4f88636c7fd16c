"""What a compiled program does on one device, instruction by instruction, with loops multiplied out.

`compiled.cost_analysis()` counts the body of a loop once, and the selections of this project are loops (as is gradient
accumulation). So bytes, vector operations and matrix products are counted here from the text of the optimised program.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sparse_gpt.costs import hlo

_INSTRUCTION = re.compile(r"^\s*(?:ROOT\s+)?%?([\w.$-]+)\s*=\s*(\(.*?\)|\S+)\s+([a-z][\w-]*)\((.*)$")
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.$-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](\{[^}]*\})?")
_CYCLES = re.compile(r'"estimated_cycles":\s*"(\d+)"')
_SCOPE = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(r"\b(?:calls|to_apply)=%?([\w.$-]+)")
_BODY = re.compile(r"\bbody=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.$-]+))")
_LABELS = re.compile(r"\bdim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_OWN = re.compile(  # the fusion's own results and operands, among those of the collective that it overlaps with
    r'"output_tuple_original_start":"(\d+)","output_tuple_original_end":"(\d+)",'
    r'"operand_original_start":"(\d+)","operand_original_end":"(\d+)"'
)
_CONTRACTED = re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}")

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
_MATMUL = {"convolution", "dot"}
_NOT_VECTOR = _FREE | _LAYOUT | _MATMUL | {"fusion", "custom-call", "call", "while", "conditional"}


@dataclasses.dataclass(frozen=True)
class Work:
    """One instruction on one device: HBM bytes, elementwise operations, operations of matrix products, the compiler's
    estimate in cycles (0: none), all for one run; it runs `times` times, if at all when `conditional`. One that
    `overlaps` is a copy under way while other instructions run."""

    bytes: int
    vector: int
    matmul: int
    cycles: int
    times: int
    scope: str
    conditional: bool
    overlaps: bool


@dataclasses.dataclass(frozen=True)
class _Instruction:
    shape: str
    op: str
    operands: list[str]
    line: str


_Computation = Mapping[str, _Instruction]


def work(text: str) -> list[Work]:
    """Every instruction of an optimised HLO module (`compiled.as_text()`), collectives left out (see training/hlo).

    Raises:
      ValueError: the text holds no entry computation.
    """
    computations, entry = _parse(text)
    return list(_walk(computations, entry, 1, False))


def _parse(text: str) -> tuple[Mapping[str, _Computation], str]:
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


def _walk(computations: Mapping[str, _Computation], name: str, times: int, conditional: bool) -> Iterator[Work]:
    around = computations.get(name, {})
    for each in around.values():
        kind = each.op.removesuffix("-start")
        if each.op in _FREE or each.op.endswith(("-done", "-update")):
            continue
        if kind in hlo.KINDS or hlo.REDUCE_SCATTER.search(each.line):
            continue
        if each.op == "while":
            trips = hlo.trip_count(each.line, lambda name: (one.line for one in computations.get(name, {}).values()))
            if body := _BODY.search(each.line):
                yield from _walk(computations, body[1], times * trips, conditional)
        elif each.op == "conditional":
            for several, one in _BRANCHES.findall(each.line):
                for branch in (several or one).split(","):
                    yield from _walk(computations, branch.strip().lstrip("%"), times, True)
        elif each.op in ("call", "async-start") and (called := _CALLED.search(each.line)):
            yield from _walk(computations, called[1], times, conditional)
        else:
            yield _one(computations, around, each, times, conditional)


def _one(
    computations: Mapping[str, _Computation], around: _Computation, each: _Instruction, times: int, conditional: bool
) -> Work:
    scope, cycles = _SCOPE.search(each.line), _CYCLES.search(each.line)
    return Work(
        bytes=_traffic(around, each),
        vector=_sum_inside(_vector, computations, around, each),
        matmul=_sum_inside(_matmul, computations, around, each),
        cycles=int(cycles[1]) if cycles else 0,
        times=times,
        scope=scope[1] if scope else "",
        conditional=conditional,
        overlaps=each.op.endswith("-start"),
    )


def _sum_inside(
    count: Callable[[_Computation, _Instruction], int],
    computations: Mapping[str, _Computation],
    around: _Computation,
    each: _Instruction,
) -> int:
    """`count` of an instruction, or over all inside a fusion."""
    if each.op != "fusion":
        return count(around, each)
    called = _CALLED.search(each.line)
    inner = computations.get(called[1], {}) if called else {}
    return sum(_sum_inside(count, computations, inner, one) for one in inner.values())


def _traffic(around: _Computation, each: _Instruction) -> int:
    """Bytes read and written. What only passes through, while a collective overlaps with a fusion, does not count."""
    results, operands = [each.shape], each.operands
    if own := _OWN.search(each.line):
        first, last, start, stop = (int(number) for number in own.groups())
        results, operands = _arrays(each.shape)[first:last], operands[start:stop]
    if each.op in ("dynamic-slice", "slice", "gather"):  # reads what it gives, not all of its operand
        return 2 * _bytes(each.shape)
    return sum(map(_bytes, results)) + sum(_bytes(around[name].shape) for name in operands if name in around)


def _vector(around: _Computation, each: _Instruction) -> int:
    """Elementwise operations."""
    if each.op in _NOT_VECTOR or each.op in hlo.KINDS or each.op.endswith(("-start", "-done")):
        return 0
    if each.op in ("reduce", "reduce-window", "scatter") and each.operands and each.operands[0] in around:
        return _elements(around[each.operands[0]].shape)
    return _elements(each.shape)


def _matmul(around: _Computation, each: _Instruction) -> int:
    """Multiplications and additions of a matrix product, as TPU programs (convolution) or others (dot) write it."""
    if each.op not in _MATMUL or not all(name in around for name in each.operands[:2]):
        return 0
    left, right = (_dims(around[name].shape) for name in each.operands[:2])
    if each.op == "dot":
        contracted = _CONTRACTED.search(each.line)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2 * _elements(each.shape) * math.prod(left[axis] for axis in axes)
    labels = _LABELS.search(each.line)
    if labels is None:
        return 0
    input_, kernel, output = (
        dict(zip(names, dims, strict=True))
        for names, dims in zip(labels.groups(), (left, right, _dims(each.shape)), strict=True)
    )
    window = _WINDOW.search(each.line)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    products = output["b"] * output["f"] * kernel["i"]
    for axis in sorted(input_.keys() - {"b", "f"}):
        at = {name: value.split("x")[int(axis)] for name, value in fields.items()}
        products *= _window_products(input_[axis], output[axis], **_window(at))
    return 2 * products


def _window(at: Mapping[str, str]) -> dict[str, int]:
    """The window along one axis: size, stride, padding before it, dilation of the input and of the kernel."""
    numbers = {name: int(at.get(name, "1")) for name in ("size", "stride", "lhs_dilate", "rhs_dilate")}
    return numbers | {"pad": int(at.get("pad", "0_0").split("_")[0])}


@functools.cache
def _window_products(
    length: int, positions: int, size: int, stride: int, lhs_dilate: int, rhs_dilate: int, pad: int
) -> int:
    """Pairs of window position and kernel entry that meet an entry of the input. Batched products are written as
    windows over a dilated input, where most pairs meet nothing."""
    place = stride * np.arange(positions)[:, None] + rhs_dilate * np.arange(size)[None] - pad
    inside = (place >= 0) & (place <= (length - 1) * lhs_dilate) & (place % lhs_dilate == 0)
    return int(np.count_nonzero(inside))


def _dims(shape: str) -> tuple[int, ...]:
    """Of the first array of a shape."""
    found = _ARRAY.search(shape)
    return tuple(int(d) for d in found[3].split(",") if d) if found else ()


def _arrays(shape: str) -> list[str]:
    return [found[0] for found in _ARRAY.finditer(shape)]


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
