"""The text of a compiled program (`compiled.as_text()`, an optimized HLO module) as instructions that can be walked.

XLA's own cost analysis counts the body of a loop once; `walk` says of every instruction how often it runs. TPU programs
carry no trip counts: a loop's count is then the constant that its condition compares its counter with.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.$-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT\s+)?%?([\w.$-]+)\s*=\s*(\(.*?\)|\S+)\s+([a-z][\w-]*)\((.*)$")
_NAMES = re.compile(r"%([\w.$-]+)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_ATTRIBUTES = {"true_computation": "branch", "false_computation": "branch"}
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_SCOPE = re.compile(r'op_name="([^"]*)"')


class Array(NamedTuple):
    """One array of a shape."""

    bits: int  # per element; tokens have none
    dims: tuple[int, ...]
    layout: str

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return self.elements * self.bits // 8


@functools.lru_cache(maxsize=4096)
def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape, which may be a tuple: "(f32[2,3]{1,0}, s32[])"."""
    return tuple(
        Array(int(bits) if bits else 8 * (kind == "pred"), tuple(int(d) for d in dims.split(",") if d), layout)
        for kind, bits, dims, layout in _ARRAY.findall(shape)
    )


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: `%name = shape op(%operand, ...), attributes`. `rest` is what follows `op(`."""

    name: str
    shape: str
    op: str
    rest: str

    @functools.cached_property
    def arguments(self) -> str:
        """Text between the parentheses after the operation."""
        depth = 1
        for index, letter in enumerate(self.rest):
            depth += (letter == "(") - (letter == ")")
            if not depth:
                return self.rest[:index]
        return self.rest

    @functools.cached_property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return _NAMES.findall(self.arguments)

    @functools.cached_property
    def scope(self) -> str:
        """Path of the operation in the traced program, named scopes included; "" when it has none."""
        found = _SCOPE.search(self.rest)
        return found[1] if found else ""

    @property
    def kind(self) -> str:
        """The operation, also of one that is only started here."""
        return self.op.removesuffix("-start")

    @property
    def started(self) -> bool:
        """Whether other instructions run before it is done."""
        return self.op.endswith("-start")

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations that it calls: all of them, or those of some attributes (branches: "branch")."""
        named = [(_ATTRIBUTES.get(match[1], match[1]), match[2]) for match in _CALLED.finditer(self.rest)]
        for match in _BRANCHES.finditer(self.rest):
            named += [("branch", name.strip().lstrip("%")) for name in match[1].split(",")]
        return [name for attribute, name in named if not attributes or attribute in attributes]


Computation = Mapping[str, Instruction]


class Module(NamedTuple):
    """A program: its computations by name, and the name of the one that is run."""

    computations: Mapping[str, Computation]
    entry: str

    def trip_count(self, loop: Instruction) -> int:
        """How often a `while` runs: what the compiler noted, or else the constant that the loop's counter, from 0, must
        stay below; 1 when neither is there."""
        if noted := _TRIPS.search(loop.rest):
            return int(noted[1])
        condition = self.computations.get("".join(loop.called("condition")), {})
        compared = [each for each in condition.values() if each.op == "compare" and "direction=LT" in each.rest]
        limits = [condition[each.operands[-1]] for each in compared if each.operands[-1] in condition]
        counts = [int(each.arguments) for each in limits if each.op == "constant" and each.arguments.isdecimal()]
        return counts[0] if len(counts) == 1 else 1


def parse(text: str) -> Module:
    """The program in an optimized HLO module.

    Raises:
        ValueError: the text holds no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = None if line[:1].isspace() else _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current[match[1]] = Instruction(*match.groups())
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return Module(computations, entry)


class Visit(NamedTuple):
    """An instruction where it is run."""

    instruction: Instruction
    around: Computation  # that it is in
    times: int  # how often it runs
    scope: str  # of the instruction that called the computation
    conditional: bool  # whether it is in a branch that may not be taken


def walk(module: Module, enter: Callable[[Instruction], Iterable[str]]) -> Iterator[Visit]:
    """Every instruction that runs, loops multiplied out; of asynchronous pairs the one that starts, and all branches of
    a conditional.

    Args:
        module: the program.
        enter: the computations of an instruction to go on in; none: the instruction counts as a whole.
    """

    def visit(name: str, times: int, scope: str, conditional: bool) -> Iterator[Visit]:
        around = module.computations.get(name, {})
        for each in around.values():
            if each.op.endswith(("-done", "-update")):
                continue
            yield Visit(each, around, times, scope, conditional)
            trips = module.trip_count(each) if each.op == "while" else 1
            for called in enter(each):
                yield from visit(called, times * trips, each.scope or scope, conditional or each.op == "conditional")

    return visit(module.entry, 1, "", False)
