"""Token shards: flat little-endian files of ids, memory-mapped for reading, and the manifest that vouches for them.

Why flat files and not ArrayRecord: training reads fixed-length windows at any offset and for any context length, so
the unit of random access is the token, not a record; two bytes per token leave nothing to compress; a memory map
shares pages between processes; and `numpy.fromfile` or any other language reads a shard without this project.
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_gpt.data.files import sha256_file
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, Tree, disk_errors, read_json, read_json_if_any, write_json
from sparse_gpt.records.corpus import CorpusManifest

MANIFEST = "manifest.json"
SHARD_TOKENS = 2**25  # 64 MiB of 16-bit ids
_ALWAYS_HASH_BELOW = 2**30  # bytes; larger corpora are hashed once and again when a file has changed


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 (little-endian) that holds every id."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


class Shard(NamedTuple):
    """One entry of the manifest: `tokens` ids of one source and split, in the file `name` with hash `sha256`."""

    name: str
    source: int
    split: str
    tokens: int
    sha256: str


class ShardWriter:
    """Appends documents of one source and split to numbered shards; a shard ends with the document that fills it.

    The shard being written is ``NAME.partial``. `state` after `flush` is what `__init__` needs to continue from there:
    whatever was written later, even whole shards, is truncated again.
    """

    def __init__(self, folder: Path, source: int, split: str, dtype: np.dtype, shard_tokens: int, state: Tree):
        self._folder, self._source, self._split, self._dtype = folder, source, split, dtype
        self._shard_tokens = shard_tokens
        self.shards = [Shard(*entry) for entry in state.get("shards", [])]
        self._open_tokens = int(state.get("open_tokens", 0))
        self._reopen()

    @property
    def _final(self) -> Path:
        return self._folder / f"{self._source:02d}-{self._split}-{len(self.shards):05d}.bin"

    @property
    def _partial(self) -> Path:
        return self._final.with_suffix(".partial")

    def _reopen(self) -> None:
        wanted = self._open_tokens * self._dtype.itemsize
        if self._final.exists():  # finished after the last flush
            os.replace(self._final, self._partial)
        keep = {shard.name for shard in self.shards} | {self._partial.name}
        for path in self._folder.glob(f"{self._source:02d}-{self._split}-*"):
            if path.name not in keep:
                path.unlink()
        with disk_errors(self._partial):
            self._file = self._partial.open("r+b" if self._partial.exists() else "w+b", buffering=2**20)
        size = os.fstat(self._file.fileno()).st_size
        if size < wanted:
            raise InputError(f"{self._partial}: {size} bytes where {wanted} were written; delete {self._folder.parent}")
        self._file.truncate(wanted)
        self._file.seek(wanted)

    def append(self, tokens: np.ndarray) -> None:
        """Adds the ids (n,) of one document, separator included."""
        try:
            self._file.write(tokens.astype(self._dtype, copy=False).data)
        except OSError:
            with disk_errors(self._partial):
                raise
        self._open_tokens += len(tokens)
        if self._open_tokens >= self._shard_tokens:
            self._finish()
            self._reopen()

    def flush(self) -> Tree:
        """Puts everything on the disk and returns the state to continue from."""
        with disk_errors(self._partial):
            self._file.flush()
            os.fsync(self._file.fileno())
        return {"shards": [list(shard) for shard in self.shards], "open_tokens": self._open_tokens}

    def close(self) -> list[Shard]:
        """Ends the last shard and returns all of them."""
        if self._open_tokens:
            self._finish()
        else:
            self._file.close()
            self._partial.unlink(missing_ok=True)
        return self.shards

    def abandon(self) -> None:
        """Closes the file without finishing the shard; what cannot be written any more is given up."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _finish(self) -> None:
        self.flush()
        self._file.close()
        shard = Shard(self._final.name, self._source, self._split, self._open_tokens, sha256_file(self._partial))
        os.replace(self._partial, self._final)
        self.shards.append(shard)
        self._open_tokens = 0


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_manifest(folder: Path) -> Tree:
    """The manifest of a corpus. Raises InputError if the folder has none, or one of another format."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise InputError(f"{folder}: no corpus there ({MANIFEST} is missing); prepare one with launch.data")
    manifest: Tree = read_json(path)
    CorpusManifest.from_tree(manifest, str(path))
    return manifest


def verify_shards(folder: Path, manifest: Tree, verify: str = "auto") -> None:
    """Raises InputError naming the first shard that is missing, truncated or altered.

    verify: "sizes" compares sizes only; "full" hashes every shard; "auto" hashes every shard of a corpus below 1 GiB,
        and of a larger one those whose size or modification time changed since they were last found right.
    """
    shards = [Shard(**entry) for entry in manifest["shards"]]
    itemsize = np.dtype(manifest["dtype"]).itemsize
    for shard in shards:
        _check_size(folder / "shards" / shard.name, shard.tokens * itemsize)
    if verify == "sizes":
        return
    small = sum(shard.tokens for shard in shards) * itemsize < _ALWAYS_HASH_BELOW
    known = {} if verify == "full" or small else _read_verified(folder)
    seen: dict[str, list[Json]] = {}
    for shard in shards:
        path = folder / "shards" / shard.name
        stamp = [shard.sha256, path.stat().st_size, path.stat().st_mtime_ns]
        if known.get(shard.name) != stamp and sha256_file(path) != shard.sha256:
            raise InputError(f"{path}: damaged (its SHA-256 differs from the manifest); restore it or prepare again")
        seen[shard.name] = stamp
    if not small and seen != known:
        _write_verified(folder, seen)


def _check_size(path: Path, wanted: int) -> None:
    if not path.is_file():
        raise InputError(f"{path}: missing; restore it, or delete {path.parent.parent} and prepare again")
    size = path.stat().st_size
    if size != wanted:
        raise InputError(
            f"{path}: damaged, {size} bytes instead of {wanted}; restore it, or delete {path.parent.parent} "
            "and prepare again"
        )


def _read_verified(folder: Path) -> dict[str, list[Json]]:
    path = folder / "verified.json"
    try:
        found: dict[str, list[Json]] = read_json_if_any(path)
    except InputError:  # damaged: every shard is hashed, and it is written anew
        return {}
    return found


def _write_verified(folder: Path, seen: dict[str, list[Json]]) -> None:
    with contextlib.suppress(InputError, OSError):  # a corpus on a read-only disk is hashed each time
        write_json(folder / "verified.json", seen)


class TokenStream:
    """The windows of one source and split: window w is `context` + 1 ids, of which the last begins window w + 1.

    A random-access source for grain: `len(stream)` windows, `stream[w]` int32 (context + 1,). Windows do not cross
    shards; what is left at a shard's end, less than one window, is not used.
    """

    def __init__(self, folder: Path, shards: list[Shard], dtype: str, context: int):
        self._maps = [np.memmap(folder / "shards" / shard.name, dtype, "r") for shard in shards]
        self._context = context
        counts = [max(0, (shard.tokens - 1) // context) for shard in shards]
        self._ends = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, window: int) -> np.ndarray:
        shard = int(np.searchsorted(self._ends, window, side="right")) - 1
        start = (window - int(self._ends[shard])) * self._context
        return self._maps[shard][start : start + self._context + 1].astype(np.int32)
