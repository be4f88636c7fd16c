"""Signals that ask a script to end: it keeps what is finished and leaves with exit code 75, within seconds.

Everything that scripts write is whole or not at all, so a process may end at any moment without harm. What a signal
can cost is work that is not on disk yet, and there are three cases:

  - Python code runs and nothing is at stake: the handler raises `Interrupted`, scratch files go on the way out. While
    a module is imported the process ends at once: compiled modules do not survive an exception in what they call as
    they are loaded (nanobind's abort, or fault).
  - Work is at stake (training steps since the last checkpoint): inside `deferred` a signal is only noted. The body asks
    `requested`, saves and leaves.
  - A long call outside of Python (a compilation): handlers would run only after it. A thread is woken by the operating
    system at once, and ends the process when `PATIENCE` seconds, or those that `deferred` allows, have passed.

A second signal ends the process at once. Handlers are installed for scripts alone (see `installed`); in a notebook
only `deferred` listens, as long as it runs and if it runs in the main thread.
"""

import contextlib
import dataclasses
import functools
import importlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL: try again
LINE = "interrupted; saved; the same command resumes"
PATIENCE = 3.0  # seconds from the signal to the end, where nothing is at stake
AGAIN = 1.0  # seconds: a closed terminal sends two SIGHUP and some schedulers two signals at once, which count as one
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)

Patience = Callable[[float], float]  # when the signal came (time.monotonic) -> seconds that may pass since then


class Interrupted(KeyboardInterrupt):
    """A signal asks this script to end. Not an Exception, so that nothing takes it for a failure and goes on."""


@dataclasses.dataclass
class _State:
    """Of this process; there is one set of signal handlers."""

    number: int = 0  # of the first signal
    since: float = math.inf  # time.monotonic() of it
    clock: float = math.inf  # patience counts from here: `since`, or when a `deferred` body ended after it
    handlers: bool = False  # whether a script has installed them for good
    raising: bool = False  # whether anybody would catch Interrupted
    raised: bool = False  # once: another one could break into what cleans up after the first
    tell: int = -1  # file descriptor by which the watching thread learns of signals
    watching: threading.Thread | None = None
    patience: list[Patience] = dataclasses.field(default_factory=list)  # of the `deferred` bodies, innermost last

    def note(self, number: int) -> bool:
        """Takes the signal down; False if it is not the first."""
        if self.number:
            return False
        self.number, self.since = number, time.monotonic()
        self.clock = self.since
        return True


_state = _State()


def requested() -> bool:
    """Whether a signal has asked this process to end."""
    return bool(_state.number)


def check() -> None:
    """Raises Interrupted if a signal was noted: for the moment when work that was at stake is on disk."""
    if _state.number:
        raise Interrupted(LINE)


@contextlib.contextmanager
def deferred(patience: Patience = lambda at: math.inf) -> Iterator[None]:
    """In the body a signal is only noted; the body asks `requested` now and then, saves, and ends.

    Args:
      patience: given when the signal came (time.monotonic()), and asked again and again from then on: seconds since
        then after which the process is ended anyway, saved or not (at least PATIENCE). Default: however long it takes.
    """
    listens = not _state.handlers and threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if listens else ()
    previous = {number: signal.signal(number, _on_signal) for number in numbers}
    _state.patience.append(patience)
    try:
        yield
    finally:
        _state.patience.remove(patience)
        _state.clock = max(_state.clock, time.monotonic()) if _state.number else math.inf
        for number, handler in previous.items():
            signal.signal(number, handler)
        if listens and not _state.patience:
            _forget()


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """The part of a script whose caller catches Interrupted. Outside of it a signal ends the process directly."""
    _state.raising = True
    try:
        check()
        yield
    finally:
        _state.raising = False


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`install`, undone on leaving; nothing in other threads than the main one, or where it is installed already."""
    if _state.handlers or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    wakeup = install()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(_state.tell)
        if _state.watching:
            _state.watching.join()  # it may still be about to take down a signal, which would be the next script's
        sys.unraisablehook = hook
        for number, handler in previous.items():
            if handler is not None:
                signal.signal(number, handler)
        _state.handlers = False
        _forget()


def install() -> int:
    """Handles every signal of SIGNALS that the caller of this process did not choose to ignore (as nohup does), until
    the process ends. Returns the file descriptor that `signal.set_wakeup_fd` had before, -1 for none."""
    handle()
    _state.handlers = True
    sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
    signals, _state.tell = os.pipe()
    os.set_blocking(_state.tell, False)
    before = signal.set_wakeup_fd(_state.tell, warn_on_full_buffer=False)
    _state.watching = threading.Thread(target=_watch, args=(signals,), name="signals", daemon=True)
    _state.watching.start()
    return before


def is_installed() -> bool:
    """Whether this process is a script that handles signals for good."""
    return _state.handlers


def handle() -> None:
    """Puts the handlers in place, again after a library (JAX, on joining other processes) has put its own there."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """In the main thread, between two lines of Python."""
    # The watching thread is usually faster, so the first call of this function is what counts, not the first note.
    _state.note(number)
    if _state.patience or _state.raised:
        return
    if not _state.raising or _importing(frame):
        _end()
    _state.raised = True
    raise Interrupted(LINE)


def _importing(frame: FrameType | None) -> bool:
    """Whether this frame, or one that waits for it, belongs to an import."""
    while frame and frame.f_globals is not vars(importlib._bootstrap):
        frame = frame.f_back
    return frame is not None


def _unraisable(otherwise: "Callable[[sys.UnraisableHookArgs], object]", unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupted that was raised where Python has to drop it (a callback of the garbage collector, a destructor)."""
    if unraisable.exc_type is Interrupted:
        _end()
    otherwise(unraisable)


def _watch(signals: int) -> None:
    """Ends the process when its time is up, or on a second signal."""
    while numbers := os.read(signals, 64):
        for number in numbers:
            if number not in SIGNALS:
                continue
            # The kernel sends SIGXCPU every second once the time is up.
            if not _state.note(number) and time.monotonic() - _state.since >= AGAIN and number != signal.SIGXCPU:
                _end()
        while _state.number and not select.select([signals], [], [], 0.1)[0]:
            if time.monotonic() - _state.clock > _left():
                _end()
    os.close(signals)  # nobody writes any more, see `installed`


def _left() -> float:
    """Seconds that may pass from `_state.clock` on."""
    return max([PATIENCE] + [patience(_state.since) for patience in list(_state.patience)])


def _forget() -> None:
    _state.number, _state.since, _state.clock, _state.raised = 0, math.inf, math.inf, False


def _end() -> None:
    """Ends the process from any thread, whatever the others are in the middle of."""
    flushing = threading.Thread(target=_flush, daemon=True)  # a reader that does not read must not hold us up
    flushing.start()
    flushing.join(0.5)
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, ("\n" * os.isatty(2) + LINE + "\n").encode())
    os._exit(EXIT_CODE)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
