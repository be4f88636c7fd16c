"""Damaged and odd sources: what is good in them is read, what is not is counted with its reason, nothing hangs."""

import bz2
import functools
import gzip
import importlib
import json
import lzma
import os
import random
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from sparse_gpt.config import DataConfig
from sparse_gpt.data import prepare_corpus, problems
from sparse_gpt.data.inspection import summary
from sparse_gpt.data.source_kinds import open_source
from sparse_gpt.data.sources import Source
from sparse_gpt.data.spec import parse_sources
from sparse_gpt.data.tables import split_lines
from sparse_gpt.errors import InputError

MAX_BYTES = 1000
TEXT = b"".join(b"def f%d():\n    return %d\n" % (i, i * i) for i in range(20))
ROWS = [f"row {i}" for i in range(40)]
LINES = "".join(json.dumps({"text": row}) + "\n" for row in ROWS).encode()
DEEP = b"[" * 150_000


def source(text: str) -> Source:
    return open_source(parse_sources(text)[0], 0, MAX_BYTES)


def read(text: str) -> list[Any]:
    """Contents and problems, after the checks that come before anything is written."""
    opened = source(text)
    opened.fingerprint()
    return [document.problem or document.content for document in opened.read()]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """One byte in the middle is another one."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]


# What a file holds -> what is read of it.
TEXTS: dict[str, tuple[bytes, Any]] = {
    "plain": (TEXT, TEXT),
    "gzip": (gzip.compress(TEXT), TEXT),
    "gzip, two members": (gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:]), TEXT),
    "bzip2": (bz2.compress(TEXT), TEXT),
    "xz": (lzma.compress(TEXT), TEXT),
    "begins as bzip2 does": (b"BZh1 is a name" + TEXT, b"BZh1 is a name" + TEXT),
    "empty": (b"", b""),
    "gzip, cut": (half(gzip.compress(TEXT)), "damaged"),
    "gzip, without its checksum": (gzip.compress(TEXT)[:-8], "damaged"),
    "gzip, flipped": (flipped(gzip.compress(TEXT)), "damaged"),
    "gzip, head only": (gzip.compress(TEXT)[:5], "damaged"),
    "bzip2, cut": (half(bz2.compress(TEXT)), "damaged"),
    "bzip2, flipped": (flipped(bz2.compress(TEXT)), "damaged"),
    "xz, cut": (half(lzma.compress(TEXT)), "damaged"),
    "xz, flipped": (flipped(lzma.compress(TEXT)), "damaged"),
}
JSONL: dict[str, tuple[bytes, list[Any]]] = {
    "plain": (LINES, ROWS),
    "first row bad": (b"oops\n" + LINES, ["not_json", *ROWS]),
    "first row without the column": (b'{"other": 1}\n' + LINES, ["no_column", *ROWS]),
    "deep": (LINES + DEEP[:70_000] + b"\n" + LINES, [*ROWS, "not_json", *ROWS]),
    "a huge number": (LINES + b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n", [*ROWS, "not_json"]),
    "Latin-1": (b'{"text": "caf\xe9"}\n' + LINES, ["not_utf8", *ROWS]),
    "byte order mark": (b"\xef\xbb\xbf" + LINES, ROWS),
    "old Mac": (LINES.replace(b"\n", b"\r"), ROWS),
    "Windows": (LINES.replace(b"\n", b"\r\n"), ROWS),
    "no line end": (LINES[:-1], ROWS),
    "values of other types": (b'{"text": 7}\n{"text": ["a"]}\n{"text": null}\n' + LINES, ["no_text"] * 3 + ROWS),
}
REFUSED_JSONL: dict[str, tuple[bytes, str]] = {
    "deep": (DEEP[:70_000], r"1 not_json; not_json: every line must be a whole JSON object"),
    "an array": (json.dumps([{"text": "a"}]).encode(), r"1 not_object;.*jq -c '\.\[\]'"),
    "a list of many lines": (b'[\n{"a": 1},\n{"a": 2},\n]\n', r"4 not_json;.*jq -c '\.\[\]'"),
    "UTF-16": (LINES.decode().encode("utf-16"), "not_utf8: another encoding: convert it with iconv -f UTF-16"),
    "gzip, head only": (gzip.compress(LINES)[:5], "1 damaged.*fetch it again"),
    "other columns": (b'{"a": 1}\n{"b": 1}\n', "no column 'text'; there are: a, b .name one: jsonl=LOCATION#COLUMN"),
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("name", ["a.txt", "a.gz"])
def test_text_by_its_content_whatever_its_name(tmp_path: Path, case: str, name: str) -> None:
    content, wanted = TEXTS[case]
    (tmp_path / name).write_bytes(content)
    assert read(f"text={tmp_path / name}") == [wanted]


@pytest.mark.parametrize("case", JSONL)
def test_json_lines(tmp_path: Path, case: str) -> None:
    content, wanted = JSONL[case]
    (tmp_path / "a.jsonl").write_bytes(content)
    assert read(f"jsonl={tmp_path / 'a.jsonl'}") == wanted
    assert set(wanted) - set(ROWS) <= set(problems.PROBLEMS)


@pytest.mark.parametrize("case", REFUSED_JSONL)
def test_json_lines_without_any_row_say_what_to_do(tmp_path: Path, case: str) -> None:
    content, reported = REFUSED_JSONL[case]
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=reported):
        read(f"jsonl={tmp_path / 'a.jsonl'}")


@pytest.mark.parametrize("packed", [gzip.compress, functools.partial(bz2.compress, compresslevel=1), lzma.compress])
def test_rows_before_the_damage_are_read(tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
    draw = random.Random(0)
    many = b"".join(json.dumps({"text": draw.randbytes(40).hex()}).encode() + b"\n" for _ in range(3_000))
    (tmp_path / "a.jsonl").write_bytes(half(packed(many)))
    found = read(f"jsonl={tmp_path / 'a.jsonl'}")
    assert found[-1] == "damaged"
    rows = [json.loads(line)["text"] for line in many.splitlines()]
    assert found[:-1] == rows[: len(found) - 1]
    assert len(found) > 500


def test_lines_are_split_wherever_chunks_end() -> None:
    text = b"a\r\nb\rc\n\r\n\nlonger than ten\rdd\r\n" + b"x" * 30
    wanted = [b"a", b"b", b"c", b"", b"", None, b"dd", None]
    for size in range(1, len(text) + 1):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        chunks[1:1] = [b""]
        assert list(split_lines(iter(chunks), 10)) == wanted, size


# -- what is no file to read ---------------------------------------------------------------------------------------


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
    here = os.getcwd()
    try:
        os.fchdir(folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)
        os.close(folder)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_pipe, _socket, _device])
@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_pipes_sockets_and_devices_are_not_read(tmp_path: Path, kind: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.x")
    for pattern in ("a.x", "*.x"):
        with pytest.raises(InputError, match=r"a\.x is a pipe, socket or device: write what it gives into a file"):
            read(f"{kind}={tmp_path / pattern}")
    (tmp_path / "b.txt").write_bytes(TEXT)
    (tmp_path / "c.x").symlink_to("b.txt")
    assert read(f"text={tmp_path / '*.x'}") == [TEXT]  # a link to a file is one


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_file_without_size_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Such as /proc/kmsg, which gives what it gives when it likes."""

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("opened")

    (tmp_path / "a.txt").write_bytes(b"")
    monkeypatch.setattr(LocalFileSystem, "open", never)
    assert read(f"{kind}={tmp_path}/a.txt") == ([b""] if kind == "text" else [])


