"""From sources to a corpus on disk: tokenizer, shards, manifest; interruptible at any moment.

Documents are read in order, cleaned and tokenized by threads in small groups, and consumed in order again: only the
consumer has state (duplicates seen, counts, open shards), so the result does not depend on the number of threads. The
state is written to ``progress.json`` every now and then; a later start drops what was written after that and goes
on, and ends with the same bytes. ``manifest.json`` comes last: where it is, the corpus is complete.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt import locks
from sparse_gpt.config import Config, DataConfig
from sparse_gpt.data.batches import Corpus
from sparse_gpt.data.builder import PROGRESS, Preparation, Settings, UnusableSources, compare
from sparse_gpt.data.cleaning import Rule
from sparse_gpt.data.ingest import Rules
from sparse_gpt.data.shards import MANIFEST, SHARD_TOKENS, read_manifest
from sparse_gpt.data.source_kinds import open_source
from sparse_gpt.data.spec import SourceSpec, parse_sources
from sparse_gpt.data.tokenizer import SMALLEST_VOCABULARY, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot

DECIDE_TEXTS = ("sources", "seed", "validation_fraction", "max_file_bytes", "near_duplicates")  # of data's fields


@dataclasses.dataclass(frozen=True)
class Work:
    """How the work of a preparation is divided; only the size of shards shows in the corpus.

    Attributes:
        workers: threads; 0: one per core.
        shard_tokens: size of shards.
        checkpoint_bytes: of text between two states to continue from.
    """

    workers: int = 0
    shard_tokens: int = SHARD_TOKENS
    checkpoint_bytes: int = 2**26


def with_tokenizer_of(workdir: Path, config: Config) -> Config:
    """In the workdir of a model, its configuration with the tokenizer that is there, unless it names one."""
    tokenizer = workdir / "tokenizer"
    if config.data.tokenizer or not (workdir / "config.json").is_file() or not tokenizer.is_dir():
        return config
    entries = Tokenizer.load(tokenizer).vocab_size  # an imported model may have room for more
    return configs.replace(config, {"data.tokenizer": str(tokenizer), "model.vocab_size": entries})


def corpus_folder(workdir: Path, config: Config) -> Path:
    """Where the corpus of a workdir's model is: the folder that `data.corpus` names, else the one in the workdir."""
    return Path(config.data.corpus).expanduser() if config.data.corpus else workdir / "corpus"


def as_prepared(folder: Path, config: Config) -> Config:
    """The configuration with what decided the texts of a prepared corpus, all but their amount: a run that names one
    may have other sources in its configuration, those of its preset.

    Raises:
        InputError: there is no corpus in `folder`.
    """
    held = read_manifest(folder)["settings"]
    found = {f"data.{name}": held[name] for name in DECIDE_TEXTS if name in held}
    if _canonical(parse_sources(config.data.sources)) == held.get("sources"):
        del found["data.sources"]
    return configs.replace(config, found)


def for_elsewhere(folder: Path, config: Config) -> Config:
    """The configuration of a model that leaves its machine: `as_prepared` with its corpus in `folder`, if that is
    still there, and without folders of this machine."""
    with contextlib.suppress(InputError):
        config = as_prepared(folder, config)
    return configs.without_folders(config)


def corpus_from_config(
    data: DataConfig, vocab_size: int, folder: str | Path, rule: Rule | None = None, progress: bool = True
) -> Corpus:
    """The corpus of a run: the prepared one that `data.corpus` names, else one prepared in `folder`.

    Raises:
        InputError: as `prepare_corpus`, or the prepared corpus has another vocabulary size.
    """
    if not data.corpus:
        return prepare_corpus(folder, data, vocab_size, rule, progress=progress)
    corpus = Corpus.open(data.corpus)
    if corpus.tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"data.corpus={data.corpus}: its tokenizer has {corpus.tokenizer.vocab_size} entries, the model "
            f"{vocab_size}; set --config.model.vocab_size={corpus.tokenizer.vocab_size}"
        )
    return corpus


