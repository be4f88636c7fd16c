"""What a compiled program does on one device, instruction by instruction, with loops multiplied out.

`compiled.cost_analysis()` counts the body of a loop once, and the selections of this project are loops (as is gradient
accumulation). So bytes, vector operations and matrix products are counted here from the text of the optimized program.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from sparse_gpt.costs import hlo
from sparse_gpt.costs.collectives import KINDS, collective_kind

_CYCLES = re.compile(r'"estimated_cycles":\s*"(\d+)"')
_LABELS = re.compile(r"\bdim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_FUSED = re.compile(  # the fusion's own results and operands, among those of the collective that it overlaps with
    r'"output_tuple_original_start":"(\d+)","output_tuple_original_end":"(\d+)",'
    r'"operand_original_start":"(\d+)","operand_original_end":"(\d+)"'
)
_OPERATIONS = re.compile(r'"cost_estimate":\s*\{\s*"flops":\s*"(\d+)"')  # of a Pallas kernel, as it states them
_CONTRACTED = re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}")

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_SLICES = {"slice", "dynamic-slice", "gather"}  # they read what they give, not all of their operand
_LAYOUT = {"copy", "broadcast", "iota", "reshape", "transpose", "concatenate", "pad"} | _SLICES
_MATMUL = {"convolution", "dot"}
_NOT_VECTOR = _FREE | _LAYOUT | _MATMUL | {"fusion", "custom-call", "call", "while", "conditional"}
_ENTERED = {  # by what they name the computations whose instructions count one by one; those of a fusion do together
    "while": ("body",),
    "conditional": ("branch",),
    "call": ("calls", "to_apply"),
    "async-start": ("calls", "to_apply"),
}


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
    kernel: bool = False  # a Pallas kernel, which the compiler has no estimate of


def count_work(text: str) -> list[Work]:
    """The work of every instruction of an optimized HLO module (`compiled.as_text()`), collectives left out.

    Raises:
        ValueError: the text holds no entry computation.
    """
    module, left_out = hlo.parse(text), _FREE | _ENTERED.keys()
    return [
        _count(module, visit)
        for visit in hlo.walk(module, lambda each: each.called(*_ENTERED[each.op]) if each.op in _ENTERED else ())
        if visit.instruction.op not in left_out and collective_kind(visit.instruction) not in KINDS
    ]


def _count(module: hlo.Module, visit: hlo.Visit) -> Work:
    each, around = visit.instruction, visit.around
    cycles = _CYCLES.search(each.rest)
    return Work(
        bytes=_traffic(around, each),
        vector=_sum_inside(_vector, module, around, each),
        matmul=_sum_inside(_matmul, module, around, each),
        cycles=int(cycles[1]) if cycles else 0,
        times=visit.times,
        scope=each.scope,
        conditional=visit.conditional,
        overlaps=each.started,
        kernel=_is_kernel(each),
    )


def _is_kernel(each: hlo.Instruction) -> bool:
    return each.op == "custom-call" and 'custom_call_target="tpu_custom_call"' in each.rest


def _sum_inside(
    count: Callable[[hlo.Computation, hlo.Instruction], int],
    module: hlo.Module,
    around: hlo.Computation,
    each: hlo.Instruction,
) -> int:
    """`count` of an instruction, or over all inside a fusion."""
    if each.op != "fusion":
        return count(around, each)
    inner = module.computations.get(next(iter(each.called("calls")), ""), {})
    return sum(_sum_inside(count, module, inner, one) for one in inner.values())


def _traffic(around: hlo.Computation, each: hlo.Instruction) -> int:
    """Bytes read and written. What only passes through, while a collective overlaps with a fusion, does not count."""
    results, operands = hlo.arrays(each.shape), each.operands
    if fused := _FUSED.search(each.rest):
        first, last, start, stop = (int(number) for number in fused.groups())
        results, operands = results[first:last], operands[start:stop]
    if each.op in _SLICES:
        return 2 * _bytes(hlo.arrays(each.shape))
    return _bytes(results) + sum(_bytes(hlo.arrays(around[name].shape)) for name in operands if name in around)


def _bytes(found: Iterable[hlo.Array]) -> int:
    """Bytes in HBM: what the compiler placed in the chip's own vector memory, memory space S(1), costs no traffic."""
    return sum(array.bytes for array in found if "S(" not in array.layout)


def _vector(around: hlo.Computation, each: hlo.Instruction) -> int:
    """Elementwise operations; of a kernel as many as it says."""
    if _is_kernel(each) and (stated := _OPERATIONS.search(each.rest)):
        return int(stated[1])
    if each.op in _NOT_VECTOR or each.op in KINDS or each.op.endswith(("-start", "-done")):
        return 0
    if each.op in ("reduce", "reduce-window", "scatter") and each.operands and each.operands[0] in around:
        each = around[each.operands[0]]
    return sum(array.elements for array in hlo.arrays(each.shape))


def _matmul(around: hlo.Computation, each: hlo.Instruction) -> int:
    """Multiplications and additions of a matrix product, as TPU programs (convolution) or others (dot) write it."""
    if each.op not in _MATMUL or not all(name in around for name in each.operands[:2]):
        return 0
    left, right, result = (hlo.arrays(one.shape)[0] for one in (*(around[name] for name in each.operands[:2]), each))
    if each.op == "dot":
        contracted = _CONTRACTED.search(each.rest)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2 * result.elements * math.prod(left.dims[axis] for axis in axes)
    labels = _LABELS.search(each.rest)
    if labels is None:
        return 0
    input_, kernel, output = (
        dict(zip(names, array.dims, strict=True))
        for names, array in zip(labels.groups(), (left, right, result), strict=True)
    )
    window = _WINDOW.search(each.rest)
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    products = output["b"] * output["f"] * kernel["i"]
    for axis in sorted(input_.keys() - {"b", "f"}):
        at = {name: value.split("x")[int(axis)] for name, value in fields.items()}
        products *= _window_products(input_[axis], output[axis], _window(at))
    return 2 * products


class _Window(NamedTuple):
    """The window along one axis: dilation of the input and of the kernel, padding before the input."""

    size: int
    stride: int
    lhs_dilate: int
    rhs_dilate: int
    pad: int


def _window(at: Mapping[str, str]) -> _Window:
    numbers = {name: int(at.get(name, "1")) for name in _Window._fields[:-1]}
    return _Window(**numbers, pad=int(at.get("pad", "0_0").split("_")[0]))


@functools.cache
def _window_products(length: int, positions: int, window: _Window) -> int:
    """Pairs of window position and kernel entry that meet an entry of the input. Batched products are written as
    windows over a dilated input, where most pairs meet nothing."""
    starts, entries = window.stride * np.arange(positions), window.rhs_dilate * np.arange(window.size)
    place = starts[:, None] + entries[None] - window.pad
    inside = (place >= 0) & (place <= (length - 1) * window.lhs_dilate) & (place % window.lhs_dilate == 0)
    return int(np.count_nonzero(inside))
