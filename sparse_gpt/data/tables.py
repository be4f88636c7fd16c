"""Sources whose documents are one text column of many rows: JSONL, Parquet, Hugging Face datasets."""

import functools
import importlib
import json
from collections.abc import Iterator
from typing import Any

from sparse_gpt.data.sources import START, Document, Globbed, Position, Source
from sparse_gpt.errors import InputError


def _wrong_column(source: Source, columns: list[str]) -> InputError:
    listed = ", ".join(sorted(columns)) or "none"
    return InputError(f"data.sources: {source.spec.name}: no column {source.spec.column!r}; there are: {listed}")


def _row(value: Any, after: Position) -> Document:
    return Document(value, after) if isinstance(value, str) else Document(None, after, "no_text")


class JsonLines(Globbed):
    """JSONL files by glob (also .gz, .bz2, .xz): one object per line, the document in one of its fields."""

    def fingerprint(self) -> dict[str, Any]:
        for line in self._lines(0):
            first = _parse(line)
            if first is not None:
                if self.spec.column not in first:
                    raise _wrong_column(self, list(first))
                break
        return super().fingerprint()

    def read(self, start: Position = START) -> Iterator[Document]:
        for index in range(start[0], len(self.files)):
            skip = start[1] if index == start[0] else 0
            try:
                for row, line in enumerate(self._lines(index), 1):
                    if row > skip:
                        yield self._document(line, (index, row))
            except (OSError, EOFError):
                yield Document(None, (index + 1, 0), "unreadable")

    def _document(self, line: bytes | None, after: Position) -> Document:
        if line is None:
            return Document(None, after, "too_large")
        record = _parse(line)
        if record is None:
            return Document(None, after, "unreadable")
        return _row(record.get(self.spec.column), after)

    def _lines(self, index: int) -> Iterator[bytes | None]:
        """Lines of a file in bounded memory: one that cannot hold a document within the limit is given as None."""
        limit = 8 * self.max_bytes + 65536  # an escaped character takes up to six bytes, other fields some more
        with self.filesystem.open(self.files[index].path, "rb", compression="infer") as stream:
            while line := stream.readline(limit):
                whole = line.endswith(b"\n") or len(line) < limit
                while not whole:
                    rest = stream.readline(limit)
                    whole = not rest or rest.endswith(b"\n")
                    line = b""
                if not line:
                    yield None
                elif line.strip():
                    yield line


def _parse(line: bytes | None) -> dict[str, Any] | None:
    try:
        record = json.loads(line or b"")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _extra(source: Source, package: str) -> InputError:
    return InputError(f"data.sources: {source.spec.name}: needs the optional package {package}: pip install {package}")


class Parquet(Globbed):
    """Parquet files by glob, the document in one column. Needs the optional package pyarrow."""

    @functools.cached_property
    def _parquet(self) -> Any:
        try:
            return importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise _extra(self, "pyarrow") from error

    def fingerprint(self) -> dict[str, Any]:
        library = self._parquet
        with self.filesystem.open(self.files[0].path, "rb") as stream:
            try:
                columns = library.ParquetFile(stream).schema_arrow.names
            except (OSError, ValueError) as error:
                raise InputError(f"{self.files[0].path}: not a Parquet file ({error})") from error
        if self.spec.column not in columns:
            raise _wrong_column(self, columns)
        return super().fingerprint()

    def read(self, start: Position = START) -> Iterator[Document]:
        for index in range(start[0], len(self.files)):
            row = start[1] if index == start[0] else 0
            try:
                with self.filesystem.open(self.files[index].path, "rb") as stream:
                    for value in self._values(stream, row):
                        row += 1
                        yield _row(value, (index, row))
            except (OSError, ValueError, KeyError):
                yield Document(None, (index + 1, 0), "unreadable")

    def _values(self, stream: Any, skip: int) -> Iterator[Any]:
        """Values of the column from row `skip` on, one small batch in memory; whole row groups are skipped unread."""
        file = self._parquet.ParquetFile(stream)
        groups = list(range(file.num_row_groups))
        while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
            skip -= file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(batch_size=128, row_groups=groups, columns=[self.spec.column]):
            for value in batch.column(0).slice(min(skip, len(batch))):
                yield value.as_py()
            skip = max(0, skip - len(batch))


class HuggingFace(Source):
    """A dataset of the Hugging Face hub, streamed: ``hf=NAME`` or ``hf=NAME@CONFIG``. Needs the package datasets."""

    @functools.cached_property
    def _rows(self) -> Any:
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise _extra(self, "datasets") from error
        name, _, config = self.spec.location.partition("@")
        try:
            return datasets.load_dataset(name, config or None, split="train", streaming=True)
        except (OSError, ValueError) as error:
            raise InputError(f"data.sources: {self.spec.name}: cannot be opened ({error})") from error

    def fingerprint(self) -> dict[str, Any]:
        first = next(iter(self._rows), None)
        if first is None:
            raise InputError(f"data.sources: {self.spec.name}: the dataset is empty")
        if self.spec.column not in first:
            raise _wrong_column(self, list(first))
        return {"version": str(getattr(self._rows.info, "version", ""))}

    def read(self, start: Position = START) -> Iterator[Document]:
        for row, record in enumerate(self._rows.skip(start[1]), start[1] + 1):
            yield _row(record.get(self.spec.column), (0, row))
