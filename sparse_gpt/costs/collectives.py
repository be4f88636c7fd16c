"""The collectives of a compiled program: which, how many bytes, how often.

Of the branches of a conditional all count (an upper bound). TPU programs need three rules more. A collective that is
spread over the operations it overlaps with is written many times, under one chain_id. A reduce-scatter is a fusion of
an all-reduce and a slice. And what goes to other slices is handed to the host ("send"). With several slices collectives
lose their names; they take that of what they reduce, or of the loop around them.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable

from sparse_gpt.costs import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BETWEEN_SLICES = "all-reduce between slices"

_TO_SLICES = '_xla_megascale_transfer_type="ALL_REDUCE"'
_CHAIN = re.compile(r'chain_id="(\d+)"')


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


def find_collectives(text: str) -> list[Collective]:
    """Every collective of an optimized HLO module (`compiled.as_text()`), loops multiplied out.

    Raises:
        ValueError: the text holds no entry computation.
    """
    module, chains, found = hlo.parse(text), set[str](), []
    for visit in hlo.walk(module, lambda each: () if collective_kind(each) else each.called()):
        each, kind = visit.instruction, collective_kind(visit.instruction)
        chain = _CHAIN.search(each.rest) if kind in KINDS else None
        if not kind or (chain and chain[1] in chains):
            continue
        chains |= {chain[1]} if chain else set()
        overlaps = kind == BETWEEN_SLICES or each.started or chain is not None
        scope = each.scope or _operand_scope(each, visit.around) or visit.scope
        found.append(Collective(kind, _size(module, each, kind), visit.times, scope, overlaps, visit.conditional))
    return found


def collective_kind(instruction: hlo.Instruction) -> str:
    """What kind of a collective an instruction is; "" for none."""
    if _fused_reduce_scatter(instruction):
        return "reduce-scatter"
    if instruction.op == "send" and _TO_SLICES in instruction.rest:
        return BETWEEN_SLICES
    return instruction.kind if instruction.kind in KINDS else ""


def total_by_kind(found: Iterable[Collective]) -> dict[str, dict[str, int]]:
    """kind -> {"count", "bytes"}: how often each kind runs per step, and the bytes of all its results."""
    sums: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for each in found:
        sums[each.kind]["count"] += each.times
        sums[each.kind]["bytes"] += each.times * each.bytes
    return dict(sums)


def _fused_reduce_scatter(instruction: hlo.Instruction) -> str:
    """The computation of a reduce-scatter, as TPU programs write one; "" for any other instruction."""
    return next((name for name in instruction.called("calls") if name.startswith("all-reduce-scatter")), "")


def _operand_scope(instruction: hlo.Instruction, around: hlo.Computation) -> str:
    """The scope of what goes in first."""
    first = around.get(instruction.operands[0]) if instruction.operands else None
    return first.scope if first else ""


def _size(module: hlo.Module, instruction: hlo.Instruction, kind: str) -> int:
    """Bytes of a collective's result; a started one's tuple holds operands, results and perhaps context words."""
    if fused := _fused_reduce_scatter(instruction):
        inside = module.computations[fused].values()
        instruction = next(each for each in inside if each.op == "all-reduce")
        return sum(array.bytes for array in hlo.arrays(instruction.shape))
    sizes = [array.bytes for array in hlo.arrays(instruction.shape)]
    if kind == BETWEEN_SLICES:
        return sizes[0]
    times = _group_size(instruction) if kind == "reduce-scatter" else 1
    if instruction.started and instruction.shape.startswith("((") and len(sizes) > 1:
        return times * sum(sizes[len(sizes) // 2 :])
    if instruction.started and instruction.shape.startswith("(") and len(sizes) in (2, 4):
        return times * sizes[1]
    return times * sum(sizes)


def _group_size(instruction: hlo.Instruction) -> int:
    """Over how many devices a collective goes; 1 when its line does not tell."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", instruction.rest):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", instruction.rest):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{((?:'[^']*',?\s*)+)\}", instruction.rest):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']*)'", named[2]))
    return 1
