"""manifest.json of a corpus. Its SHA-256 is that of the corpus: data/builder.py writes it, and its bytes must not
change."""

from pathlib import Path
from typing import Annotated, ClassVar

from msgspec import Meta

from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.records.base import Count, Part, Record, Tokens, older

Split = Annotated[str, Meta(pattern="^(train|validation|test)$", extra={"expected": "one of train, validation, test"})]


class CorpusTokenizer(Part):
    """What the texts were turned into tokens by."""

    sha256: str
    """SHA-256 of the tokenizer."""
    vocab_size: Count
    """Its entries."""


class SplitCounts(Part):
    """Counts of one split of a source."""

    train: dict[str, Count]
    """Documents, bytes and tokens."""
    validation: dict[str, Count]
    """Documents, bytes and tokens."""
    test: dict[str, Count]
    """Documents, bytes and tokens."""


class CorpusSource(Part):
    """One source of texts. Its fingerprint stands beside these fields, under names that depend on its kind."""

    source: str
    """Its name."""
    weight: float
    """Share of the training tokens."""
    exhausted: bool | None = None
    """Whether all of it was read."""
    documents_read: Count = older(0)
    """Documents that were looked at."""
    dropped: dict[str, Count] = older({})
    """Reason -> documents that were left out for it."""
    splits: SplitCounts
    """What is in the corpus."""


class CorpusShard(Part):
    """A flat little-endian file of token ids, under shards/."""

    name: str
    """Its file name."""
    source: Count
    """Number of the source, from 0."""
    split: Split
    """Which split it belongs to."""
    tokens: Tokens
    """Ids in it."""
    sha256: str
    """SHA-256 of the file."""

    def __post_init__(self) -> None:
        """InputError if the name would lead out of the folder."""
        if Path(self.name).name != self.name or "\0" in self.name:
            raise InputError(f"the name of a shard is {ascii(self.name)[:40]}, expected a file's name")


class CorpusManifest(Record):
    """What a corpus is made of, and the hash of every shard."""

    FILE: ClassVar[str] = "corpus/manifest.json"
    FORMAT: ClassVar[str] = "sparse_gpt.corpus/1"
    REMEDY: ClassVar[str] = "prepare it again"

    settings: Tree
    """What determines it, besides the content of its sources."""
    tokenizer: CorpusTokenizer
    """Under tokenizer/."""
    dtype: Annotated[str, Meta(pattern="^<u[24]$", extra={"expected": "<u2 or <u4"})]
    """Of the ids, as numpy names it."""
    sources: tuple[CorpusSource, ...]
    """In the order of the mixture."""
    shards: tuple[CorpusShard, ...]
    """In the order of sources and splits."""
