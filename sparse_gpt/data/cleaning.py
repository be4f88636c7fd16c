"""What is left out of a corpus, and which split a document belongs to.

Stateless checks (size, encoding, secrets, a caller's own rule) and the keys for duplicate detection are pure
functions of one document, so that threads can do them; `SeenTable` is the only state.
"""

import hashlib
import mmap
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
SMALLEST_DOCUMENT = 16  # bytes; empty __init__.py files and the like teach nothing

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, also the beginning of UTF-32's

Reject = Callable[[str], bool]


class Rule(NamedTuple):
    """A caller's own rule: documents for which `rejects` is true are left out. `name` stands for it in the manifest."""

    rejects: Reject
    name: str


class Cleaned(NamedTuple):
    """One document after the stateless checks; `problem` is "", or a key of problems.PROBLEMS and the rest is empty."""

    problem: str
    text: str = ""
    split: str = ""
    bytes: int = 0
    keys: np.ndarray = np.zeros(0, np.uint64)  # keys[0]: whole content; the others: bands of the MinHash sketch


def clean(
    content: str | bytes,
    max_bytes: int,
    validation_fraction: float,
    near_duplicates: bool,
    reject: Reject | None = None,
) -> Cleaned:
    """Decodes, normalizes and checks one document.

    Line ends become "\\n" and a byte order mark is dropped. Documents that `reject` returns True for are left out.
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(data) > max_bytes:
        return Cleaned("too_large")
    if data.startswith(_UTF_16):  # would count as binary, for the zeros in it
        return Cleaned("not_utf8")
    if b"\0" in data:
        return Cleaned("binary")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Cleaned("not_utf8")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = text.encode()
    if len(data.strip()) < SMALLEST_DOCUMENT:
        return Cleaned("too_small")
    if has_secret(data):
        return Cleaned("secret")
    if reject is not None and reject(text):
        return Cleaned("rejected")
    digest = hashlib.sha256(data).digest()
    keys = np.frombuffer(digest[:8], "<u8")
    if near_duplicates:
        keys = np.concatenate([keys, sketch_bands(data)])
    return Cleaned("", text, split_of(digest, validation_fraction), len(data), keys)


def split_of(digest: bytes, validation_fraction: float) -> str:
    """The split of a document by the hash of its content; validation and test have the same expected share."""
    place = int.from_bytes(digest[8:16], "big") / 2**64
    if place < validation_fraction:
        return "validation"
    return "test" if place < 2 * validation_fraction else "train"


# ---------------------------------------------------------------------------------------------------------------------
# Secrets

# Well-known shapes only: a literal that is quick to look for, then the full pattern.
_SECRETS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = tuple(
    (literal, re.compile(pattern))
    for literal, pattern in (
        (b"PRIVATE KEY-----", rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=:,\- ]{16}"),
        (b"AKIA", rb"\bAKIA[0-9A-Z]{16}\b"),
        (b"ASIA", rb"\bASIA[0-9A-Z]{16}\b"),
        (b"ghp_", rb"\bghp_[A-Za-z0-9]{36}"),
        (b"gho_", rb"\bgho_[A-Za-z0-9]{36}"),
        (b"ghs_", rb"\bghs_[A-Za-z0-9]{36}"),
        (b"github_pat_", rb"\bgithub_pat_[A-Za-z0-9_]{40,}"),
        (b"glpat-", rb"\bglpat-[A-Za-z0-9_\-]{20}"),
        (b"xox", rb"\bxox[abprs]-[A-Za-z0-9\-]{20,}"),
        (b"AIza", rb"\bAIza[0-9A-Za-z_\-]{35}"),
        (b"sk-", rb"\bsk-(?:proj-|ant-)?[A-Za-z0-9_\-]{40,}"),
        (b"sk_live_", rb"\bsk_live_[0-9A-Za-z]{24,}"),
        (b"hf_", rb"\bhf_[A-Za-z0-9]{34}\b"),
        (b"npm_", rb"\bnpm_[A-Za-z0-9]{36}\b"),
        (b"pypi-", rb"\bpypi-[A-Za-z0-9_\-]{60,}"),
    )
)


def has_secret(data: bytes) -> bool:
    """Whether the bytes contain what looks like a private key or an access token of a well-known service."""
    return any(literal in data and pattern.search(data) for literal, pattern in _SECRETS)


# ---------------------------------------------------------------------------------------------------------------------
# Near-duplicates

_BINS, _BANDS = 64, 8  # 8 bands of 8 bins: documents of Jaccard similarity s share a band with 1-(1-s^8)^8,
#                        that is 13% at s=0.6, 78% at 0.8, 99% at 0.9
_SHINGLE = 32  # bytes other than white space
_SMALLEST_SKETCH = 256  # below so many shingles the sketch is too coarse to judge by
_WHITE = bytes(range(33))  # and control characters
_REST = np.uint64(2**58 - 1)  # a hash without the six bits that choose its bin
_EMPTY = np.uint64(2**64 - 1)
_ODD = tuple(np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection of uint64 that spreads every input bit."""
    x = (x ^ (x >> np.uint64(30))) * _ODD[1]
    x = (x ^ (x >> np.uint64(27))) * _ODD[2]
    return x ^ (x >> np.uint64(31))


