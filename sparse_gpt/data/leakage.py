"""A rule that keeps evaluation samples out of training data: does a document contain any of many given texts?"""

import collections
import re
from collections.abc import Callable, Iterable

import numpy as np

_ANCHOR = 8  # bytes, compared as one 64-bit word
_TABLE_BITS = 20
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def contains_any(samples: Iterable[str]) -> Callable[[str], bool]:
    """A function that tells whether one of `samples` occurs anywhere in a text.

    Exact, and fast however many samples there are: of each sample the eight bytes that are rarest among all samples
    serve as its anchor, and a text is searched for samples only where it contains their anchor. Samples shorter than
    that must stand as whole words.
    """
    texts = sorted({sample.encode() for sample in samples if sample})
    short = [(text, _as_words(text)) for text in texts if len(text) < _ANCHOR]
    by_anchor = _by_rarest_anchor([text for text in texts if len(text) >= _ANCHOR])
    table = np.zeros(2**_TABLE_BITS, bool)
    table[_slots(np.array(list(by_anchor), np.uint64))] = True

    def occurs(text: str) -> bool:
        data = text.encode("utf-8", "surrogatepass")
        if any(sample in data and words.search(data) for sample, words in short):
            return True
        windows = _windows(data)
        for anchor in np.unique(windows[table[_slots(windows)]]).tolist():
            if any(sample in data for sample in by_anchor.get(anchor, ())):
                return True
        return False

    return occurs


def _as_words(sample: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?<!\w)" + re.escape(sample) + rb"(?!\w)")


def _windows(data: bytes) -> np.ndarray:
    """All runs of eight bytes as uint64 (n - 7,): a view, by reading a word at every byte."""
    return np.ndarray(max(0, len(data) - _ANCHOR + 1), "<u8", data, strides=(1,))


def _slots(windows: np.ndarray) -> np.ndarray:
    return ((windows * _SPREAD) >> np.uint64(64 - _TABLE_BITS)).view(np.int64)


def _by_rarest_anchor(samples: list[bytes]) -> dict[int, list[bytes]]:
    counts: collections.Counter[int] = collections.Counter()
    for sample in samples:
        counts.update(_windows(sample).tolist())
    result: dict[int, list[bytes]] = {}
    for sample in samples:
        anchor = min(_windows(sample).tolist(), key=lambda window: counts[window])
        result.setdefault(anchor, []).append(sample)
    return result
