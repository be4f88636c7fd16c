"""Records: one class per JSON file, which writes it, reads it, checks it and documents it.

They are msgspec structs. msgspec was chosen for its load time, since every launch script imports this before it checks
its flags: msgspec and all records add about ten milliseconds to the eighty of sparse_gpt.config. It also converts and
checks a file in C, in less time than the parsing takes. Parsing stays with io.py, which limits sizes, depths and
numbers.

Three kinds of fields:
  * without a default: always in the file;
  * ``= older(value)``: always written; files of older versions may lack it, which then means `value`;
  * ``= None``, ``= ()``: left out of the file where there is nothing to say.
Fields that a version does not know are ignored, and kept by records that have a field `other`.
"""

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta

from sparse_gpt import io
from sparse_gpt.config import NODE_SITES
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.records.mistakes import Wanted, mistake, shown

T = TypeVar("T")
MOST = 10**6  # layers and channels

Index = Annotated[int, Meta(ge=0, le=MOST)]
Count = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Nats = Annotated[float, Meta(extra={"unit": "nats"})]
CHANCE = math.log(2)  # task loss, in nats, of a guess between answer and foil
Seconds = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
Tokens = Annotated[int, Meta(ge=0, extra={"unit": "tokens"})]
Number = int | float
Plain = str | bool | int | float | None
Site = Annotated[
    str, Meta(pattern=f"^({'|'.join(NODE_SITES)})$", extra={"expected": "one of " + ", ".join(NODE_SITES)})
]


def older(value: object, name: str | None = None) -> Any:
    """Default of a field of any type that files of older versions may lack, and that is always written; `name` in the
    file."""
    return msgspec.field(default_factory=lambda: value, name=name)


def finite(value: float) -> float | None:
    """A number as files hold it: None for one that is not finite, since JSON has no such numbers."""
    return value if math.isfinite(value) else None


class _Kind(msgspec.StructMeta):
    """Structs that are frozen, made by keywords, and leave out what is at its default."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, object], frozen: bool = True) -> type:
        return super().__new__(mcls, name, bases, namespace, frozen=frozen, kw_only=True, omit_defaults=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Part(msgspec.Struct, metaclass=_Kind, frozen=True):
    """An object inside of a file."""

    def tree(self) -> Tree:
        """The plain object, as it stands in the file."""
        found: Tree = msgspec.to_builtins(self)
        return found


class Record(Part):
    """The object that a JSON file holds.

    `FORMAT` is the name and version that the file gives under "format", "" for files without; `REMEDY` what a message
    about a broken one advises.
    """

    FILE: ClassVar[str] = ""  # its place in a workdir
    FORMAT: ClassVar[str] = ""
    FORMAT_REQUIRED: ClassVar[bool] = True
    REMEDY: ClassVar[str] = "restore it, or delete it and make it again"

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file.

        Raises:
          InputError: one line that names the file and, where it is JSON, the place and what was expected there.
        """
        return cls.parse(io.read_bytes(path), str(path))

    @classmethod
    def read_if_any(cls, path: Path) -> Self | None:
        """As `read`, but None if there is nothing of that name."""
        return cls.read(path) if os.path.lexists(path) else None

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> Self:
        """As `read`, from the content of a file that messages call `where`. NaN and infinities, which older versions
        wrote, are null."""
        return cls.from_tree(io.parse_json(data, where, nan_as_null=True), where)

    @classmethod
    def from_tree(cls, tree: Tree, where: str = "") -> Self:
        """The record of a plain object. InputError, which begins with `where`, if it is not as its format says."""
        try:
            if cls.FORMAT and (cls.FORMAT_REQUIRED or "format" in tree) and tree.get("format") != cls.FORMAT:
                raise InputError(f"format is {shown(tree.get('format'))}, but this version reads {cls.FORMAT!r}")
            return cls._converted(tree)
        except InputError as error:
            raise InputError(f"{where}: {error}; {cls.REMEDY}" if where else str(error)) from error

    @classmethod
    def of(cls, value: "Self | Tree") -> Self:
        """A record as it is, or that of a plain object, whatever kinds of numbers and sequences are in it."""
        if isinstance(value, cls):
            return value
        return cls.from_tree(io.parse_json(json.dumps(value, default=str), cls.__name__, nan_as_null=True))

    @classmethod
    def _converted(cls, tree: Tree) -> Self:
        return converted(tree, cls)

    def tree(self) -> Tree:
        """The plain object, as it stands in the file."""
        return {**({"format": self.FORMAT} if self.FORMAT else {}), **msgspec.to_builtins(self)}

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all. InputError as `io.write_json`.

        What is written can be read: msgspec.ValidationError, which is a defect, if a field is not as it says.
        """
        tree = self.tree()
        msgspec.convert(tree, type(self))
        io.write_json(path, tree)


class OpenRecord(Record):
    """A record of a file that other programs may add to: what is not known here is kept in `other`."""

    other: Tree = msgspec.field(default_factory=dict)
    """Further fields, which stand beside those above; kept as they are."""

    @classmethod
    def _converted(cls, tree: Tree) -> Self:
        known = {"format", *cls.__struct_encode_fields__} - {"other"}
        other = {name: value for name, value in tree.items() if name not in known}
        return converted({**{name: tree[name] for name in tree if name in known}, "other": other}, cls)

    def tree(self) -> Tree:
        tree = super().tree()
        tree.pop("other", None)
        return tree | self.other


def converted(tree: object, wanted: type[T]) -> T:
    """A plain value as `wanted`. InputError names the place that does not fit, and what was expected there."""
    try:
        return msgspec.convert(tree, wanted)
    except msgspec.ValidationError as error:
        raise InputError(str(error.__cause__ or mistake(tree, wanted) or error)) from error


def read_checked(path: Path, wanted: Wanted) -> io.Json:
    """The plain object of a JSON file of our own or another program's making, once it is known to be as `wanted`: for
    files that are no workdir's and have no record. InputError as of `Record.read`."""
    tree = io.read_json(path)
    try:
        converted(tree, wanted)
    except InputError as error:
        raise InputError(f"{path}: {error}; {Record.REMEDY}") from error
    return tree
