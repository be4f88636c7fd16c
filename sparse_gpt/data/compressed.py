"""Bytes of files, unpacked where they are compressed: gzip, bzip2, xz and, with a package for it, Zstandard.

A file is unpacked by what it begins with and not by its name: a name may be wrong, and downloads may have been
unpacked on their way.
"""

import bz2
import contextlib
import gzip
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from sparse_gpt.errors import InputError

if TYPE_CHECKING:
    import fsspec
    import zstandard

_Unpacked = BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_CHUNK = 2**16
_GZIP, _BZIP2, _XZ, _ZSTANDARD = b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
_LONGEST = 10  # bytes needed to tell
_BZIP2_BLOCK = b"1AY&SY"  # after "BZh" and a digit, so that text may begin with "BZh"
# What the modules raise for damaged data, besides OSError without a number.
_DAMAGES = (EOFError, zlib.error, lzma.LZMAError, ValueError)
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
"""Suffixes of files that hold many files: these are for their owner to unpack."""


class Damaged(Exception):
    """The data is not what it says it is: truncated, or altered."""


class NeedsPackage(Exception):
    """A package is missing without which the file cannot be unpacked; the text says what to do."""


READ_ERRORS = (OSError, Damaged, NeedsPackage)
"""Everything that reading a file through this module raises."""


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """Turns what libraries raise of their own for files that cannot be reached (as gcsfs does) into OSError."""
    try:
        yield
    except (InputError, *READ_ERRORS):
        raise
    except Exception as error:  # there is no common class of them
        raise OSError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def read_chunks(filesystem: "fsspec.AbstractFileSystem", path: str) -> Iterator[bytes]:
    """The content of a file of an fsspec file system, unpacked, in parts of at most about 64 kB.

    Raises:
        Damaged: compressed data is truncated or altered; what stands before that has been given.
        NeedsPackage: Zstandard, and no package that unpacks it.
        OSError: it cannot be read.
    """
    with library_errors(), filesystem.open(path, "rb") as stream:
        head = stream.read(_LONGEST)
        stream.seek(0)
        try:
            yield from _unpacked(stream, head)
        except _DAMAGES as error:
            raise Damaged(str(error)) from error
        except OSError as error:
            if error.errno is None and head[:3] in (_GZIP, _BZIP2):  # so they say "not gzip" and "invalid data"
                raise Damaged(str(error)) from error
            raise


def _unpacked(stream: BinaryIO, head: bytes) -> Iterator[bytes]:
    if head.startswith(_ZSTANDARD):
        yield from _zstandard(stream)
        return
    unpack: Callable[[BinaryIO], _Unpacked] | None = None
    if head.startswith(_GZIP):
        unpack = gzip.open
    elif head.startswith(_BZIP2) and head[4:] == _BZIP2_BLOCK:
        unpack = bz2.open
    elif head.startswith(_XZ):
        unpack = lzma.open
    unpacked: _Unpacked = unpack(stream) if unpack else stream
    while chunk := unpacked.read(_CHUNK):
        yield chunk


def _zstandard(stream: BinaryIO) -> Iterator[bytes]:
    """Frames one after the other. zstandard's own reader stops silently at truncated data, and after one frame."""
    for name in ("compression.zstd", "backports.zstd"):  # Python 3.14; the same for earlier ones
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            with module.ZstdFile(stream) as unpacked:
                yield from _guarded(iter(lambda: unpacked.read(_CHUNK), b""), module.ZstdError)
            return
    try:
        module = importlib.import_module("zstandard")
    except ImportError as error:
        raise NeedsPackage("needs the package zstandard: pip install zstandard, or unpack it: zstd -d FILE") from error
    yield from _guarded(_zstandard_frames(stream, module.ZstdDecompressor(max_window_size=2**31)), module.ZstdError)


def _zstandard_frames(stream: BinaryIO, decompressor: "zstandard.ZstdDecompressor") -> Iterator[bytes]:
    small = 2**11  # a block of four bytes can stand for 128 kB
    frame, data = None, stream.read(small)
    while data:
        frame = frame or decompressor.decompressobj()
        yield frame.decompress(data)
        data = stream.read(small)
        if frame.eof:
            data, frame = frame.unused_data + data, None
    if frame is not None:
        raise Damaged("the last Zstandard frame is truncated")


def _guarded(chunks: Iterator[bytes], damage: type[Exception]) -> Iterator[bytes]:
    try:
        yield from chunks
    except damage as error:
        raise Damaged(str(error)) from error