def sketch_bands(data: bytes) -> np.ndarray:
    """Keys of the bands of a document's MinHash sketch: uint64 (8,), or (0,) when it is too short to judge.

    Shingles are all runs of 32 bytes with white space left out, so that formatting does not matter. The sketch is
    MinHash with one permutation (Li, Owen and Zhang 2012): every shingle is hashed once and falls into one of 64
    bins, of which each keeps its smallest hash; an empty bin takes the value of the next one that is not (Shrivastava
    and Li 2014). Two documents are near-duplicates when one of the 8 bands, of 8 bins each, is equal.
    """
    letters = data.translate(None, _WHITE)
    if len(letters) < _SMALLEST_SKETCH + _SHINGLE:
        return np.zeros(0, np.uint64)
    hashes = _mix(np.ndarray(len(letters) - 7, "<u8", letters, strides=(1,)))  # a word of eight bytes at every byte
    for width in (8, 16):  # position matters: the right half is multiplied
        hashes = hashes[:-width] + hashes[width:] * _ODD[0]
    hashes = _mix(hashes)
    # Only about eight candidates per bin: its smallest hash is nearly surely (1 - e^-8) one of them.
    rest = hashes & _REST
    hashes = hashes[rest < np.uint64(min(2**58, 2**58 * 8 * _BINS // len(hashes)))]
    bins = np.full(_BINS, _EMPTY)
    np.minimum.at(bins, (hashes >> np.uint64(58)).astype(np.intp), hashes & _REST)
    bands = _fill_empty(bins).reshape(_BANDS, _BINS // _BANDS)
    keys = np.arange(1, _BANDS + 1, dtype=np.uint64)
    for column in bands.T:
        keys = _mix(keys * _ODD[0] + column)
    return keys


def _fill_empty(bins: np.ndarray) -> np.ndarray:
    filled = np.flatnonzero(bins != _EMPTY)
    following = filled[np.searchsorted(filled, np.arange(len(bins))) % len(filled)]
    distance = (following - np.arange(len(bins))) % len(bins)
    return bins[following] + distance.astype(np.uint64) * _ODD[0]


class SeenTable:
    """A set of 64-bit keys in bounded memory.

    Keys live in buckets of eight; a full bucket forgets its oldest key. Up to about half of `capacity` practically
    nothing is forgotten; beyond, the oldest documents' duplicates begin to slip through. Memory is taken as it fills:
    at most 8.125 bytes × capacity (the default: 273 MB, enough for two million documents with near-duplicates).
    """

    WAYS = 8

    def __init__(self, capacity: int = 2**25):
        buckets = max(1, capacity // self.WAYS)
        # An anonymous map, because NumPy asks for huge pages: the first touches of a table of its own would each
        # clear two megabytes.
        self._keys = np.frombuffer(mmap.mmap(-1, 8 * buckets * self.WAYS), np.uint64).reshape(buckets, self.WAYS)
        self._next = np.zeros(buckets, np.uint8)

    def _buckets(self, keys: np.ndarray) -> np.ndarray:
        return (keys % np.uint64(len(self._keys))).astype(np.intp)

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Which of `keys` (n,) are in the set: bool (n,)."""
        return (self._keys[self._buckets(keys)] == keys[:, None]).any(axis=1)

    def add(self, keys: np.ndarray) -> None:
        """Adds `keys` (n,) in order; the same keys in other portions give the same table."""
        buckets = self._buckets(keys)
        if len(keys) > 1 and len(np.unique(buckets)) < len(buckets):  # two at once would take the same place
            for start in range(len(keys)):
                self.add(keys[start : start + 1])
            return
        way = self._next[buckets]
        self._keys[buckets, way] = keys
        self._next[buckets] = (way + 1) % self.WAYS


def duplicate_problem(seen: SeenTable, keys: np.ndarray) -> str:
    """ "" and `keys` added to `seen`, or "duplicate" or "near_duplicate" and `seen` unchanged."""
    found = seen.contains(keys)
    if found.any():
        return "duplicate" if found[0] else "near_duplicate"
    seen.add(keys)
    return ""
