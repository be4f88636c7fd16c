"""Files as every part of the project reads and writes them: JSON with limits, and files that are whole or not there.

Whatever is wrong with a file that is read becomes one InputError that names it: this is the one JSON reader.
"""

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparse_gpt.errors import InputError

MOST_BYTES = 256 * 2**20  # of a JSON file: the largest that is written, traces of a large circuit, has a tenth
MOST_DIGITS = 25  # of a whole number, before its value is looked at
LARGEST = 2**63  # whole numbers are below it


def read_json(path: str | Path, kind: type | None = dict, most_bytes: int = MOST_BYTES) -> Any:
    """The value in a JSON file.

    Args:
      path: a regular file.
      kind: type that the value must have, None for any.
      most_bytes: size of a larger file is an error.

    Raises:
      InputError: there is no such file, or it cannot be read, is no file, too large, not UTF-8, no JSON, nested too
        deep, of another kind, or holds a number that is not finite or beyond 2**63.
    """
    return parse_json(read_bytes(path, most_bytes), str(path), kind)


def parse_json(content: bytes | str, where: str, kind: type | None = dict) -> Any:
    """As `read_json`, for content that is at hand; `where` is what messages begin with."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        value = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_constant)
        if "\\u" in text:  # half a surrogate pair could be printed nowhere
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start})") from error
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not JSON (half of a surrogate pair)") from error
    except RecursionError as error:
        raise InputError(f"{where}: not JSON of ours (nested too deep)") from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if kind is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
        raise InputError(f"{where}: holds {_name(type(value))}, expected {_name(kind)}")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS or abs(int(digits)) >= LARGEST:
        raise ValueError(f"the number {digits[:12]}{'...' * (len(digits) > 12)} of {len(digits)} digits is too large")
    return int(digits)


def _real(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _name(kind: type) -> str:
    names = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number"}
    return {**names, bool: "true or false", type(None): "null"}.get(kind, kind.__name__)


def read_bytes(path: str | Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Content of a regular file. InputError as for `read_json`; a pipe is never waited for."""
    path = Path(path)
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise InputError(f"{path}: a folder, expected a file")
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{path}: not a regular file")
        if facts.st_size > most_bytes:
            raise InputError(f"{path}: {facts.st_size:,} bytes, more than the {most_bytes:,} that are read")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a value as readable JSON: the whole file or none, the same bytes for the same value.

    Raises:
      InputError: a number is not finite, which JSON cannot say.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{path}: a result is not finite ({error}); the model's weights or activations overflow"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, for a file that takes the place of `path` when the body is done, and goes
    when it fails: whoever reads `path` sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
