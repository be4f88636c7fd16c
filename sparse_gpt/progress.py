"""What a person sees of long work: how much is done, at what rate, how much time is left; and what compiles."""

import contextlib
import os
import stat
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from tqdm import tqdm

_RECENT = 20  # spans of time whose median says how fast the work goes
_IN_A_FILE = 30.0  # seconds between two lines of a log, where nobody sees a bar move
_SHORTEST = 0.5  # seconds of a span: devices run behind, so that many updates come at once and then none


class ProgressBar(tqdm):
    """A tqdm bar whose rate, and time left, come from the median of recent spans of time.

    So one slow update (a checkpoint, an evaluation, another program that takes the processor for a while) does not
    change what is promised, and a lasting change soon does.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._spans: deque[float] = deque(maxlen=_RECENT)  # seconds per unit
        self._since, self._units = time.monotonic(), 0.0
        super().__init__(*args, **({"mininterval": _IN_A_FILE} if _is_logged() else {}) | kwargs)

    def update(self, n: float | None = 1) -> bool | None:
        self._units += n or 0
        now = time.monotonic()
        if self._units and now - self._since >= _SHORTEST:
            self._spans.append((now - self._since) / self._units)
            self._since, self._units = now, 0.0
        drawn: bool | None = super().update(n)
        return drawn

    @contextlib.contextmanager
    def compiling(self, really: bool = True) -> Iterator[None]:
        """The bar says that something compiles, for as many seconds as the body takes, which count for nothing else."""
        if not really or self.disable:
            yield
            return
        with compiling(self.desc.removesuffix(": ")):
            yield
        self.start_t = self._time()
        self._since, self._units = time.monotonic(), 0.0
        self.refresh()

    @property
    def format_dict(self) -> dict[str, object]:
        """What tqdm draws the bar from."""
        facts: dict[str, object] = super().format_dict
        return facts | ({"rate": 1 / statistics.median(self._spans)} if self._spans else {})


@contextlib.contextmanager
def compiling(what: str, shown: bool = True) -> Iterator[None]:
    """Says that `what` compiles, and for how many seconds, while the body waits for it."""
    if not shown:
        yield
        return
    bar = tqdm(desc=f"compiling {what}", bar_format="{desc} {elapsed}")
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_IN_A_FILE if _is_logged() else 1.0):
            bar.refresh()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        bar.close()


def _is_logged() -> bool:
    """Whether what is said goes into a file."""
    try:
        return stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or of a program that has no such thing
        return False
