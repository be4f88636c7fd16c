"""Sources whose documents are one column of many rows in files: JSONL, Parquet."""

import collections
import contextlib
import functools
import importlib
import itertools
import json
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from sparse_gpt.data import problems
from sparse_gpt.data.compressed import READ_ERRORS, Damaged, library_errors
from sparse_gpt.data.globbed import Globbed
from sparse_gpt.data.sources import START, Document, Position, Source
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

if TYPE_CHECKING:
    import pyarrow.parquet

_FILES_LOOKED_AT, _ROWS_LOOKED_AT = 16, 200  # for the column, before a source is used: a first row may be a bad one
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, also the beginning of UTF-32's


def wrong_column(source: Source, columns: Iterable[str]) -> InputError:
    """The error that names the columns there are."""
    listed = ", ".join(sorted(map(str, columns))) or "none"
    return InputError(
        f"data.sources: {source.spec.name}: no column {source.spec.column!r}; there are: {listed} "
        f"(name one: {source.spec.kind}=LOCATION#COLUMN)"
    )


def missing_package(source: Source, package: str) -> InputError:
    """The error that says how to install an optional package."""
    return InputError(f"data.sources: {source.spec.name}: needs the optional package {package}: pip install {package}")


def row_document(value: object, after: Position) -> Document:
    """The document of a column's value; text that is stored as bytes is text too."""
    return Document(value, after) if isinstance(value, str | bytes) else Document(None, after, "no_text")


class JsonLines(Globbed):
    """JSONL files by glob (also compressed): one object per line, the document in one of its fields."""

    def fingerprint(self) -> Tree:
        found = super().fingerprint()
        columns: set[str] = set()
        dropped: collections.Counter[str] = collections.Counter()
        for index in range(min(_FILES_LOOKED_AT, len(self.files))):
            for line in itertools.islice(self._readable_lines(index, dropped), _ROWS_LOOKED_AT):
                record, problem = _parse(line)
                dropped.update([problem] * bool(problem))
                columns.update(record)
                if self.spec.column in columns:
                    return found
        if columns:
            raise wrong_column(self, columns)
        if dropped:
            reason = "; ".join([problems.counts(dropped), *problems.advice(dropped)])
            raise self.error(f"no JSON object in the first rows ({reason})")
        return found

    def _readable_lines(self, index: int, dropped: "collections.Counter[str]") -> Iterator[bytes | None]:
        try:
            yield from self._lines(index)
        except READ_ERRORS as error:
            dropped[self.skip(self.files[index], START, error).problem] += 1

    def read(self, start: Position = START) -> Iterator[Document]:
        for index in range(start[0], len(self.files)):
            skip = start[1] if index == start[0] else 0
            try:
                for row, line in enumerate(self._lines(index), 1):
                    if row > skip:
                        yield self._document(line, (index, row))
            except READ_ERRORS as error:
                yield self.skip(self.files[index], (index + 1, 0), error)

    def _document(self, line: bytes | None, after: Position) -> Document:
        if line is None:
            return Document(None, after, "too_large")
        record, problem = _parse(line)
        if not problem and self.spec.column not in record:
            problem = "no_column"
        return Document(None, after, problem) if problem else row_document(record[self.spec.column], after)

    def _lines(self, index: int) -> Iterator[bytes | None]:
        """Lines that are not blank, in bounded memory: one that cannot hold a document within the limit is None."""
        limit = 8 * self.max_bytes + 65536  # an escaped character takes up to six bytes, other fields some more
        for line in split_lines(self.chunks(self.files[index]), limit):
            if line is None or line.strip():
                yield line


