"""Training batches by step: batch s is a pure function of (corpus, split, seed, s), through grain.

A process can therefore compute only its own rows of the global batch, resume from nothing but a step number, and read
past the end of the data (which starts the next epoch, shuffled anew).
"""

import collections
import functools
import hashlib
import itertools
import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparse_gpt.data.cleaning import SPLITS
from sparse_gpt.data.shards import MANIFEST, Shard, TokenStream, read_manifest, verify_shards
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

if TYPE_CHECKING:  # grain imports JAX, which takes seconds: `_build` does so when batches are wanted
    import grain

READ_AHEAD = 4  # batches


class Corpus:
    """A prepared corpus. Open with `Corpus.open`.

    Attributes:
        folder: where it is.
        manifest: its manifest.json, parsed.
        sha256: of manifest.json, which holds the hash of every shard and of the tokenizer.
        tokenizer: the tokenizer its tokens belong to.
    """

    def __init__(self, folder: Path, manifest: Tree, tokenizer: Tokenizer, sha256: str):
        self.folder, self.manifest, self.tokenizer, self.sha256 = folder, manifest, tokenizer, sha256
        self._datasets: dict[tuple[str, int, int], grain.MapDataset] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: str | Path, verify: str = "auto") -> "Corpus":
        """Opens a prepared corpus; see `verify_shards` for `verify`.

        Raises:
            InputError: no corpus there, a shard is missing or damaged, or the tokenizer is not the manifest's.
        """
        folder = Path(folder).expanduser()
        manifest = read_manifest(folder)
        tokenizer = Tokenizer.load(folder / "tokenizer")
        if tokenizer.sha256 != manifest["tokenizer"]["sha256"]:
            raise InputError(
                f"{folder / 'tokenizer'}: SHA-256 {tokenizer.sha256[:12]}… is not the corpus's tokenizer "
                f"({manifest['tokenizer']['sha256'][:12]}…); restore it, or delete {folder} and prepare again"
            )
        verify_shards(folder, manifest, verify)
        return cls(folder, manifest, tokenizer, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest())

    def tokens(self, split: str = "train") -> int:
        """Number of tokens of a split, separators included."""
        return sum(shard["tokens"] for shard in self.manifest["shards"] if shard["split"] == split)

    def windows(self, split: str, seed: int, context: int) -> "grain.MapDataset":
        """The endless sequence of windows, int32 (context + 1,), of a split: indexable at any non-negative integer.

        Each source is shuffled by `seed` and epoch and repeated; sources alternate by their weights.

        Raises:
            InputError: unknown split, or no source has a whole window in it.
        """
        key = split, seed, context
        with self._lock:
            if key not in self._datasets:
                self._datasets[key] = self._build(split, seed, context)
            return self._datasets[key]

    def epoch(self, split: str, context: int) -> int:
        """How many of the first `windows` are enough to have had each window of the split at least once.

        With several sources a little more than that: grain makes whole numbers of their weights, the least of them 100
        (so a share is up to a hundredth smaller), and a source may be behind its share by a window for each other one.

        Raises:
            InputError: as `windows`.
        """
        streams = self._streams(split, context)
        if len(streams) == 1:
            return len(streams[0][1])
        weights = sum(weight for _, _, weight in streams)
        late = len(streams) - 1
        return max(math.ceil((len(stream) + late) * weights / weight / 0.99) for _, stream, weight in streams)

    def _build(self, split: str, seed: int, context: int) -> "grain.MapDataset":
        import grain

        streams = self._streams(split, context)
        parts = [
            grain.MapDataset.source(stream).shuffle(seed=_named_seed(seed, split, number)).repeat()
            for number, stream, _ in streams
        ]
        return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, [weight for _, _, weight in streams])

    def _streams(self, split: str, context: int) -> list[tuple[int, TokenStream, float]]:
        """Number, windows and weight of every source that has a window in a split."""
        if split not in SPLITS:
            raise InputError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
        shards = [Shard(**entry) for entry in self.manifest["shards"]]
        streams = []
        for number, source in enumerate(self.manifest["sources"]):
            own = [shard for shard in shards if shard.source == number and shard.split == split]
            stream = TokenStream(self.folder, own, self.manifest["dtype"], context)
            if len(stream):
                streams.append((number, stream, source["weight"]))
        if not streams:
            raise InputError(
                f"{self.folder}: the {split} split has {self.tokens(split)} tokens, less than one window of "
                f"{context + 1}; give more data, or a larger data.validation_fraction"
            )
        return streams

    def batch(self, split: str, seed: int, step: int, batch_size: int, context: int) -> np.ndarray:
        """Global batch number `step`: int32 (batch_size, context + 1); inputs are [:, :-1] and targets [:, 1:]."""
        return self._rows(self.windows(split, seed, context), step * batch_size, batch_size)

    @staticmethod
    def _rows(windows: "grain.MapDataset", start: int, count: int) -> np.ndarray:
        return np.stack([windows[row] for row in range(start, start + count)])

    def loader(
        self,
        split: str,
        seed: int,
        batch_size: int,
        context: int,
        start_step: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[np.ndarray]:
        """Endless iterator over this process's rows of batches start_step, start_step + 1, …, read ahead by a thread.

        `part` (p, n): process p of n gets rows [p·batch_size/n, (p+1)·batch_size/n) of the global batch that `batch`
        gives.

        Yields:
            int32 (batch_size / n, context + 1).

        Raises:
            InputError: n does not divide batch_size.
        """
        process_index, process_count = part
        if batch_size % process_count:
            raise InputError(f"train.batch_size={batch_size}: must be a multiple of the {process_count} processes")
        local = batch_size // process_count
        windows = self.windows(split, seed, context)

        def rows(step: int) -> np.ndarray:
            return self._rows(windows, step * batch_size + process_index * local, local)

        return _read_ahead(rows, start_step)


def _read_ahead(rows: Callable[[int], np.ndarray], start: int) -> Iterator[np.ndarray]:
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: collections.deque[Future[np.ndarray]] = collections.deque()
        steps = itertools.count(start)
        waiting.extend(pool.submit(rows, step) for step in itertools.islice(steps, READ_AHEAD))
        while True:
            ready = waiting.popleft().result()
            waiting.append(pool.submit(rows, next(steps)))
            yield ready


@functools.cache
def _named_seed(seed: int, split: str, source: int) -> int:
    """32 bits for one shuffle. grain adds the epoch to it, so that seeds 0, 1, 2… may not be used as they are."""
    name = json.dumps(["windows", seed, split, source]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big")
