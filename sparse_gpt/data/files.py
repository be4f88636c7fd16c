"""Small file helpers: whole or not at all, and errors that say what to do."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparse_gpt.errors import InputError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space" and "not permitted" while writing `path` into InputError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{path}: no space left on the device; free some and run the same command again, it continues"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `path` so that a reader, or a restart after a kill, sees the old file or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with disk_errors(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically and with the same bytes for the same value."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
