"""One start of a preparation: takes up the state of an earlier one, if any, and brings the corpus to its end."""

import collections
import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import tqdm

from sparse_gpt import interruption
from sparse_gpt.data import problems
from sparse_gpt.data.ingest import Rules, Seen, SourceRun, sample_texts
from sparse_gpt.data.shards import MANIFEST, Shard, token_dtype
from sparse_gpt.data.sources import Source
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, disk_errors, write_json
from sparse_gpt.records import Part
from sparse_gpt.records.base import Count, read_checked
from sparse_gpt.records.corpus import CorpusManifest

PROGRESS = "progress.json"
_SAMPLE_BYTES = 2_000_000  # of text a tokenizer is trained on, or 2,000 per entry if that is more


_ShardEntry = tuple[str, Count, str, Count, str]


class _Counts(Part):
    documents: Count
    bytes: Count
    tokens: Count


class _Splits(Part):
    train: _Counts
    validation: _Counts
    test: _Counts


class _SourceEntry(Part):
    source: str
    splits: _Splits


class _Done(Part):
    shards: list[_ShardEntry]
    manifest: _SourceEntry


class _Writer(Part):
    shards: list[_ShardEntry]
    open_tokens: Count


class _Current(Part):
    position: list[Count] | None = None
    documents_read: Count | None = None
    dropped: dict[str, Count] | None = None
    splits: _Splits | None = None
    exhausted: bool | None = None
    writers: dict[str, _Writer] | None = None


class _Progress(Part):
    """progress.json: the state of an unfinished preparation."""

    settings: Tree
    fingerprints: list[Tree]
    done: dict[str, _Done]
    current: _Current
    seen_keys: Count


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


def compare(folder: Path, wanted: Settings, found: Tree, what: str = "a corpus") -> None:
    """Raises InputError naming the first setting in which the corpus in `folder` differs from the wanted one."""
    for name, value in dataclasses.asdict(wanted).items():
        if found.get(name) != value:
            raise InputError(
                f"{folder}: holds {what} with {name}={found.get(name)!r}, not {value!r}; "
                "give its settings, choose another folder, or delete this one"
            )


class UnusableSources(InputError):
    """No corpus can come of these sources: what was written of it is removed."""


def _nothing_left(source: Source, dropped: Mapping[str, int]) -> UnusableSources:
    reasons = problems.counts(dropped) or "nothing read"
    reason = "; ".join([f"no training document left after cleaning ({reasons})", *problems.advice(dropped)])
    return UnusableSources(f"data.sources: {source.spec.name}: {reason}")


