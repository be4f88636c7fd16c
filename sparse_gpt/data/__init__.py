"""Corpora: sources, cleaning, tokenizer, shards, and batches by step."""

from sparse_gpt.data.batches import Corpus
from sparse_gpt.data.corpus import corpus_from_config, prepare_corpus, with_tokenizer_of
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer

__all__ = ["Corpus", "Tokenizer", "corpus_from_config", "prepare_corpus", "train_tokenizer", "with_tokenizer_of"]
