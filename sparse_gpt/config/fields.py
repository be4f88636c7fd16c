"""What a field of a configuration may hold, declared once, beside the field: its kind, its range and what it is for.

`whole`, `real`, `flag`, `text`, `choice`, `texts`, `numbers` and `names` make dataclass fields that carry a `Rule`.
Flags, files and help texts all ask that rule; nothing else says what the range of a field is.
"""

import dataclasses
import math
import re
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sparse_gpt.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RULE = "rule"  # the entry of a field's metadata
SMALLEST = 2.0**-126  # normal float32: what is nearer to 0 is lost on the way to a device
LONGEST = 1 << 16  # characters of a text
Default = Any  # what dataclasses.field gives, of the type that the field is annotated with
QUOTED = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*')"""  # a quote of its kind in it is doubled
_ITEM = re.compile(rf"(?:[=#]{QUOTED}|[^,])+")
SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Rule:
    """Kind and range of one field. `help` is one line for a person, without the range."""

    help: str

    @property
    def range(self) -> str:
        """What may be given, for help texts."""
        raise NotImplementedError

    def read(self, value: object) -> object:
        """`value` in the type of the field. Raises ValueError, whose text is what the field takes instead."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Whole(Rule):
    """An int. Floats that are whole numbers will do, since JSON writers differ in how they write 1e6."""

    at_least: int
    at_most: int

    @property
    def range(self) -> str:
        return f"whole number, {self.at_least} to {self.at_most}"

    def read(self, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("expected int, a whole number")
        if not self.at_least <= value <= self.at_most:
            raise ValueError(f"must be at least {self.at_least} and at most {self.at_most}")
        return value


@dataclasses.dataclass(frozen=True)
class Real(Rule):
    """A float that is finite and not denormal, also as a float32; `above` and `below` are exclusive."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def interval(self) -> str:
        """Such as "(0, 1]"."""
        low = f"({self.above:g}" if self.above is not None else f"[{self.at_least:g}"
        high = f"{self.below:g})" if self.below is not None else f"{self.at_most:g}]"
        return f"{low}, {high}"

    @property
    def range(self) -> str:
        return f"number in {self.interval}"

    def read(self, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("expected float, a number")
        try:
            value = float(value) + 0.0  # -0.0 becomes 0.0
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number, {self._bounds}")
        if not self._holds(value):
            raise ValueError(f"must be {self._bounds}")
        if value and abs(value) < SMALLEST:
            raise ValueError(f"is too near to 0 for float32 (below {SMALLEST:.3g}); must be {self._bounds}")
        return value

    @property
    def _bounds(self) -> str:
        if self.above is None and self.below is None:
            return f"at least {self.at_least:g} and at most {self.at_most:g}"
        return f"in {self.interval}"

    def _holds(self, value: float) -> bool:
        as_float32 = _float32(value)  # devices see this: 1 - 1e-9 is 1 there
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or max(value, as_float32) < self.below)
        )


@dataclasses.dataclass(frozen=True)
class Flag(Rule):
    """A bool."""

    @property
    def range(self) -> str:
        return "true or false"

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError("expected bool, true or false")
        return value


@dataclasses.dataclass(frozen=True)
class Text(Rule):
    """A str that can be printed, written to a file and read again."""

    @property
    def range(self) -> str:
        return "text"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("expected str, a text")
        if len(value) > LONGEST:
            raise ValueError(f"has {len(value)} characters, at most {LONGEST} can be taken")
        if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in value):
            raise ValueError("holds a control character or half of a surrogate pair; leave it out")
        return value


@dataclasses.dataclass(frozen=True)
class Choice(Text):
    """One of a few words."""

    allowed: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        return " or ".join(self.allowed)

    def read(self, value: object) -> str:
        if super().read(value) not in self.allowed:
            raise ValueError(f"choose one of {', '.join(self.allowed)}")
        return str(value)


@dataclasses.dataclass(frozen=True)
class Texts(Rule):
    """A tuple of texts, from a list of them or, as flags and older files have it, from one text with commas."""

    example: str

    @property
    def range(self) -> str:
        return f"list such as {self.example}"

    def read(self, value: object) -> tuple[str, ...]:
        one = Text(self.help)
        if isinstance(value, str):
            return parts(one.read(value))
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a {self.range}")
        return tuple(one.read(part) for part in value)