class Preparation:
    """One start of a preparation: restores the state of an earlier one, if any, and brings it to the end."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        sources: list[Source],
        fingerprints: list[Tree],
        rules: Rules,
        given: Tokenizer | None,
    ):
        self._folder, self._settings, self._sources, self._rules = folder, settings, sources, rules
        self._fingerprints, self._given = fingerprints, given
        self._done: dict[str, Tree] = {}  # finished sources by number: entries for the manifest and shards
        self._current: SourceRun | None = None
        self._restored: Tree = {}
        self._seen_keys = 0
        self._restore()

    def _restore(self) -> None:
        if not (self._folder / PROGRESS).is_file():
            return
        state = read_checked(self._folder / PROGRESS, _Progress)
        compare(self._folder, self._settings, state["settings"], "an unfinished corpus")
        if len(state["fingerprints"]) != len(self._sources):
            raise InputError(f"{self._folder / PROGRESS}: damaged; delete {self._folder} to start over")
        for source, now, before in zip(self._sources, self._fingerprints, state["fingerprints"], strict=True):
            if now != before:
                raise InputError(
                    f"{self._folder}: {source.spec.name} has changed since this preparation was interrupted; "
                    "delete the folder to start over"
                )
        self._done, self._restored, self._seen_keys = state["done"], state["current"], state["seen_keys"]

    def run(self, workers: int, checkpoint_bytes: int, progress: bool) -> None:
        """Writes what is missing of the corpus, the manifest last.

        Raises:
            InputError: as `prepare_corpus`.
        """
        try:
            tokenizer = self._tokenizer()
            with disk_errors(self._folder):
                (self._folder / "shards").mkdir(exist_ok=True)
            self._seen = Seen(self._folder / "seen.bin", self._seen_keys)
            bar = tqdm.tqdm(
                total=self._settings.tokens or None,
                initial=self._training_tokens(),
                unit="token",
                unit_scale=True,
                desc="corpus",
                delay=1.0,
                disable=None if progress else True,
            )
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
        except UnusableSources:
            for name in ("tokenizer", "shards"):
                shutil.rmtree(self._folder / name, ignore_errors=True)
            for name in (PROGRESS, "seen.bin"):
                (self._folder / name).unlink(missing_ok=True)
            raise

    def _training_tokens(self) -> int:
        states = [entry["manifest"] for entry in self._done.values()] + [self._restored] * bool(self._restored)
        return sum(state["splits"]["train"]["tokens"] for state in states)

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
            sample = list(sample_texts(source, self._rules, max(1, int(size * source.spec.weight)), dropped))
            if not sample:
                raise _nothing_left(source, dropped)
            texts.extend(sample)
        try:
            return train_tokenizer(texts, self._settings.vocab_size)
        except InputError as error:
            raise UnusableSources(str(error)) from error

    def _target(self, number: int) -> int:
        source, tokens = self._sources[number], self._settings.tokens
        if tokens or not source.endless:
            return max(1, round(tokens * source.spec.weight)) if tokens else 0  # 0: everything
        finite = [n for n, other in enumerate(self._sources) if not other.endless]
        have = sum(self._done[str(n)]["manifest"]["splits"]["train"]["tokens"] for n in finite)
        return max(1, round(have * source.spec.weight / sum(self._sources[n].spec.weight for n in finite)))

    def _source(self, number: int, tokenizer: Tokenizer, workers: int, checkpoint_bytes: int, bar: "tqdm.tqdm") -> None:
        source = self._sources[number]
        self._current = run = SourceRun(
            self._folder / "shards",
            number,
            source,
            tokenizer,
            self._settings.shard_tokens,
            self._restored,
        )
        self._restored = {}
        with interruption.deferred(lambda at: 0.0):
            unsaved = 0
            for size, tokens in run.run(self._target(number), self._rules, self._seen, workers):
                bar.update(tokens)
                unsaved += size
                if unsaved >= checkpoint_bytes or interruption.requested():
                    self._save()
                    interruption.check()
                    unsaved = 0
            self._close(number, source, run)
            interruption.check()

    def _close(self, number: int, source: Source, run: SourceRun) -> None:
        """Takes up a source that has been read."""
        if not run.splits["train"]["documents"]:
            raise _nothing_left(source, run.dropped)
        self._done[str(number)] = {
            "shards": [list(shard) for shard in run.finish()],
            "manifest": {
                "source": source.spec.name,
                "weight": source.spec.weight,
                **self._fingerprints[number],
                "exhausted": run.exhausted,
                "documents_read": run.documents_read,
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
        write_json(self._folder / PROGRESS, state, alone=True)

    def _finish(self, tokenizer: Tokenizer) -> None:
        numbers = [str(number) for number in range(len(self._sources))]
        write_json(
            self._folder / MANIFEST,
            {
                "format": CorpusManifest.FORMAT,
                "settings": dataclasses.asdict(self._settings),
                "tokenizer": {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size},
                "dtype": token_dtype(tokenizer.vocab_size).str,
                "sources": [self._done[number]["manifest"] for number in numbers],
                "shards": [Shard(*shard)._asdict() for number in numbers for shard in self._done[number]["shards"]],
            },
            alone=True,
        )
        for name in (PROGRESS, "seen.bin"):
            (self._folder / name).unlink(missing_ok=True)
