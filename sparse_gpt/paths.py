"""Paths that a user names: what is wrong with one before anything is read or written."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sparse_gpt.errors import InputError

NAME_BYTES, PATH_BYTES = 255, 4095  # what Linux takes of one name, and of a whole path
OWN = (  # what a workdir holds; files of a user's own may stand beside it
    *("config.json", "manifest.json", "metrics.jsonl", "evaluation.json", "bridge.json"),
    *("checkpoints", "tokenizer", "corpus", "tensorboard", "circuits", "searches", "report", "dense"),
)
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


def output_file(flag: str, value: str, suffix: str) -> Path:
    """Absolute path of a file to write. InputError unless it is, or can be, a file in a folder that is there; if it is
    one of another kind, with another suffix than `suffix`; or if it is among a workdir's own files."""
    path = Path(value).expanduser().absolute()
    if path.is_dir():
        raise InputError(f"--{flag}={value}: is a folder; name a file in it")
    if path.exists() and not path.is_file():  # it would be replaced, not written to
        raise InputError(f"--{flag}={value}: is a pipe or a device; name a file")
    if not path.parent.is_dir():
        raise InputError(f"--{flag}={value}: not a file in an existing folder; create {path.parent} first")
    writable_folder(flag, path.parent)
    if path.exists() and path.suffix not in ("", suffix):
        raise InputError(f"--{flag}={value}: is there already; name a new file, or one that ends in {suffix}")
    place = Path(os.path.realpath(path))
    for folder in place.parents:
        if _is_workdir(folder) and place.relative_to(folder).parts[0] in OWN:
            raise InputError(f"--{flag}={value}: is among the files of the workdir {folder}; name another file")
    return path


def _is_workdir(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        (folder / name).exists() for name in ("manifest.json", "checkpoints")
    )


def refuse_one_file_twice(outputs: Mapping[str, Path], read: Iterable[tuple[str, str | None]]) -> None:
    """InputError if a file to write is also read, or written twice: one of the two would be lost.

    Args:
        outputs: by flag.
        read: flags, and what they name if they are given: files, or folders.
    """
    taken = {Path(os.path.realpath(Path(path).expanduser())): flag for flag, path in read if path}
    for flag, path in outputs.items():
        place = Path(os.path.realpath(path))
        if other := next((taken[each] for each in (place, *place.parents) if each in taken), ""):
            raise InputError(f"--{flag}={path}: is a file of --{other} too; name another file")
        taken[place] = flag