def split_lines(chunks: Iterator[bytes], limit: int) -> Iterator[bytes | None]:
    r"""Lines without their ends (\n, \r\n or \r); one longer than `limit` bytes is None."""
    pending, too_long = b"", False
    for chunk in itertools.chain(chunks, [None]):
        last = chunk is None
        lines = (pending + (chunk or b"")).splitlines(keepends=True)
        # What may go on: a line without an end, or one whose "\r" may be half of "\r\n".
        pending = lines.pop() if lines and not last and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            text = line.rstrip(b"\r\n")
            yield None if too_long or len(text) > limit else text
            too_long = False
        if len(pending) > limit:
            pending, too_long = b"\r" if pending.endswith(b"\r") else b"", True
    if too_long:
        yield None


def _parse(line: bytes | None) -> tuple[Tree, str]:
    """(object, "") or ({}, what is wrong)."""
    if line is None:
        return {}, "too_large"
    if line.startswith(_UTF_16):
        return {}, "not_utf8"
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return {}, "not_utf8"
    except (ValueError, RecursionError):
        return {}, "not_json"
    return (record, "") if isinstance(record, dict) else ({}, "not_object")


class Parquet(Globbed):
    """Parquet files by glob, the document in one column. Needs the optional package pyarrow."""

    @functools.cached_property
    def _parquet(self) -> ModuleType:
        try:
            return importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise missing_package(self, "pyarrow") from error

    @functools.cached_property
    def _damages(self) -> tuple[type[Exception], ...]:
        """What pyarrow raises for damaged files, besides OSError without a number; sizes in them may be nonsense."""
        arrow = importlib.import_module("pyarrow")
        return (arrow.ArrowException, ValueError, TypeError, KeyError, IndexError, NotImplementedError, MemoryError)

    def fingerprint(self) -> Tree:
        found = super().fingerprint()
        columns: set[str] = set()
        damage: Exception | None = None
        for index in range(min(_FILES_LOOKED_AT, len(self.files))):
            try:
                with self._open(index) as file:
                    columns.update(file.schema_arrow.names)
            except READ_ERRORS as error:
                self.skip(self.files[index], START, error)
                damage = damage or error
            if self.spec.column in columns:
                return found
        if columns or not damage:
            raise wrong_column(self, columns)
        raise self.error(f"{self.files[0].path}: not a Parquet file ({' '.join(str(damage).split())})") from damage

    def read(self, start: Position = START) -> Iterator[Document]:
        for index in range(start[0], len(self.files)):
            row = start[1] if index == start[0] else 0
            try:
                with self._open(index) as file:
                    if self.spec.column not in file.schema_arrow.names:
                        yield Document(None, (index + 1, 0), "no_column")
                        continue
                    for value in self._values(file, row):
                        row += 1
                        yield _scalar_document(value, (index, row))
            except READ_ERRORS as error:
                yield self.skip(self.files[index], (index + 1, 0), error)

    @contextlib.contextmanager
    def _open(self, index: int) -> "Iterator[pyarrow.parquet.ParquetFile]":
        """The open file; what is wrong with its content, also while it is read, raises Damaged."""
        library = self._parquet
        if self.local and not self.files[index].size:
            raise Damaged("it is empty")
        with library_errors(), self.filesystem.open(self.files[index].path, "rb") as stream:
            try:
                yield library.ParquetFile(stream)
            except self._damages as error:
                raise Damaged(str(error)) from error
            except OSError as error:
                if error.errno is None and self.local:  # so pyarrow says "corrupt"
                    raise Damaged(str(error)) from error
                raise

    def _values(self, file: "pyarrow.parquet.ParquetFile", skip: int) -> "Iterator[pyarrow.Scalar]":
        """Scalars of the column from row `skip` on, one small batch in memory; whole row groups are skipped unread."""
        groups = list(range(file.num_row_groups))
        while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
            skip -= file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(batch_size=128, row_groups=groups, columns=[self.spec.column]):
            yield from batch.column(0).slice(min(skip, len(batch)))
            skip = max(0, skip - len(batch))


def _scalar_document(value: "pyarrow.Scalar", after: Position) -> Document:
    try:
        return row_document(value.as_py(), after)
    except UnicodeDecodeError:  # pyarrow does not check what it reads as text
        return Document(None, after, "not_utf8")