@pytest.mark.parametrize(
    ("location", "reported"),
    [
        ("{}", r"it is a folder: name its files, as in text=.*/\*\*"),
        ("{}/nothing*", "no files found$"),
        ("{}/[a", r"\[ and \] are wildcards: write \[\[\] for \["),
        ("{}/all.tar.gz", r"all\.tar\.gz is an archive of many files; unpack it"),
        ("{}/*.zip", r"b\.zip is an archive of many files; unpack it"),
    ],
)
def test_locations_that_name_no_text_files(tmp_path: Path, location: str, reported: str) -> None:
    for name in ("all.tar.gz", "b.zip"):
        (tmp_path / name).write_bytes(gzip.compress(TEXT))
    with pytest.raises(InputError, match=reported):
        read(f"text={location.format(tmp_path)}")


@pytest.mark.parametrize("kind", ["python_source", "text", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "location", ["~nobody/x", "a" * 5000, "a\0b", "nowhere/\udce9", "http://", "zip://a", "s3:/", "::"]
)
def test_paths_that_cannot_be(kind: str, location: str) -> None:
    with pytest.raises(InputError) as reported:
        read(f"{kind}={location}")
    assert "\n" not in str(reported.value)


def test_paths_with_signs_that_mean_something_elsewhere(tmp_path: Path) -> None:
    odd = tmp_path / """a [1] {b}, c#d=e: 'f' "g";5"""
    odd.mkdir()
    (odd / "[x].txt").write_bytes(TEXT)
    (odd / "y.py").write_bytes(TEXT)
    quoted = str(odd).replace('"', '""')
    assert read(f'text="{quoted}/[x].txt":2') == [TEXT]
    assert read(f'text="{quoted.replace("[", "[[]")}/*.txt":2') == [TEXT]
    assert read(f'python_source="{quoted}":0.5') == [TEXT]


# -- Zstandard -----------------------------------------------------------------------------------------------------


def test_zstandard_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression", "compression.zstd", "backports", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd and more")
    for kind in ("text", "jsonl"):
        with pytest.raises(InputError, match=r"a\.txt\.zst: needs the package zstandard: pip install zstandard, or"):
            read(f"{kind}={tmp_path}/*.zst")


