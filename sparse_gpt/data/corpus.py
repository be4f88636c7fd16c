"""From sources to a corpus on disk: tokenizer, shards, manifest; interruptible at any moment.

Documents are read in order, cleaned and tokenised by threads in small groups, and consumed in order again: only the
consumer has state (duplicates seen, counts, open shards), so the result does not depend on the number of threads. The
state is written to ``progress.json`` every now and then; a later start cuts off what was written after that and goes
on, and ends with the same bytes. ``manifest.json`` comes last: where it is, the corpus is complete.
"""

import os
from pathlib import Path

from sparse_gpt import locks
from sparse_gpt.config import DataConfig
from sparse_gpt.data.batches import Corpus
from sparse_gpt.data.builder import PROGRESS, Preparation, Settings, UnusableSources, compare
from sparse_gpt.data.cleaning import Reject
from sparse_gpt.data.ingest import Rules
from sparse_gpt.data.shards import MANIFEST, SHARD_TOKENS, read_manifest
from sparse_gpt.data.source_kinds import open_source
from sparse_gpt.data.spec import parse_sources
from sparse_gpt.data.tokenizer import SMALLEST_VOCABULARY, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot

_CHECKPOINT_BYTES = 2**26  # of text between two writings of the state


def corpus_from_config(
    data: DataConfig,
    vocab_size: int,
    folder: str | Path,
    reject: Reject | None = None,
    reject_name: str = "",
    progress: bool = True,
) -> Corpus:
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
        InputError: unusable sources or tokenizer, a folder that holds a corpus of other settings or that another
            process is writing to, no documents left after cleaning, a full disk (run again to continue). The folder is
            left as it was, unless the same call could go on with what is in it.
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
        compare(folder, settings, read_manifest(folder)["settings"])
        return Corpus.open(folder)
    if tokens == 0 and all(spec.kind == "idioms" for spec in specs):
        raise InputError(f"data.tokens=0: {settings.sources} has no end; say how many tokens to prepare")
    opened = [open_source(spec, seed, max_file_bytes) for spec in specs]
    fingerprints = [source.fingerprint() for source in opened]  # raises before anything is written
    rules = Rules(max_file_bytes, validation_fraction, near_duplicates, reject)
    _check_folder(folder)
    unusable = False
    with (
        locks.writing(folder, keep=True),
        Snapshot(folder).restore_if_refused(lambda: (folder / PROGRESS).is_file() and not unusable),
    ):
        if not (folder / MANIFEST).is_file():
            run = Preparation(folder, settings, opened, fingerprints, rules, given)
            try:
                run.run(workers or os.cpu_count() or 1, checkpoint_bytes, progress)
            except UnusableSources:
                unusable = True
                raise
    return Corpus.open(folder, verify="sizes")


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
