"""Source of the Hugging Face hub: ``hf=NAME[@CONFIG][?data_dir=FOLDER&revision=COMMIT&split=NAME]#COLUMN``."""

import contextlib
import functools
import importlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparse_gpt.data.sources import START, Document, Position, Source
from sparse_gpt.data.tables import missing_package, row_document, wrong_column
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

if TYPE_CHECKING:
    import datasets

OPTIONS = ("data_dir", "revision", "split")
_ROWS_LOOKED_AT = 32


class HuggingFace(Source):
    """A dataset of the hub, streamed. Needs the optional package datasets."""

    def _location(self) -> tuple[str, str, dict[str, str]]:
        """Name, configuration ("" for none) and options."""
        name, _, query = self.spec.location.partition("?")
        name, _, config = name.partition("@")
        options: dict[str, str] = {}
        for part in query.split("&") if query else ():
            option, _, value = part.partition("=")
            if option not in OPTIONS or not value or option in options:
                raise InputError(
                    f"data.sources: {self.spec.name}: {part!r}: each of {', '.join(OPTIONS)} can be given once after "
                    f"the question mark, as in hf={name}?data_dir=FOLDER&revision=COMMIT"
                )
            options[option] = value
        return name, config, options

    @contextlib.contextmanager
    def _errors(self, what: str, way_out: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # datasets raises nearly anything, RuntimeError for data it cannot find among it
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise InputError(f"data.sources: {self.spec.name}: {what} ({reason}); {way_out}") from error

    @functools.cached_property
    def _rows(self) -> "datasets.IterableDataset":
        name, config, options = self._location()
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise missing_package(self, "datasets") from error
        way_out = f"say which part: hf={name}@CONFIG, or hf={name}?data_dir=FOLDER&revision=COMMIT&split=NAME"
        with self._errors("cannot be opened", way_out):
            return datasets.load_dataset(name, config or None, **{"split": "train", "streaming": True, **options})

    def fingerprint(self) -> Tree:
        rows = self._rows
        with self._errors("cannot be read", "try again, or say which part: data_dir, revision, split"):
            first = list(itertools.islice(iter(rows), _ROWS_LOOKED_AT))
        if not first:
            raise InputError(f"data.sources: {self.spec.name}: the dataset is empty")
        columns = {column for record in first for column in record}
        if self.spec.column not in columns:
            raise wrong_column(self, columns)
        return {"version": str(getattr(rows.info, "version", ""))}

    def read(self, start: Position = START) -> Iterator[Document]:
        rows = self._rows
        with self._errors("cannot be read on", "run the same command again, it continues"):
            for row, record in enumerate(rows.skip(start[1]), start[1] + 1):
                if self.spec.column in record:
                    yield row_document(record[self.spec.column], (0, row))
                else:
                    yield Document(None, (0, row), "no_column")
