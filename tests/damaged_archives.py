"""Damages of .npy, .npz and other zip files, and things that stand where a file should, for tests and for fuzzing."""

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Damage(NamedTuple):
    """What is done to the bytes of a sound file, and a name for it that can be printed."""

    name: str
    of: Callable[[bytes], bytes]


def npy(shape: str = "(2, 3)", descr: str = "'<i4'", order: str = "False", body: int = 24, version: int = 1) -> bytes:
    """An .npy file whose header says what it is asked to."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + bytes(body)


def _objects(_: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([["a"]], object), allow_pickle=True)
    return file.getvalue()


ANY = (
    Damage("empty", lambda content: b""),
    Damage("one byte", lambda content: content[:1]),
    Damage("first half", lambda content: content[: len(content) // 2]),
    Damage("without its last byte", lambda content: content[:-1]),
    Damage("without its first bytes", lambda content: content[7:]),
    Damage("zeros", lambda content: bytes(len(content))),
    Damage("text", lambda content: b"<html>404 not found</html>\n"),
    Damage("JSON", lambda content: b"[[1, 2], [3, 4]]"),
    Damage("a pickle", lambda content: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e."),
)
NPY = (
    *ANY,
    Damage("10^15 rows", lambda content: npy("(1000000000000000, 3)")),
    Damage("beyond int64", lambda content: npy(f"({10**30}, 3)")),
    Damage("zero times beyond int64", lambda content: npy(f"(0, {10**30})")),
    Damage("minus one row", lambda content: npy("(-1, 3)")),
    Damage("shape of text", lambda content: npy("('a',)")),
    Damage("shape a number", lambda content: npy("7")),
    Damage("unknown type", lambda content: npy(descr="'<q9'")),
    Damage("type of records", lambda content: npy(descr="[('a', '<i4'), ('b', '<i4')]", shape="(3,)")),
    Damage("type none", lambda content: npy(descr="None")),
    Damage("text inside", lambda content: npy(descr="'<U1'")),
    Damage("dates inside", lambda content: npy(descr="'<M8[s]'", body=48)),
    Damage("objects inside", _objects),
    Damage("nested header", lambda content: npy("(" * 2000 + ")" * 2000)),
    Damage("code in header", lambda content: npy("__import__('os')")),
    Damage("no header's end", lambda content: npy()[:20]),
    Damage("long header", lambda content: b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"),
    Damage("unknown version", lambda content: npy(version=9)),
    Damage("bytes after its array", lambda content: npy(body=25)),
    Damage("a zip", lambda content: zipped({"a.npy": npy()})),
)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def zipped_again(content: bytes, method: int) -> bytes:
    """The members of an archive, compressed in another way."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist()}, method)


def _headers(content: bytes, local: int, central: int, value: bytes) -> bytes:
    """`value` at these offsets in the header of every member, both times."""
    damaged = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = content.find(signature)
        while at >= 0:
            damaged[at + offset : at + offset + len(value)] = value
            at = content.find(signature, at + 4)
    return bytes(damaged)


def _flipped_inside(content: bytes, method: int) -> bytes:
    """One byte in the middle of the data of every compressed member is another."""
    content = zipped_again(content, method)
    damaged = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            at = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
            damaged[at] ^= 0x5A
    return bytes(damaged)


ZIP = (
    *ANY,
    Damage("no members", lambda content: zipped({})),
    Damage("other members", lambda content: zipped({"other.npy": npy(), "other/data.pkl": b"x"})),
    Damage("encrypted", lambda content: _headers(content, 6, 8, b"\x01\x00")),
    Damage("unknown method", lambda content: _headers(content, 8, 10, b"\x63\x00")),
    Damage("claims deflate", lambda content: _headers(content, 8, 10, b"\x08\x00")),
    Damage("claims LZMA", lambda content: _headers(content, 8, 10, b"\x0e\x00")),
    Damage("claims bzip2", lambda content: _headers(content, 8, 10, b"\x0c\x00")),
    Damage("claims 4 GB", lambda content: _headers(content, 22, 24, b"\xfe\xff\xff\xff")),
    Damage("claims 4 GB, deflated", lambda c: _headers(zipped_again(c, 8), 22, 24, b"\xfe\xff\xff\xff")),
    Damage("wrong checksums", lambda content: _headers(content, 14, 16, b"\x00\x01\x02\x03")),
    Damage("members elsewhere", lambda content: _headers(content, 28, 42, b"\xff\x00\x00\x00")),
    Damage("flipped deflate", lambda content: _flipped_inside(content, zipfile.ZIP_DEFLATED)),
    Damage("flipped LZMA", lambda content: _flipped_inside(content, zipfile.ZIP_LZMA)),
    Damage("flipped bzip2", lambda content: _flipped_inside(content, zipfile.ZIP_BZIP2)),
    Damage("without its directory", lambda content: content[: content.find(b"PK\x01\x02")]),
)


class Obstacle(NamedTuple):
    """What stands where a file should."""

    name: str
    at: Callable[[Path], object]


OBSTACLES = (
    Obstacle("nothing", lambda path: None),
    Obstacle("folder", lambda path: path.mkdir()),
    Obstacle("pipe", os.mkfifo),
    Obstacle("link to nothing", lambda path: path.symlink_to(path.name + ".gone")),
    Obstacle("link to itself", lambda path: path.symlink_to(path.name)),
)
