"""Signals: a script saves and ends with 75 wherever it is; a notebook keeps its own handlers."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from launch import cli
from sparse_gpt import interruption
from sparse_gpt.interruption import LINE, SIGNALS, Interrupted, deferred, requested
from sparse_gpt.training import loop

REPOSITORY = Path(__file__).resolve().parent.parent
HEAD = """
import atexit, hashlib, math, os, signal, sys, threading, time
from sparse_gpt import interruption
from sparse_gpt.interruption import *
interruption.PATIENCE = 0.2
for number in SIGNALS:  # a shell lets what it starts in the background ignore some
    signal.signal(number, signal.SIG_DFL)
ready = lambda: print("ready", flush=True)
"""
LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # a call outside of Python of minutes, as a compilation is
SLEEPS = "    ready(); time.sleep(60)"
SAVES = """
with deferred():
    ready()
    while not requested():
        time.sleep(0.01)
    time.sleep(0.5)  # longer than PATIENCE
    print("stored", flush=True)
"""


def start(body: str, before: str = "") -> "subprocess.Popen[str]":
    """A process with the handlers installed, after `before`, which runs `body`."""
    process = subprocess.Popen(  # without site-packages it starts in milliseconds
        [sys.executable, "-S", "-c", f"{HEAD}{before}\ninterruption.install()\n{body}"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def stop(process: "subprocess.Popen[str]", *numbers: int) -> tuple[int, str, str]:
    """Exit code and output after signals."""
    for number in numbers:
        process.send_signal(number)
    with process:
        assert process.stdout
        assert process.stderr
        out, err = process.stdout.read(), process.stderr.read()
    return process.returncode, out, err


def test_a_signal_during_an_import_raises_nothing_in_it(tmp_path: Path) -> None:
    """What a module calls while it is loaded may be C++ that an exception ends with a fault."""
    swallows = "try:\n  time.sleep(60)\nexcept BaseException:\n  print('raised', flush=True)"
    (tmp_path / "loads.py").write_text(f"import time\nprint('ready', flush=True)\n{swallows}")
    body = f"sys.path.insert(0, {str(tmp_path)!r})\nwith raising():\n  import loads"
    assert stop(start(body), signal.SIGUSR1) == (75, "", LINE + "\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_ends_a_script_with_75(number: signal.Signals) -> None:
    assert stop(start("ready(); time.sleep(60)"), number) == (75, "", LINE + "\n")


@pytest.mark.parametrize(
    ("body", "out"),
    [
        (f"try:\n  with raising():\n{SLEEPS}\nexcept Interrupted:\n  print('tidied')\n  sys.exit(75)", "tidied\n"),
        (SAVES + "sys.exit(75)", "stored\n"),
        (SAVES + "time.sleep(60)", "stored\n"),  # whatever comes after it has PATIENCE, no more
        (SAVES + "try:\n  with raising():\n    print('never')\nexcept Interrupted:\n  sys.exit(75)", "stored\n"),
        (f"try:\n  with raising():\n    ready(); {LONG}\nexcept Interrupted:\n  sys.exit(75)", ""),
        (f"with deferred(lambda at: 0.0):\n    ready(); {LONG}", ""),
        (f"try:\n  with raising():\n{SLEEPS}\nexcept Interrupted:\n  time.sleep(60)", ""),
        (f"class Gone:\n  def __del__(self):\n{SLEEPS}\nwith raising():\n  Gone()\n  time.sleep(60)", ""),
    ],
    ids=[
        "python",
        "saving",
        "after saving",
        "next part",
        "native call",
        "native call, deferred",
        "swallowed",
        "destructor",
    ],
)
def test_one_signal_ends_every_phase(body: str, out: str) -> None:
    code, reported, err = stop(start(body), signal.SIGTERM)
    assert (code, reported) == (75, out)
    assert err in ("", LINE + "\n")


def test_a_second_signal_ends_at_once_and_a_closed_terminal_counts_once() -> None:
    slow = SAVES.replace("time.sleep(0.5)", "time.sleep(60)")
    faster = "interruption.AGAIN = 0\n"
    assert stop(start(faster + slow), signal.SIGHUP, signal.SIGTERM) == (75, "", LINE + "\n")
    code, out, _ = stop(start(SAVES + "sys.exit(75)"), signal.SIGHUP, signal.SIGHUP)
    assert (code, out) == (75, "stored\n")


def test_what_nohup_ignores_stays_ignored() -> None:
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert stop(start("ready(); time.sleep(60)", ignoring), signal.SIGHUP, signal.SIGUSR1)[0] == 75
    process = start("ready(); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)", ignoring)
    assert stop(process)[:2] == (0, "True\n")


def test_deferred_listens_in_a_notebook_and_leaves_nothing_behind() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with deferred():
        assert not requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert requested()
        with pytest.raises(Interrupted):
            interruption.check()
    assert not requested()
    interruption.check()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_deferred_in_another_thread_touches_no_handler() -> None:
    seen: list[object] = []

    def body() -> None:
        with deferred(), interruption.installed():
            seen.extend([signal.getsignal(signal.SIGTERM), requested()])

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM), False]


def test_installed_is_undone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruption.installed():
        assert signal.getsignal(signal.SIGUSR1) != before[SIGNALS.index(signal.SIGUSR1)]
        assert interruption.is_installed()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not interruption.is_installed()


def test_a_signal_seen_late_is_not_the_next_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_watch(signals: int) -> None:
        os.read(signals, 1)  # until the pipe is closed
        time.sleep(0.2)
        interruption._state.note(signal.SIGTERM)
        os.close(signals)

    monkeypatch.setattr(interruption, "_watch", slow_watch)
    with interruption.installed():
        watching = next(thread for thread in threading.enumerate() if thread.name == "signals")
    watching.join()
    assert not requested()


def test_a_script_turns_a_signal_into_one_line_and_75(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("goes on")

    with interruption.installed(), pytest.raises(SystemExit) as ended:
        cli._guarded(main)
    assert ended.value.code == 75
    assert capsys.readouterr().err == LINE + "\n"


@pytest.mark.parametrize(
    ("unsaved", "saving", "processes", "seconds"),
    [(None, False, 1, 0), (90.0, False, 1, 10), (None, True, 1, math.inf), (99.9, False, 8, math.inf)],
)
def test_training_waits_as_long_as_what_is_unsaved_took(
    monkeypatch: pytest.MonkeyPatch, unsaved: float | None, saving: bool, processes: int, seconds: float
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    running = SimpleNamespace(unsaved_since=unsaved, checkpoints=SimpleNamespace(is_saving=lambda: saving))
    assert loop.patience(running, at=100.0) == seconds  # type: ignore[arg-type]
