"""Simple, repetitive, varied and valid Python programs, generated from a seed (in the spirit of TinyStories).

generate(seed, index)           the index-th program of a seed: a pure function, the same bytes everywhere
documents(seed, start, stop)    the programs start, start + 1, ..., stop - 1
construct_counts(text)          how often each construct occurs in a program
"""

from sparse_gpt.data.idioms.counts import CONSTRUCTS, construct_counts
from sparse_gpt.data.idioms.program import documents, generate

__all__ = ["CONSTRUCTS", "construct_counts", "documents", "generate"]
