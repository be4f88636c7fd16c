"""From sources to a corpus on disk: tokenizer, shards, manifest; interruptible at any moment.

Documents are read in order, cleaned and tokenised by threads in small groups, and consumed in order again: only the
consumer has state (duplicates seen, counts, open shards), so the result does not depend on the number of threads. The
state is written to ``progress.json`` every now and then; a later start cuts off what was written after that and goes
on, and ends with the same bytes. ``manifest.json`` comes last: where it is, the corpus is complete.
"""

import collections
import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tqdm

from sparse_gpt.config import DataConfig
from sparse_gpt.data.cleaning import Reject
from sparse_gpt.data.files import disk_errors, read_json, write_json
from sparse_gpt.data.pipeline import Corpus
from sparse_gpt.data.shards import FORMAT, MANIFEST, SHARD_TOKENS, Shard, read_manifest, token_dtype
from sparse_gpt.data.sources import Source, open_source
from sparse_gpt.data.spec import parse_sources
from sparse_gpt.data.tokenise import Rules, Seen, SourceRun, sample_texts
from sparse_gpt.data.tokenizer import SMALLEST_VOCABULARY, Tokenizer, train_tokenizer
from sparse_gpt.errors import InputError

PROGRESS = "progress.json"
_CHECKPOINT_BYTES = 2**26  # of text between two writings of the state
_SAMPLE_BYTES = 2_000_000  # of text a tokenizer is trained on, or 2,000 per entry if that is more


@dataclasses.dataclass(frozen=True)
class Settings:
    """What determines a corpus, besides the content of its sources; stored in the manifest."""

    sources: str  # canonical: weights sum to 1
    seed: int
    tokens: int
    vocab_size: int
    tokenizer: str  # "trained", or the SHA-256 of a given one
    validation_fraction: float
    max_file_bytes: int
    near_duplicates: bool
    reject: str  # name of the rule that leaves documents out, "" for none
    shard_tokens: int


def corpus_from_config(
    data: DataConfig, vocab_size: int, folder: str | Path, reject: Reject | None = None, reject_name: str = "",
    progress: bool = True,
) -> Corpus:  # fmt: skip
    """The corpus of a run: the prepared one that `data.corpus` names, else one prepared in `folder`.

    Raises:
        InputError: as `prepare_corpus`, or the prepared corpus has another vocabulary size.
    """
    if data.corpus:
        corpus = Corpus.open(data.corpus)
        if corpus.tokenizer.vocab_size != vocab_size:
            raise InputError(
                f"data.corpus={data.corpus}: its tokenizer has {corpus.tokenizer.vocab_size} entries, the model "
                f"{vocab_size}; set --config.model.vocab_size={corpus.tokenizer.vocab_size}"
            )
        return corpus
    return prepare_corpus(
        folder,
        data.sources,
        data.seed,
        data.tokens,
        vocab_size,
        tokenizer_folder=data.tokenizer,
        validation_fraction=data.validation_fraction,
        max_file_bytes=data.max_file_bytes,
        near_duplicates=data.near_duplicates,
        reject=reject,
        reject_name=reject_name,
        progress=progress,
    )


