"""Paths that a user names: what is wrong with one before anything is read or written."""

import os
from collections.abc import Mapping
from pathlib import Path

from sparse_gpt.errors import InputError

NAME_BYTES, PATH_BYTES = 255, 4095  # what Linux takes of one name, and of a whole path
CONFIG_PATHS = ("data.corpus", "data.tokenizer", "data.sources", "bridge.init_from")  # empty ones are unset


def problem(value: str) -> str:
    """What makes `value` impossible as a path, and the way out; "" when nothing does."""
    if not value.strip():
        return "empty; give a local or mounted path"
    if "://" in value:
        return "buckets and web addresses are not supported; give a local or mounted path"
    if "\0" in value:
        return "holds a NUL character; give a path without it"
    encoded = os.fsencode(value)
    if len(encoded) > PATH_BYTES or max(len(name) for name in encoded.split(b"/")) > NAME_BYTES:
        return f"too long; a path has at most {PATH_BYTES} bytes and each name in it at most {NAME_BYTES}"
    try:
        Path(value).expanduser()
    except RuntimeError:
        return "no such user or no home folder known; write the path in full"
    return ""


def check_config(overrides: Mapping[str, object]) -> None:
    """InputError for a --config.… override that names an impossible path; what is empty is unset."""
    for name in CONFIG_PATHS:
        value = str(overrides.get(name) or "")
        if name == "data.sources":  # a list with locations in it: only what no location can have
            found = problem("://") if "://" in value else problem("\0") if "\0" in value else ""
        else:
            found = problem(value) if value else ""
        if found:
            raise InputError(f"--config.{name}={value}: {found}")


def writable_folder(flag: str, path: Path) -> Path:
    """`path`, a folder that is there or can be made, and written to. InputError that names the flag if not."""
    place = path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if place.is_symlink() and not place.exists():
        raise InputError(f"--{flag}={path}: {place} is a link that leads nowhere; name another folder")
    if not place.is_dir():
        raise InputError(f"--{flag}={path}: {place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--{flag}={path}: {place} cannot be written to; change its permissions or name another")
    return path


def output_file(flag: str, value: str) -> Path:
    """Absolute path of a file to write. InputError unless it is, or can be, a file in a folder that is there."""
    path = Path(value).expanduser().absolute()
    if path.is_dir():
        raise InputError(f"--{flag}={value}: is a folder; name a file in it")
    if path.exists() and not path.is_file():  # it would be replaced, not written to
        raise InputError(f"--{flag}={value}: is a pipe or a device; name a file")
    if not path.parent.is_dir():
        raise InputError(f"--{flag}={value}: not a file in an existing folder; create {path.parent} first")
    writable_folder(flag, path.parent)
    return path
