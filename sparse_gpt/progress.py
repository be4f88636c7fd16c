"""What a person sees of long work: how much is done, at what rate, how much time is left; and what compiles."""

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

_RECENT = 50  # updates whose median says how fast the work goes


class ProgressBar(tqdm):
    """A tqdm bar whose rate, and time left, come from the median of recent updates.

    So one slow update (a checkpoint, an evaluation, another program that takes the processor for a while) does not
    change what is promised, and a lasting change does within fifty.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._durations: deque[float] = deque(maxlen=_RECENT)
        self._updated = time.monotonic()
        super().__init__(*args, **kwargs)

    def update(self, n: float | None = 1) -> Any:
        now = time.monotonic()
        if n:
            self._durations.append((now - self._updated) / n)
            self._updated = now
        return super().update(n)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm draws the bar from."""
        facts: dict[str, Any] = super().format_dict
        median = statistics.median(self._durations) if self._durations else 0.0
        return facts | {"rate": 1 / median if median > 0 else None}


@contextlib.contextmanager
def compiling(what: str, shown: bool = True) -> Iterator[None]:
    """Says that `what` compiles, and for how many seconds, while the body waits for it."""
    if not shown:
        yield
        return
    bar: Any = tqdm(desc=f"compiling {what}", bar_format="{desc} {elapsed}")
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1.0):
            bar.refresh()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        bar.close()