def prepare_corpus(
    folder: str | Path,
    sources: str,
    seed: int,
    tokens: int,
    vocab_size: int,
    *,
    tokenizer_folder: str | Path = "",
    validation_fraction: float = 0.02,
    max_file_bytes: int = 200_000,
    near_duplicates: bool = True,
    reject: Reject | None = None,
    reject_name: str = "",
    progress: bool = True,
    workers: int = 0,
    shard_tokens: int = SHARD_TOKENS,
    checkpoint_bytes: int = _CHECKPOINT_BYTES,
) -> Corpus:
    """Prepares a corpus in `folder`, continues an interrupted preparation, or opens the complete corpus there.

    Args:
        folder: gets manifest.json, tokenizer/ and shards/.
        sources: mixture, see `spec.parse_sources`.
        seed: orders files and generates idioms.
        tokens: training tokens to prepare, shared among sources by weight; a source that has less gives what it has.
            0: everything (generated sources in proportion to the others).
        vocab_size: entries of the tokenizer.
        tokenizer_folder: a tokenizer to use; "": train one on the beginning of the training documents.
        validation_fraction: expected share of documents in the validation split, and as many in the test split.
        max_file_bytes: longer documents are left out.
        near_duplicates: also leave out near-duplicates, not only exact ones (see `cleaning.sketch_bands`).
        reject: documents for which it returns True are left out; reject_name stands for it in the manifest.
        progress: show a bar on stderr.
        workers: threads; 0: one per core. The result does not depend on it.
        shard_tokens, checkpoint_bytes: size of shards, and of text between two states to continue from.

    Raises:
        InputError: unusable sources or tokenizer, a folder that holds a corpus of other settings, no documents left
            after cleaning, a full disk (run again to continue).
    """
    folder = Path(folder)
    specs = parse_sources(sources)
    given = Tokenizer.load(tokenizer_folder) if tokenizer_folder else None
    _check_vocabulary(vocab_size, given, tokenizer_folder)
    settings = Settings(
        sources=",".join(f"{spec.name}:{spec.weight:.6g}" for spec in specs),
        seed=seed,
        tokens=tokens,
        vocab_size=vocab_size,
        tokenizer=given.sha256 if given else "trained",
        validation_fraction=validation_fraction,
        max_file_bytes=max_file_bytes,
        near_duplicates=near_duplicates,
        reject=reject_name or ("given" if reject else ""),
        shard_tokens=shard_tokens,
    )
    if (folder / MANIFEST).is_file():
        _compare(folder, settings, read_manifest(folder)["settings"])
        return Corpus.open(folder)
    if tokens == 0 and all(spec.kind == "idioms" for spec in specs):
        raise InputError(f"data.tokens=0: {settings.sources} has no end; say how many tokens to prepare")
    opened = [open_source(spec, seed, max_file_bytes) for spec in specs]
    fingerprints = [source.fingerprint() for source in opened]  # raises before anything is written
    rules = Rules(max_file_bytes, validation_fraction, near_duplicates, reject)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        if not (folder / MANIFEST).is_file():
            run = _Preparation(folder, settings, opened, fingerprints, rules, given)
            run.run(workers or os.cpu_count() or 1, checkpoint_bytes, progress)
    return Corpus.open(folder, verify="sizes")


def _check_vocabulary(vocab_size: int, given: Tokenizer | None, folder: str | Path) -> None:
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(f"model.vocab_size={vocab_size}: a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}")
    if given and given.vocab_size != vocab_size:
        raise InputError(
            f"data.tokenizer={folder}: has {given.vocab_size} entries, the model {vocab_size}; "
            f"set --config.model.vocab_size={given.vocab_size}"
        )


