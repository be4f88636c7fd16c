"""Corpora: sources, cleaning, tokenizer, shards, and batches by step."""

from sparse_gpt.data.batches import Corpus
from sparse_gpt.data.corpus import (
    as_prepared,
    corpus_folder,
    corpus_from_config,
    for_elsewhere,
    prepare_corpus,
    with_tokenizer_of,
)
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "Corpus",
    "Tokenizer",
    "as_prepared",
    "corpus_folder",
    "corpus_from_config",
    "for_elsewhere",
    "prepare_corpus",
    "train_tokenizer",
    "with_tokenizer_of",
]