def prepare_corpus(
    folder: str | Path,
    data: DataConfig,
    vocab_size: int,
    rule: Rule | None = None,
    *,
    progress: bool = True,
    work: Work = Work(),
) -> Corpus:
    """Prepares a corpus in `folder`, continues an interrupted preparation, or opens the complete corpus there.

    Args:
        folder: gets manifest.json, tokenizer/ and shards/.
        data: what it is made of. A source that has less than its share of `tokens` gives what it has; with 0 tokens,
            generated sources give as much as their weights say beside the others. Without a `tokenizer`, one is trained
            on the beginning of the training documents. `corpus` is not looked at.
        vocab_size: entries of the tokenizer.
        rule: documents to leave out.
        progress: whether to show a bar.
        work: how it is divided.

    Raises:
        InputError: unusable sources or tokenizer, a folder that holds a corpus of other settings or that another
            process is writing to, no documents left after cleaning, a full disk (run again to continue). The folder is
            left as it was, unless the same call could go on with what is in it.
    """
    folder, specs = Path(folder), parse_sources(data.sources)
    given = Tokenizer.load(data.tokenizer) if data.tokenizer else None
    _check_vocabulary(vocab_size, given, data.tokenizer)
    settings = _settings(data, specs, vocab_size, given, rule, work)
    if (folder / MANIFEST).is_file():
        compare(folder, settings, read_manifest(folder)["settings"])
        return Corpus.open(folder)
    if data.tokens == 0 and all(spec.kind == "idioms" for spec in specs):
        raise InputError(f"data.tokens=0: {settings.sources} has no end; say how many tokens to prepare")
    opened = [open_source(spec, data.seed, data.max_file_bytes) for spec in specs]
    fingerprints = [source.fingerprint() for source in opened]  # raises before anything is written
    rejects = rule.rejects if rule else None
    rules = Rules(data.max_file_bytes, data.validation_fraction, data.near_duplicates, rejects)
    _check_folder(folder)
    unusable = False
    with (
        locks.writing(folder, keep=True),
        Snapshot(folder).restore_if_refused(lambda: (folder / PROGRESS).is_file() and not unusable),
    ):
        if not (folder / MANIFEST).is_file():
            run = Preparation(folder, settings, opened, fingerprints, rules, given)
            try:
                run.run(work.workers or os.cpu_count() or 1, work.checkpoint_bytes, progress)
            except UnusableSources:
                unusable = True
                raise
    return Corpus.open(folder, verify="sizes")


def _settings(
    data: DataConfig,
    specs: Sequence[SourceSpec],
    vocab_size: int,
    given: Tokenizer | None,
    rule: Rule | None,
    work: Work,
) -> Settings:
    """What the corpus will depend on, in the form that its manifest has it."""
    return Settings(
        sources=_canonical(specs),
        seed=data.seed,
        tokens=data.tokens,
        vocab_size=vocab_size,
        tokenizer=given.sha256 if given else "trained",
        validation_fraction=data.validation_fraction,
        max_file_bytes=data.max_file_bytes,
        near_duplicates=data.near_duplicates,
        reject=rule.name if rule else "",
        shard_tokens=work.shard_tokens,
    )


def _canonical(specs: Sequence[SourceSpec]) -> str:
    """Sources and weights as the manifest has them."""
    return ",".join(f"{spec.name}:{spec.weight:.6g}" for spec in specs)


def _check_vocabulary(vocab_size: int, given: Tokenizer | None, folder: str | Path) -> None:
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(f"model.vocab_size={vocab_size}: a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}")
    if given and given.vocab_size != vocab_size:
        raise InputError(
            f"data.tokenizer={folder}: has {given.vocab_size} entries, the model {vocab_size}; "
            f"set --config.model.vocab_size={given.vocab_size}"
        )


def _check_folder(folder: Path) -> None:
    """A preparation clears what it finds half-made, so it only ever works in an empty folder or one of its own."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / locks.NAME).exists():
        raise InputError(f"{folder}: holds other files and no corpus; choose an empty or a new folder")
