"""Random choices that are the same on every platform and Python version: a counter, hashed."""

import hashlib
import struct
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_WORDS_PER_BLOCK = 8  # BLAKE2b gives 64 bytes
_BLOCK = struct.Struct(f"<{_WORDS_PER_BLOCK}Q")


class Randomness:
    """A stream of choices that is a pure function of the key."""

    def __init__(self, *key: str | int):
        """key: anything that names the stream; different keys give unrelated streams."""
        self._key = hashlib.blake2b(repr(key).encode()).digest()
        self._count = 0
        self._block: tuple[int, ...] = ()

    def below(self, n: int) -> int:
        """A whole number in [0, n). The bias, n / 2^64, is nothing to us."""
        place = self._count % _WORDS_PER_BLOCK
        if place == 0:
            self._block = _BLOCK.unpack(hashlib.blake2b(self._count.to_bytes(8, "little"), key=self._key).digest())
        self._count += 1
        return self._block[place] * n >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.below(len(items))]
