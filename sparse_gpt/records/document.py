"""Writes docs/formats, a page per file, from the records:

    python -m sparse_gpt.records.document

A field's meaning is the string below it in its class.
"""

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from sparse_gpt.records.base import OpenRecord, Part, Record
from sparse_gpt.records.bridge import Bridge, Steering, Transport
from sparse_gpt.records.card import Card
from sparse_gpt.records.circuit import Circuit
from sparse_gpt.records.corpus import CorpusManifest
from sparse_gpt.records.formation import Formation
from sparse_gpt.records.labels import Labels
from sparse_gpt.records.mistakes import Wanted, is_named_tuple, is_struct, limits, origin, stripped, union_members
from sparse_gpt.records.run import Evaluation, Manifest, MetricsRow
from sparse_gpt.records.search import Rankings, Search
from sparse_gpt.records.traces import Contexts, Traces

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "formats"
PAGES: Mapping[str, type[Record]] = {
    "manifest": Manifest,
    "metrics": MetricsRow,
    "evaluation": Evaluation,
    "circuit": Circuit,
    "card": Card,
    "search": Search,
    "rankings": Rankings,
    "traces": Traces,
    "contexts": Contexts,
    "labels": Labels,
    "formation": Formation,
    "bridge": Bridge,
    "steering": Steering,
    "transport": Transport,
    "corpus": CorpusManifest,
}
_ABOUT = (
    "What the JSON files of a workdir hold. In every file, numbers are finite; where a value was not measured or not "
    "finite, it is null. Readers ignore fields that they do not know. A format's number changes when older readers "
    "could no longer read it; fields that were added since say what is read where they are missing. `config.json` "
    "holds the groups of sparse_gpt/config/groups.py."
)
_NOTE = "This page is made from the records: `python -m sparse_gpt.records.document`."
_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", type(None): "null"}


class Described(NamedTuple):
    """A type in a table: in words, and its unit."""

    text: str
    unit: str = ""


def write(folder: Path = FOLDER) -> None:
    """Writes every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name -> text of every page, that of the index included."""
    rows = [
        f"| [`{record.FILE}`]({name}.md) | {_format(record)} | {_summary(record)} |" for name, record in PAGES.items()
    ]
    index = [
        "# File formats",
        "",
        _ABOUT,
        "",
        "| file | format | what it holds |",
        "|---|---|---|",
        *rows,
        "",
        _NOTE,
        "",
    ]
    return {"README.md": "\n".join(index)} | {f"{name}.md": page(record) for name, record in PAGES.items()}


def page(record: type[Record]) -> str:
    """The page of one file."""
    lines = [f"# {record.FILE}", "", f"Format: {_format(record)}.", "", *_lines(record), "", *_table(record)]
    for part in parts(record):
        lines += ["", f"## {part.__name__}", "", *_lines(part), "", *_table(part)]
    return "\n".join([*lines, "", _NOTE, ""])


def parts(record: type[Part]) -> list[type[Part]]:
    """Every object inside of a record, in the order in which they are named."""
    found: list[type[Part]] = []

    def look(wanted: Wanted) -> None:
        if is_struct(wanted) and wanted not in found:
            found.append(wanted)
            for field in msgspec.structs.fields(wanted):
                look(field.type)
        elif not is_named_tuple(wanted):
            for inner in get_args(wanted):
                look(inner)

    look(record)
    return found[1:]


def describe(wanted: Wanted) -> Described:
    """A type in the words of a table."""
    inner, meta = stripped(wanted)
    extra = meta.extra or {}
    if members := union_members(inner):
        known = [describe(member) for member in members]
        text = " or ".join(each.text for each in known)
        return Described(text.replace("whole number or number", "number"), next((k.unit for k in known if k.unit), ""))
    if "expected" in extra:
        return Described(str(extra["expected"]))
    if is_named_tuple(inner):
        return Described(f"[{', '.join(inner._fields)}]")
    if is_struct(inner):
        return Described(f"[{inner.__name__}](#{inner.__name__.lower()})")
    arguments = [describe(argument) for argument in get_args(inner) if argument is not Ellipsis]
    unit = str(extra.get("unit") or next((argument.unit for argument in arguments if argument.unit), ""))
    if origin(inner) is dict:
        return Described(f"object of {_grouped(arguments[1])}", unit)
    if origin(inner) is list or (origin(inner) is tuple and Ellipsis in get_args(inner)):
        return Described(f"list of {_grouped(arguments[0])}", unit)
    if origin(inner) is tuple:
        return Described(f"[{', '.join(argument.text for argument in arguments)}]", unit)
    return Described(
        _WORDS.get(inner, "anything") + (" ≥ 0" if meta.ge == 0 and meta.le is None else limits(meta)), unit
    )


def _grouped(described: Described) -> str:
    """Within a list: in brackets where it is more than one type."""
    return f"({described.text})" if " or " in described.text else described.text


def meanings(part: type[Part]) -> dict[str, str]:
    """Field -> the string below it, of a class and those that it extends."""
    found: dict[str, str] = {}
    for kind in reversed(part.__mro__):
        if issubclass(kind, Part):
            found |= dict(_strings(kind))
    return found


@functools.cache
def _strings(part: type[Part]) -> tuple[tuple[str, str], ...]:
    """(field, the string below it) of one class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
    assert isinstance(tree, ast.ClassDef)
    pairs = zip(tree.body, tree.body[1:], strict=False)
    return tuple(
        (field.target.id, " ".join(str(text.value.value).split()))
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    )


def _table(part: type[Part]) -> list[str]:
    return ["| field | type | unit | in the file | meaning |", "|---|---|---|---|---|", *_rows(part)]


def _rows(part: type[Part]) -> Iterator[str]:
    known = meanings(part)
    for field in msgspec.structs.fields(part):
        if not (issubclass(part, OpenRecord) and field.name == "other"):
            described, presence = describe(field.type), _presence(field)
            text = described.text.removesuffix(" or null") if presence == "optional" else described.text
            yield f"| `{field.encode_name}` | {text} | {described.unit} | {presence} | {known[field.name]} |"
    if issubclass(part, OpenRecord):
        yield f"| any other | anything | | optional | {known['other']} |"


def _presence(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "always"
    factory = field.default_factory
    if callable(factory) and factory not in (dict, list):
        value = msgspec.json.encode(factory()).decode()
        return f"always; if missing, `{value}`" if len(value) < 20 else "always; may be missing"
    return "optional"


def _lines(part: type[Part]) -> list[str]:
    """A class's docstring."""
    return inspect.cleandoc(part.__doc__ or "").splitlines()


def _summary(part: type[Part]) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join(itertools.takewhile(bool, _lines(part)))


def _format(record: type[Record]) -> str:
    return f"`{record.FORMAT}`" if record.FORMAT else "none is named"


if __name__ == "__main__":
    write()
