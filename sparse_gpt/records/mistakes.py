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
    where, meant = place or "the file", _meant(value, wanted)
    if not _is_container(value, meant):
        return f"{where} is {shown(value)}, expected {expected(wanted)}"
    if is_struct(meant) and (absent := _absent(value, meant)):
        return f"{place}.{absent} is missing" if place else f"{absent} is missing"
    if (length := _length(meant)) is not None and isinstance(value, list | tuple) and len(value) != length:
        return f"{where} has {len(value)} items, expected {length}"
    for part in _inner(value, meant, place):
        if not fits(part.value, part.wanted):
            return mistake(part.value, part.wanted, part.place)
    return ""


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
        return _NAMES[wanted] + limits(meta)
    return "a list" if _is_list(wanted) else "an object"


def limits(meta: Meta) -> str:
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


def _meant(value: object, wanted: Wanted) -> Wanted:
    """The member of a union that a list or an object was meant to be, without `Annotated`; else the type itself."""
    members = union_members(wanted) or (wanted,)
    return next((stripped(member)[0] for member in members if _is_container(value, stripped(member)[0])), wanted)


def _is_container(value: object, wanted: Wanted) -> bool:
    """Whether a list stands where a list is wanted, or an object where one is."""
    if isinstance(value, dict):
        return is_struct(wanted) or origin(wanted) in (dict, Mapping)
    return isinstance(value, list | tuple) and _is_list(wanted)


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