def _compare(folder: Path, wanted: Settings, found: dict[str, Any], what: str = "a corpus") -> None:
    for name, value in dataclasses.asdict(wanted).items():
        if found.get(name) != value:
            raise InputError(
                f"{folder}: holds {what} with {name}={found.get(name)!r}, not {value!r}; "
                "give its settings, choose another folder, or delete this one"
            )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with disk_errors(folder), (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is preparing this corpus; wait for it") from error
        yield


class _Unusable(InputError):
    """No corpus can come of these sources: what was written of it is removed."""


def _nothing_left(source: Source, dropped: Mapping[str, int]) -> _Unusable:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "nothing read"
    return _Unusable(f"data.sources: {source.spec.name}: no training document left after cleaning ({reasons})")


class _Preparation:
    """One start of a preparation: restores the state of an earlier one, if any, and brings it to the end."""

    def __init__(
        self, folder: Path, settings: Settings, sources: list[Source], fingerprints: list[dict[str, Any]],
        rules: Rules, given: Tokenizer | None,
    ):  # fmt: skip
        self._folder, self._settings, self._sources, self._rules = folder, settings, sources, rules
        self._fingerprints, self._given = fingerprints, given
        self._done: dict[str, dict[str, Any]] = {}  # finished sources by number: entries for the manifest and shards
        self._current: SourceRun | None = None
        self._current_number = -1
        self._restored: dict[str, Any] = {}
        self._seen_keys = 0
        self._restore()

    def _restore(self) -> None:
        if not (self._folder / PROGRESS).is_file():
            return
        state = read_json(self._folder / PROGRESS)
        _compare(self._folder, self._settings, state["settings"], "an unfinished corpus")
        for source, now, before in zip(self._sources, self._fingerprints, state["fingerprints"], strict=True):
            if now != before:
                raise InputError(
                    f"{self._folder}: {source.spec.name} has changed since this preparation was interrupted; "
                    "delete the folder to start over"
                )
        self._done, self._restored, self._seen_keys = state["done"], state["current"], state["seen_keys"]

    def run(self, workers: int, checkpoint_bytes: int, progress: bool) -> None:
        try:
            tokenizer = self._tokenizer()
            with disk_errors(self._folder):
                (self._folder / "shards").mkdir(exist_ok=True)
            self._seen = Seen(self._folder / "seen.bin", self._seen_keys)
            bar = tqdm.tqdm(
                total=self._settings.tokens or None, unit="token", unit_scale=True, desc="corpus", delay=1.0,
                disable=not progress,
            )  # fmt: skip
            try:
                for number in self._order():
                    if str(number) not in self._done:
                        self._source(number, tokenizer, workers, checkpoint_bytes, bar)
            finally:
                bar.close()
                self._seen.close()
                if self._current:
                    self._current.abandon()
            self._finish(tokenizer)
        except _Unusable:
            for name in ("tokenizer", "shards"):
                shutil.rmtree(self._folder / name, ignore_errors=True)
            for name in (PROGRESS, "seen.bin"):
                (self._folder / name).unlink(missing_ok=True)
            raise

    def _order(self) -> list[int]:
        """Sources that end come first: with tokens=0 they determine how much of the others is generated."""
        return sorted(range(len(self._sources)), key=lambda number: self._sources[number].endless)

    def _tokenizer(self) -> Tokenizer:
        folder = self._folder / "tokenizer"
        if self._done or self._restored:
            return Tokenizer.load(folder)
        shutil.rmtree(folder, ignore_errors=True)
        tokenizer = self._given or self._train_tokenizer()
        tokenizer.save(folder)
        return tokenizer

    def _train_tokenizer(self) -> Tokenizer:
        size = max(_SAMPLE_BYTES, 2000 * self._settings.vocab_size)
        if self._settings.tokens:
            size = min(size, max(500_000, 4 * self._settings.tokens))
        texts = []
        for source in self._sources:
            dropped: collections.Counter[str] = collections.Counter()
            sample = list(sample_texts(source, self._rules, int(size * source.spec.weight), dropped))
            if not sample:
                raise _nothing_left(source, dropped)
            texts.extend(sample)
        try:
            return train_tokenizer(texts, self._settings.vocab_size)
        except InputError as error:
            raise _Unusable(str(error)) from error

    def _target(self, number: int) -> int:
        source, tokens = self._sources[number], self._settings.tokens
        if tokens or not source.endless:
            return round(tokens * source.spec.weight)
        finite = [n for n, other in enumerate(self._sources) if not other.endless]
        have = sum(self._done[str(n)]["manifest"]["splits"]["train"]["tokens"] for n in finite)
        return max(1, round(have * source.spec.weight / sum(self._sources[n].spec.weight for n in finite)))

    def _source(
        self, number: int, tokenizer: Tokenizer, workers: int, checkpoint_bytes: int, bar: "tqdm.tqdm[Any]"
    ) -> None:
        source = self._sources[number]
        self._current_number = number
        self._current = run = SourceRun(
            self._folder / "shards", number, source, tokenizer, self._settings.shard_tokens,
            token_dtype(tokenizer.vocab_size), self._restored,
        )  # fmt: skip
        self._restored = {}
        run.run(self._target(number), self._rules, self._seen, workers, self._save, checkpoint_bytes, bar.update)
        if not run.splits["train"]["documents"]:
            raise _nothing_left(source, run.dropped)
        self._done[str(number)] = {
            "shards": [list(shard) for shard in run.finish()],
            "manifest": {
                "source": source.spec.name,
                "weight": source.spec.weight,
                **self._fingerprints[number],
                "exhausted": run.exhausted,
                "documents_read": run.read["documents"],
                "dropped": dict(sorted(run.dropped.items())),
                "splits": run.splits,
            },
        }
        self._current = None
        self._save()

    def _save(self) -> None:
        state = {
            "settings": dataclasses.asdict(self._settings),
            "fingerprints": self._fingerprints,
            "done": self._done,
            "current": self._current.state() if self._current else {},
            "seen_keys": self._seen.flush(),
        }
        write_json(self._folder / PROGRESS, state)

    def _finish(self, tokenizer: Tokenizer) -> None:
        numbers = [str(number) for number in range(len(self._sources))]
        write_json(
            self._folder / MANIFEST,
            {
                "format": FORMAT,
                "settings": dataclasses.asdict(self._settings),
                "tokenizer": {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size},
                "dtype": token_dtype(tokenizer.vocab_size).str,
                "sources": [self._done[number]["manifest"] for number in numbers],
                "shards": [Shard(*shard)._asdict() for number in numbers for shard in self._done[number]["shards"]],
            },
        )
        for name in (PROGRESS, "seen.bin"):
            (self._folder / name).unlink(missing_ok=True)