class _Frame:
    """As much of zstandard's decompressobj as is used; a frame here is its magic number, text, and an end."""

    eof, unused_data = False, b""

    def decompress(self, data: bytes) -> bytes:
        if b"!" in data:
            raise _FrameError("corrupt")
        text, end, self.unused_data = data.removeprefix(b"\x28\xb5\x2f\xfd").partition(b"\0")
        self.eof = bool(end)
        return text


class _FrameError(Exception):
    pass


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"\x28\xb5\x2f\xfdone\0\x28\xb5\x2f\xfd two\0", b"one two"),
        (b"\x28\xb5\x2f\xfdone\0\x28\xb5\x2f\xfd two", "damaged"),
        (b"\x28\xb5\x2f\xfdone!\0", "damaged"),
    ],
)
def test_zstandard_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, wanted: Any) -> None:
    for name in ("compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    library = types.SimpleNamespace(
        ZstdDecompressor=lambda max_window_size: types.SimpleNamespace(decompressobj=_Frame), ZstdError=_FrameError
    )
    monkeypatch.setitem(sys.modules, "zstandard", library)
    (tmp_path / "a.zst").write_bytes(content)
    assert read(f"text={tmp_path}/a.zst") == [wanted]


# -- Parquet -------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> Callable[[str, Any], None]:
    """Writes a Parquet file of one column: parts("a", {"text": [...]})."""
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    return lambda name, columns: parquet.write_table(arrow.table(columns), tmp_path / f"{name}.parquet")


def test_parquet_parts_that_differ(tmp_path: Path, parts: Callable[[str, Any], None]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parts("good", {"text": ["a", None]})
    parts("bytes", {"text": [b"b"]})
    parts("nested", {"text": [["c"], ["d"]]})
    parts("object", {"text": [{"e": 1}]})
    parts("other", {"body": ["f"]})
    wrong = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.array([0, 1], arrow.int32()).buffers()[1], arrow.py_buffer(b"\xe9")]
    )
    parts("latin", {"text": wrong})
    (tmp_path / "cut.parquet").write_bytes(half((tmp_path / "good.parquet").read_bytes()))
    (tmp_path / "empty.parquet").write_bytes(b"")
    wanted = ["a", "no_text", b"b", "no_text", "no_text", "no_text", "no_column", "not_utf8", "damaged", "damaged"]
    assert sorted(map(str, read(f"parquet={tmp_path}/*.parquet"))) == sorted(map(str, wanted))


@pytest.mark.slow
def test_no_altered_byte_of_a_parquet_part_stops_a_preparation(
    tmp_path: Path, parts: Callable[[str, Any], None]
) -> None:
    parts("a", {"text": ["text " * 20] * 5, "n": list(range(5))})
    data = (tmp_path / "a.parquet").read_bytes()
    parts("b", {"text": ["good"]})
    (tmp_path / "b.parquet").rename(tmp_path / "0.parquet")
    for place in range(0, len(data), 7):
        (tmp_path / "a.parquet").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        assert "good" in read(f"parquet={tmp_path}/*.parquet"), place


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", "not a Parquet file"),
        (b"PAR1" + b"\xff" * 40 + b"PAR1", "not a Parquet file"),
        (LINES, "not a Parquet file"),
    ],
)
def test_no_parquet_part_can_be_read(tmp_path: Path, content: bytes, reported: str) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=reported) as raised:
        read(f"parquet={tmp_path}/a.parquet")
    assert "\n" not in str(raised.value)


# -- a whole corpus ------------------------------------------------------------------------------------------------


def test_counts_and_advice_are_shown(tmp_path: Path) -> None:
    many = b"".join(json.dumps({"text": f"def f{i}():\n    return {i}\n" * 3}).encode() + b"\n" for i in range(300))
    (tmp_path / "a.jsonl").write_bytes(b'oops\n{"no": 1}\n' + many)
    made = prepare_corpus(tmp_path / "corpus", DataConfig(f"jsonl={tmp_path}/a.jsonl", tokens=0), 257, progress=False)
    shown = summary(made)
    assert "left out: 1 no_column, 1 not_json" in shown
    assert "not_json: every line must be a whole JSON object" in shown
    assert "name another one with #COLUMN" in shown


def test_a_tiny_share_is_not_everything(tmp_path: Path) -> None:
    """A target that rounds to zero tokens used to mean all there are, and generated programs have no end."""
    (tmp_path / "a.txt").write_bytes(TEXT)
    made = prepare_corpus(
        tmp_path / "corpus",
        DataConfig(f"idioms:1e-9,text={tmp_path}/a.txt:1", tokens=200, validation_fraction=0.0),
        257,
        progress=False,
    )
    assert made.manifest["sources"][0]["documents_read"] == 1
