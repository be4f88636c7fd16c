"""Where a value is not as its type says, and what was expected there: one line for a person.

msgspec says whether a value fits a type; of one that does not, its message leaves out the value and the keys of
objects. So the type is gone through once more, part by part, until the part that does not fit is found.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta

Wanted = Any  # a type as written in an annotation: a class, a union, a generic alias, Annotated

_NAMES = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


class Inner(NamedTuple):
    """A part of a value: where it is, what it is, and the type it should have."""

    place: str
    value: object
    wanted: Wanted


def mistake(value: object, wanted: Wanted, place: str = "") -> str:
    """What is wrong with a value that is not as `wanted`, such as "nodes[3].channel is -1, expected a whole number from
    0 to 1000000"; "" where no part is to blame."""
    where, wanted = place or "the file", _of_kind(value, wanted)
    if not _is_kind(value, wanted):
        return f"{where} is {shown(value)}, expected {expected(wanted)}"
    if is_struct(wanted) and (absent := _absent(value, wanted)):
        return f"{place}.{absent} is missing" if place else f"{absent} is missing"
    if (length := _length(wanted)) is not None and isinstance(value, list | tuple) and len(value) != length:
        return f"{where} has {len(value)} items, expected {length}"
    for part in _inner(value, wanted, place):
        if not fits(part.value, part.wanted):
            return mistake(part.value, part.wanted, part.place)
    return "" if isinstance(value, dict | list | tuple) else f"{where} is {shown(value)}, expected {expected(wanted)}"


def fits(value: object, wanted: Wanted) -> bool:
    """Whether a plain value is as `wanted`."""
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return False
    return True


def shown(value: object) -> str:
    """A value in a message, short and in ASCII."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:40]


def expected(wanted: Wanted) -> str:
    """What a type asks for, in words."""
    wanted, meta = stripped(wanted)
    if meta.extra and "expected" in meta.extra:
        return str(meta.extra["expected"])
    if members := union_members(wanted):
        names = [expected(member) for member in members]
        if "a number" in names:  # which says it of whole numbers, too
            names = [name for name in names if name != "a whole number"]
        return " or ".join([name for name in names if name != "null"] + ["null"] * ("null" in names))
    if wanted in _NAMES:
        return _NAMES[wanted] + _limits(meta)
    return "a list" if _is_list(wanted) else "an object"


def _limits(meta: Meta) -> str:
    """ " from 0 to 1", or the one limit that there is."""
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return ", not negative" if meta.ge == 0 else f" of at least {meta.ge}"
    return "" if meta.le is None else f" of at most {meta.le}"


def origin(wanted: Wanted) -> object:
    """As typing.get_origin."""
    found: object = get_origin(wanted)
    return found


def stripped(wanted: Wanted) -> tuple[Wanted, Meta]:
    """A type without `Annotated`, and what that said."""
    if origin(wanted) is Annotated:
        inner, *notes = get_args(wanted)
        return inner, next((note for note in notes if isinstance(note, Meta)), Meta())
    return wanted, Meta()


def union_members(wanted: Wanted) -> tuple[Wanted, ...]:
    """The types of a union; () of what is none."""
    return get_args(wanted) if origin(wanted) in (Union, types.UnionType) else ()


def is_struct(wanted: Wanted) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)


def is_named_tuple(wanted: Wanted) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, tuple) and hasattr(wanted, "_fields")


def _is_list(wanted: Wanted) -> bool:
    return origin(wanted) in (list, tuple) or is_named_tuple(wanted)


def _is_kind(value: object, wanted: Wanted) -> bool:
    """Whether a container stands where one is wanted, and none where none is."""
    if _is_list(stripped(wanted)[0]):
        return isinstance(value, list | tuple)
    if is_struct(wanted) or origin(wanted) in (dict, Mapping):
        return isinstance(value, dict)
    return True


def _of_kind(value: object, wanted: Wanted) -> Wanted:
    """The member of a union that a container was meant to be, without `Annotated`; else the type itself."""
    members = union_members(wanted)
    if not members or not isinstance(value, dict | list | tuple):
        return stripped(wanted)[0] if _is_list(stripped(wanted)[0]) else wanted
    containers = [m for m in members if (_is_list(m) if isinstance(value, list | tuple) else is_struct(m) or origin(m))]
    return containers[0] if containers else wanted


def _absent(value: object, wanted: Wanted) -> str:
    """The first field that an object has to have and has not; "" for none."""
    fields = msgspec.structs.fields(wanted)
    assert isinstance(value, dict)
    return next((field.encode_name for field in fields if field.required and field.encode_name not in value), "")


def _length(wanted: Wanted) -> int | None:
    """Of a tuple whose items have types of their own."""
    if is_named_tuple(wanted):
        return len(wanted._fields)
    arguments = get_args(wanted)
    return len(arguments) if origin(wanted) is tuple and Ellipsis not in arguments else None


def _inner(value: object, wanted: Wanted, place: str) -> Iterator[Inner]:
    """The parts of a container."""
    if isinstance(value, dict):
        prefix = f"{place}." if place else ""
        if is_struct(wanted):
            for field in msgspec.structs.fields(wanted):
                if field.encode_name in value:
                    yield Inner(prefix + field.encode_name, value[field.encode_name], field.type)
        elif origin(wanted) is dict:
            yield from (Inner(f"{prefix}{key}", item, get_args(wanted)[1]) for key, item in value.items())
    elif isinstance(value, list | tuple) and _is_list(wanted):
        kinds = list(wanted.__annotations__.values()) if is_named_tuple(wanted) else list(get_args(wanted))
        if Ellipsis in kinds or origin(wanted) is list:
            kinds = [kinds[0]] * len(value)
        yield from (Inner(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(value, kinds, strict=True)))
