"""The random numbers of the idiom generator: the same on every platform and every Python version.

A document's numbers are the output of SHAKE-128 (FIPS 202) over its seed and index, read as little-endian 16-bit
integers. `random` is not used because its helper methods have changed between Python releases, and hashing one block
per document is several times faster than stepping a generator written in Python.
"""

import hashlib
import itertools
import struct
from collections.abc import Callable

DRAW_BITS = 16
"""Every draw is an integer in [0, 2**DRAW_BITS)."""

_BLOCK = struct.Struct("<512H")


def draws(seed: int, index: int) -> Callable[[], int]:
    """A function whose successive calls return independent 16-bit integers, fixed by (seed, index).

    The stream never ends: further blocks are hashed as they are needed.
    """
    key = f"idioms {seed} {index} ".encode("ascii")

    def block(number: int) -> tuple[int, ...]:
        return _BLOCK.unpack(hashlib.shake_128(key + b"%d" % number).digest(_BLOCK.size))

    return itertools.chain.from_iterable(map(block, itertools.count())).__next__
