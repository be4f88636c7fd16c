"""One source at a time: documents in, shards and counts out, with a state that can be written down and resumed."""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_gpt.data.cleaning import SPLITS, Cleaned, Reject, SeenTable, clean, duplicate_problem
from sparse_gpt.data.shards import Shard, ShardWriter, token_dtype
from sparse_gpt.data.sources import START, Document, Position, Source
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, disk_errors

_GROUP_BYTES, _GROUP_DOCUMENTS = 2**18, 256  # what a thread is given at a time


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides which documents are kept, and where; see `cleaning.clean`."""

    max_bytes: int
    validation_fraction: float
    near_duplicates: bool
    reject: Reject | None = None

    def apply(self, source: Source, document: Document) -> Cleaned:
        """The document after the stateless checks."""
        if document.content is None:
            return Cleaned(document.problem)
        near = self.near_duplicates and not source.generated
        return clean(document.content, self.max_bytes, self.validation_fraction, near, self.reject)


class _Ready(NamedTuple):
    """A document that needs only the duplicate check before it is written."""

    cleaned: Cleaned
    tokens: np.ndarray
    after: Position


_NO_TOKENS = np.zeros(0, np.uint32)


def _work(source: Source, documents: list[Document], rules: Rules, tokenizer: Tokenizer) -> list[_Ready]:
    """Cleans and tokenizes a group; a pure function, run in threads."""
    result = []
    for document in documents:
        cleaned = rules.apply(source, document)
        tokens = _NO_TOKENS if cleaned.problem else tokenizer.encode_array(cleaned.text)
        result.append(_Ready(cleaned._replace(text=""), tokens, document.after))
    return result


def _groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.content or "")
        if size >= _GROUP_BYTES or len(group) >= _GROUP_DOCUMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def ready_documents(
    source: Source, start: Position, rules: Rules, tokenizer: Tokenizer, workers: int
) -> Iterator[_Ready]:
    """Cleaned and tokenized documents in order, from `start` on; at most 2 · workers groups are in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="tokenize") as pool:
        waiting: collections.deque[Future[list[_Ready]]] = collections.deque()
        groups = _groups(source.read(start))
        try:
            for group in groups:
                waiting.append(pool.submit(_work, source, group, rules, tokenizer))
                if len(waiting) >= 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def sample_texts(source: Source, rules: Rules, size: int, dropped: "collections.Counter[str]") -> Iterator[str]:
    """Texts of training documents from the start of a source, about `size` bytes, to train a tokenizer on.

    Why documents were left out is counted in `dropped`.
    """
    rules = dataclasses.replace(rules, near_duplicates=False)
    for document in source.read():
        if size <= 0:
            return
        cleaned = rules.apply(source, document)
        if cleaned.problem:
            dropped[cleaned.problem] += 1
        elif cleaned.split == "train":
            size -= cleaned.bytes
            yield cleaned.text


class Seen:
    """The duplicates table with a log of its keys on disk, from which a later start rebuilds it."""

    def __init__(self, path: Path, keys: int):
        """Args: `path` is the log, in the folder of the corpus; `keys` are how many an earlier start has put there.

        Raises:
            InputError: the log is shorter than that.
        """
        self._path, self.keys, self._table = path, keys, SeenTable()
        with disk_errors(path):
            size = path.stat().st_size if path.exists() else 0
            if size < 8 * keys:
                raise InputError(f"{path}: {size} bytes where {8 * keys} were written; delete {path.parent}")
            self._file = path.open("r+b" if path.exists() else "w+b")
        while keys > 0:
            block = np.frombuffer(self._file.read(8 * min(keys, 64)), "<u8")
            self._table.add(block)
            keys -= len(block)
        self._file.truncate(8 * self.keys)
        self._log: list[np.ndarray] = []

    def problem(self, keys: np.ndarray) -> str:
        """ "" and remembers the document, or why it is left out."""
        found = duplicate_problem(self._table, keys)
        if not found:
            self._log.append(keys)
            self.keys += len(keys)
        return found

    def flush(self) -> int:
        """Puts the log on the disk and returns the number of keys in it."""
        if self._log:
            with disk_errors(self._path):
                self._file.write(np.concatenate(self._log).astype("<u8").tobytes())
                self._file.flush()
                os.fsync(self._file.fileno())
            self._log = []
        return self.keys

    def close(self) -> None:
        """Closes the log."""
        with contextlib.suppress(OSError):
            self._file.close()


class SourceRun:
    """Tokenizes one source into `folder`, from a state given by `checkpoint` of an earlier start, or from {}."""

    def __init__(
        self,
        folder: Path,
        number: int,
        source: Source,
        tokenizer: Tokenizer,
        shard_tokens: int,
        state: Tree,
    ):
        self._source, self._tokenizer, self._dtype = source, tokenizer, token_dtype(tokenizer.vocab_size)
        self._position: Position = tuple(state.get("position", START))
        self.documents_read: int = state.get("documents_read", 0)
        self.dropped: dict[str, int] = state.get("dropped", {})
        self.splits: dict[str, dict[str, int]] = state.get(
            "splits", {split: {"documents": 0, "bytes": 0, "tokens": 0} for split in SPLITS}
        )
        self.exhausted: bool = state.get("exhausted", False)
        writers = state.get("writers", {})
        self._writers = {
            split: ShardWriter(folder, number, split, self._dtype, shard_tokens, writers.get(split, {}))
            for split in SPLITS
        }

    def run(self, target: int, rules: Rules, seen: Seen, workers: int) -> Iterator[tuple[int, int]]:
        """Reads on until `target` training tokens are written (0: everything there is). After each document, `state`
        can be taken.

        Yields:
            Bytes of the document's text, and the training tokens that were written of it.
        """
        separator = np.array([self._tokenizer.eot_id], self._dtype)
        if not self._wants_more(target):
            return
        for ready in ready_documents(self._source, self._position, rules, self._tokenizer, workers):
            problem = ready.cleaned.problem or seen.problem(ready.cleaned.keys)
            self.documents_read += 1
            before = self.splits["train"]["tokens"]
            if problem:
                self.dropped[problem] = self.dropped.get(problem, 0) + 1
            else:
                self._write(ready, separator)
            self._position = ready.after
            yield ready.cleaned.bytes, self.splits["train"]["tokens"] - before
            if not self._wants_more(target):
                return
        self.exhausted = True

    def _wants_more(self, target: int) -> bool:
        return not self.exhausted and not (target and self.splits["train"]["tokens"] >= target)

    def _write(self, ready: _Ready, separator: np.ndarray) -> None:
        split = ready.cleaned.split
        self._writers[split].append(np.concatenate([ready.tokens.astype(self._dtype), separator]))
        counts = self.splits[split]
        counts["documents"] += 1
        counts["bytes"] += ready.cleaned.bytes
        counts["tokens"] += len(ready.tokens) + 1

    def state(self) -> Tree:
        """Everything needed to go on from here; what is written so far is on the disk when this returns."""
        return {
            "position": list(self._position),
            "documents_read": self.documents_read,
            "dropped": self.dropped,
            "splits": self.splits,
            "exhausted": self.exhausted,
            "writers": {split: writer.flush() for split, writer in self._writers.items()},
        }

    def finish(self) -> list[Shard]:
        """Ends the open shards and returns all shards of the source."""
        return [shard for writer in self._writers.values() for shard in writer.close()]

    def abandon(self) -> None:
        """Closes files without finishing; for use after an error."""
        for writer in self._writers.values():
            writer.abandon()