@dataclasses.dataclass(frozen=True)
class Items(Texts):
    """A tuple of texts in which commas may stand in quotes; one text with commas is parted where they do not."""

    def read(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            return items(Text(self.help).read(value))
        found = super().read(value)
        if found != items(",".join(found)):  # which is how flags and messages have it
            raise ValueError("an item is empty, or has a comma that is not in quotes")
        return found


@dataclasses.dataclass(frozen=True)
class Names(Texts):
    """A tuple of words, each one of a few; perhaps empty."""

    allowed: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        return f"list of {', '.join(self.allowed)}"

    def read(self, value: object) -> tuple[str, ...]:
        found = super().read(value)
        unknown = [name for name in found if name not in self.allowed]
        if unknown:
            raise ValueError(f"{shown(unknown[0])} is unknown; choose from {', '.join(self.allowed)}")
        return found


@dataclasses.dataclass(frozen=True)
class Numbers(Texts):
    """A tuple of at least one number within [at_least, at_most]."""

    at_least: float = 0.0
    at_most: float = 1.0

    @property
    def range(self) -> str:
        return f"list of numbers in [{self.at_least:g}, {self.at_most:g}]"

    def read(self, value: object) -> tuple[float, ...]:  # type: ignore[override]
        given = super().read(value) if isinstance(value, str) else value if isinstance(value, Iterable) else ()
        one = Real(self.help, at_least=self.at_least, at_most=self.at_most)
        try:
            found = tuple(one.read(float(part) if isinstance(part, str) else part) for part in given)
        except (TypeError, ValueError):
            found = ()
        if not found:
            raise ValueError(f"expected a {self.range}, such as {self.example}")
        return found


def whole(default: int, at_least: int, at_most: int, help: str) -> Default:
    """A field that holds an int."""
    return _field(default, Whole(help, at_least, at_most))


def real(default: float, help: str, **bounds: float) -> Default:
    """A field that holds a float; bounds are those of `Real`, one at either end."""
    return _field(default, Real(help, **bounds))


def flag(default: bool, help: str) -> Default:
    """A field that holds a bool."""
    return _field(default, Flag(help))


def text(default: str, help: str) -> Default:
    """A field that holds a str."""
    return _field(default, Text(help))


def choice(default: str, allowed: tuple[str, ...], help: str) -> Default:
    """A field that holds one of a few words."""
    return _field(default, Choice(help, allowed))


def texts(default: tuple[str, ...], example: str, help: str) -> Default:
    """A field that holds a tuple of str."""
    return _field(default, Texts(help, example))


def quoted(default: tuple[str, ...], help: str) -> Default:
    """A field that holds a tuple of str in which commas stand in quotes."""
    return _field(default, Items(help, ",".join(default)))


def names(default: tuple[str, ...], allowed: tuple[str, ...], help: str) -> Default:
    """A field that holds a tuple of words."""
    return _field(default, Names(help, ",".join(allowed[:2]), allowed))


def numbers(default: tuple[float, ...], at_least: float, at_most: float, help: str) -> Default:
    """A field that holds a tuple of float."""
    return _field(default, Numbers(help, "1e-4,3e-4", at_least, at_most))


def rules(group: "DataclassInstance | type[DataclassInstance]") -> dict[str, Rule]:
    """Field -> rule of a group (the dataclass or an instance)."""
    return {field.name: field.metadata[RULE] for field in dataclasses.fields(group)}


def read(rule: Rule, name: str, value: object) -> object:
    """`value` in the type of the field. Raises InputError, which names the field as `name` and what it takes."""
    try:
        return rule.read(value)
    except ValueError as error:
        plain = isinstance(rule, Text | Texts) and isinstance(value, str) and value.isprintable()
        raise InputError(f"{name}={shown(value, plain)}: {error}") from None


def items(value: str) -> tuple[str, ...]:
    """The entries of a comma list in which what follows = or # may be quoted.

    >>> items('idioms:3, text="a, b.txt":1')
    ('idioms:3', 'text="a, b.txt":1')
    """
    return tuple(part.strip() for part in _ITEM.findall(value) if part.strip())


def parts(value: str) -> tuple[str, ...]:
    """The entries of a comma list."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def as_flag(value: object) -> object:
    """A field's value as a flag takes it: a list is one text with commas, all else stays as it is.

    >>> as_flag((1e-4, 3e-4))
    '0.0001,0.0003'
    """
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def shown(value: object, plain: bool = False) -> str:
    """A value as a message shows it: ASCII on one line, shortened; a `plain` text without quotes."""
    if isinstance(value, tuple):
        value = str(as_flag(value))
        plain = value.isprintable()
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to print the longest ones
    if isinstance(value, str):
        whole_text, value = value, value[: SHOWN + 1]
        written = value if plain else ascii(value)
        return written if len(whole_text) <= SHOWN else f"{written[:SHOWN]}… ({len(whole_text)} characters)"
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__} of {len(value)} entries"
    written = ascii(value)
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}…"


def _field(default: object, rule: Rule) -> Default:
    return dataclasses.field(default=default, metadata={RULE: rule})


def _float32(value: float) -> float:
    """The float32 next to `value`; infinite beyond its range."""
    try:
        nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return nearest
