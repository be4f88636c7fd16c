"""Hashes that a preset gives; `launch.reproduce --experiment=hashes` compares them. Corpora and tokenizers are the same
on every machine and Python version, parameters on every machine of one kind.

A change of the generated programs, the cleaning, the tokenizer or the held-out samples changes them, and so does a
pin that `python -m tests.pin_sources` has followed. Then the experiment prints the new ones, to be put here with the
reason in the commit; otherwise a difference is a fault.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sparse_gpt.records import Manifest


class CorpusHashes(NamedTuple):
    """SHA-256 of a corpus's manifest.json, which holds the hash of every shard, and of its tokenizer."""

    corpus: str
    tokenizer: str


CORPORA: Mapping[str, CorpusHashes] = {
    "tiny": CorpusHashes(
        corpus="385fdfc0849babaee76d0c0bfa5de4895e5f484facdf33789be8123947ae6ee2",
        tokenizer="f5aea8914d05d6ce82424788df8030c3bcb20c85004e746ef3f6e99f9846a1ec",
    ),
    "quickstart": CorpusHashes(
        corpus="c51117adc95799ec5292bd785d6202e47f7165846f36d24c3fd5b6727ff52700",
        tokenizer="905b5fbe43047dcee424273181eb6c916eb71c462b31084d8d0ad498d8241011",
    ),
}
"""By preset."""


class Platform(NamedTuple):
    """What the last bits of a training depend on, beside configuration, corpus and code."""

    vector_extensions: str  # those of `machine.VECTORS`, separated by spaces
    jaxlib: str


def platform(manifest: Manifest) -> Platform:
    """Where a run was trained, from its manifest."""
    extensions = manifest.machine.vector_extensions if manifest.machine else ()
    return Platform(" ".join(extensions), manifest.packages.get("jaxlib", ""))


AVX2 = Platform("avx avx2 fma", "0.10.2")
AVX512 = Platform("avx avx2 fma avx512f avx512_bf16", "0.10.2")
PARAMETERS: Mapping[tuple[str, Platform], str] = {
    ("tiny", AVX2): "a0acd94601d1d325555bbf35aeef2f03da886b51b0f52d4da36263b33ee91b0e",
    ("quickstart", AVX2): "2af934243022afd25ff5d95824582fa566effe9917821b659a0f85120ef1bbb0",
    ("tiny", AVX512): "1aa9fd6c6e51767d06adfd8157c127cb498145a2ec17a90a4529055b3330d449",
    ("quickstart", AVX512): "228006d606b7077f7d91caaf8f9822552157d76e20269a81949cd6dc8bb98984",
}
"""params_sha256 by preset and platform, on two to four threads (one core counts as two, see surroundings.py)."""
