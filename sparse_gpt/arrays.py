"""Reads NumPy's .npy and .npz files and zip archives; whatever is wrong with one is a single line (InputError).

What a file claims is compared with its size before anything is allocated, so that a damaged header of a few bytes
cannot ask for the machine's memory.
"""

import contextlib
import io
import lzma
import math
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from sparse_gpt.errors import InputError
from sparse_gpt.io import NO_SPACE

# What zipfile, its decompressors and NumPy raise for bytes that are not what they claim to be.
DAMAGE = (
    *(OSError, EOFError, MemoryError, RecursionError, struct.error, SyntaxError, tokenize.TokenError),
    *(ValueError, TypeError, KeyError, IndexError, OverflowError),  # of names, offsets and dtypes
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(RuntimeError, NotImplementedError),  # encrypted; a method of compression that Python does not know
)
SAVE_AGAIN = "copy or save it again"
_NUMBERS = "biufc"  # kinds of dtype
_MOST_DEFLATED = 1100  # Deflate's bytes per byte: 1032 at most


def read_npy(path: str | Path, label: str = "") -> np.ndarray:
    """The array of an .npy file, in C order.

    Args:
      label: what the error line begins with; the path if it is empty.

    Raises:
      InputError: no such file, not an .npy file, one of other things than numbers, or shorter or longer than it claims.
    """
    path, label = Path(path), label or str(path)
    with _refuse(label, ".npy array"), regular_file(path, label).open("rb") as file:
        return _array(file, path.stat().st_size)


def npy_shape(path: str | Path, label: str = "") -> tuple[int, ...]:
    """The shape of the array in an .npy file, whose values are not read. InputError as `read_npy`."""
    path, label = Path(path), label or str(path)
    with _refuse(label, ".npy array"), regular_file(path, label).open("rb") as file:
        return _header(file, path.stat().st_size)[0]


def read_npz(source: str | Path | bytes, label: str = "", names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, in C order.

    Args:
      source: a file, or its bytes.
      label: what the error line begins with; the path if it is empty.
      names: which arrays there must be at least.

    Raises:
      InputError: no such file, not an .npz file or an empty one, damaged, or without an array of `names`.
    """
    label = label or (str(source) if not isinstance(source, bytes) else "arrays")
    opened = io.BytesIO(source) if isinstance(source, bytes) else regular_file(Path(source), label)
    with _refuse(label, ".npz file"), zipfile.ZipFile(opened) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        arrays = {name: _member(archive, entry) for name, entry in entries.items()}
    lacking = [name for name in names if name not in arrays]
    if lacking or not arrays:
        found = ", ".join(sorted(arrays)[:5]) or "none"
        raise InputError(f"{label}: no array {', '.join(lacking[:5]) or 'at all'} in it, found {found}; {SAVE_AGAIN}")
    return arrays


@contextlib.contextmanager
def open_zip(path: Path, kind: str, way_out: str = SAVE_AGAIN) -> Iterator[zipfile.ZipFile]:
    """An archive to read from; what goes wrong in the body because it is damaged becomes "not a KIND, or damaged"."""
    with refuse_damage(f"{path}: not a {kind}, or damaged", way_out), zipfile.ZipFile(regular_file(path)) as archive:
        yield archive


@contextlib.contextmanager
def refuse_damage(problem: str, way_out: str = SAVE_AGAIN) -> Iterator[None]:
    """Makes what damaged bytes raise in the body one line: PROBLEM (reason); WAY OUT. InputErrors pass."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise  # of what the body writes
        raise InputError(f"{problem} ({reason(error)}); {way_out}") from error


def reason(error: BaseException) -> str:
    """What an exception says, short and on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}"
    return " ".join(text.split()).strip()[:200]


def regular_file(path: Path, label: str = "") -> Path:
    """`path`, if there is a file. A pipe or a device is refused, for opening it could wait forever.

    Raises:
      InputError: if there is none, or something else.
    """
    label = label or str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{label}: not found; no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{label}: cannot be read ({reason(error)}); name another file") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{label}: is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{label}: is a pipe or a device, not a file; write it to a file first")
    return path


def _refuse(label: str, kind: str) -> contextlib.AbstractContextManager[None]:
    return refuse_damage(f"{label}: not a readable {kind}")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type == zipfile.ZIP_DEFLATED and entry.file_size > _MOST_DEFLATED * (entry.compress_size + 1):
        raise ValueError(f"{entry.filename} claims {entry.file_size} bytes of {entry.compress_size} compressed ones")
    with archive.open(entry) as file:
        array = _array(file, entry.file_size)
        file.read(1)  # to its end, where its checksum is compared
        return array


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, dtype and whether it is in Fortran order; ValueError if that is not what `size` bytes hold."""
    start = file.read(8)
    if start.startswith(b"PK\x03\x04"):
        raise ValueError("it is a zip archive, such as an .npz file")
    if not start.startswith(b"\x93NUMPY"):
        raise ValueError("it does not begin as one" if start else "it is empty")
    version = np.lib.format.read_magic(io.BytesIO(start))
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not read here")
    counted = _Counted(file)
    with warnings.catch_warnings(action="ignore"):  # about old names of types, beside the line that refuses them
        shape, fortran, dtype = readers[version](counted)
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"its type is {dtype}; expected numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    need, there = math.prod(map(int, shape)) * dtype.itemsize, size - len(start) - counted.bytes
    if need != there:
        raise ValueError(f"its shape {shape} of {dtype} needs {need} bytes, it has {there}")
    return tuple(map(int, shape)), dtype, fortran


def _array(file: IO[bytes], size: int) -> np.ndarray:
    shape, dtype, fortran = _header(file, size)
    content = file.read(math.prod(shape) * dtype.itemsize)
    values = np.frombuffer(bytearray(content), dtype)  # writable
    return np.asarray(values.reshape(shape, order="F" if fortran else "C"), order="C")  # keeps a single number one


class _Counted:
    """A file that counts the bytes read from it, for one inside an archive does not tell."""

    def __init__(self, file: IO[bytes]):
        self._file, self.bytes = file, 0

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(size)
        self.bytes += len(content)
        return content
