"""Files read and written whole: the one JSON reader of the project, and writes that are seen whole or not at all."""

import contextlib
import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from sparse_gpt.errors import InputError

MOST_BYTES = 256 << 20  # of a JSON file: the largest that is written, traces of a large circuit, has a tenth
MOST_LEVELS = 100  # of objects and lists in each other
MOST_INTEGER = 1 << 63  # exclusive, and so is its negative: what an int64 holds

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY),
)
_AGAIN = "restore it, or delete it and make it again"
_EXTREME = re.compile(r"(?<![.\d])\d{19}|[eE]\+?\d{3}")  # what every number has that is too large for int64 or float64

Json = Any  # a value of a JSON file; who reads it knows or checks its shape
Tree = dict[str, Json]  # the plain object of one


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space" and "not permitted" while writing `path` into InputError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise InputError(
                f"{path}: no space left on the device; free some and run the same command again, it continues"
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        raise


@contextlib.contextmanager
def replacing(path: Path, alone: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix; what is written there takes the place of `path` when the body
    ends, and is removed when it fails. InputError as `disk_errors`.

    Where nobody else can be writing (`alone`), the name is always the same, so that what a killed process has left is
    written over.
    """
    temporary = path.with_name(f".{path.stem}{'' if alone else f'.{os.getpid()}'}.tmp{path.suffix}")
    try:
        with disk_errors(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes, alone: bool = False) -> None:
    """Writes `path` so that a reader, or a restart after a kill, sees the old file or the whole new one."""
    with replacing(path, alone) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object, alone: bool = False) -> None:
    """Writes readable JSON, whole or not at all, in a folder that is made where it is missing.

    The same value gives the same bytes. InputError where a number is not finite, since JSON has no such numbers, and as
    `disk_errors`.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{path}: a result is not finite ({error}); the model's weights or activations overflow"
        ) from error
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (text + "\n").encode(), alone)


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a file. InputError if it is not there, no plain file (a pipe is not waited for), unreadable or larger."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
            raise InputError(f"{path}: is {what}, expected a file; remove or rename it")
        if found.st_size > most_bytes:
            raise InputError(f"{path}: {found.st_size:,} bytes, more than the {most_bytes:,} that are read")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def read_json(
    path: Path,
    *,
    kind: type | tuple[type, ...] = dict,
    most_bytes: int = MOST_BYTES,
    nan_as_null: bool = False,
) -> Json:
    """What a JSON file holds.

    Args:
      path: the file.
      kind: what it must be as a whole.
      most_bytes: larger files are refused.
      nan_as_null: whether NaN and infinities, which JSON does not have, are None rather than refused.

    Raises:
      InputError: one line that names the file and what is wrong: missing, no plain file, unreadable, too large, not
        UTF-8, not JSON, nested deeper than MOST_LEVELS, numbers beyond int64 or float64, or not of the kind.
    """
    return parse_json(read_bytes(path, most_bytes), str(path), kind=kind, nan_as_null=nan_as_null)


def read_json_if_any(path: Path, **options: Json) -> Json:
    """As `read_json`, but {} if there is nothing of that name."""
    return read_json(path, **options) if os.path.lexists(path) else {}


def parse_json(
    data: bytes | str,
    where: str,
    *,
    kind: type | tuple[type, ...] = dict,
    nan_as_null: bool = False,
) -> Json:
    """As `read_json`, from the content of a file that messages call `where`."""
    try:
        value = _parsed(data, nan_as_null)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not readable as JSON ({_reason(error, data)}); {_AGAIN}") from error
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(map(_kind_name, kinds))
        raise InputError(f"{where}: holds {_kind_name(type(value))}, expected {wanted}; {_AGAIN}")
    return value


def _parsed(data: bytes | str, nan_as_null: bool) -> Json:
    """The value of JSON text. ValueError or RecursionError beyond the limits above."""
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    hooks: Tree = {"parse_constant": _none if nan_as_null else _constant}
    if _EXTREME.search(text):
        hooks |= {"parse_int": _integer, "parse_float": _none_if_infinite if nan_as_null else _real}
    value = json.loads(text, **hooks)
    if _deeper(value, MOST_LEVELS):
        raise RecursionError
    if "\\u" in text:  # half a surrogate pair could be printed nowhere
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _reason(error: ValueError | RecursionError, data: bytes | str) -> str:
    """Why text is not taken, for a person."""
    if isinstance(error, RecursionError):
        return f"nested too deep, over {MOST_LEVELS} levels"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, UnicodeEncodeError):
        return "half of a surrogate pair"
    return str(error) if data.strip() else "it is empty"


def _kind_name(kind: type) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "null",
        int: "a whole number",
    }
    return names.get(kind, "a number")


def _none(name: str) -> None:
    return None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else MOST_INTEGER  # Python refuses to convert thousands of digits
    if not -MOST_INTEGER < value < MOST_INTEGER:
        raise ValueError(f"the number {digits[:12]}... of {len(digits)} digits is too large, beyond 64 bits")
    return value


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:20]} is too large, beyond a 64-bit float")
    return value


def _none_if_infinite(digits: str) -> float | None:
    value = float(digits)
    return None if math.isinf(value) else value


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are in each other deeper than `levels`."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [part for parts in inner for part in parts if isinstance(part, dict | list)]
        if not level:
            return False
    return True
