"""What a progress bar promises."""

import io
import itertools
import sys
import time
from pathlib import Path

import pytest

from sparse_gpt import progress
from sparse_gpt.progress import ProgressBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; its only entry is the time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def rate(bar: ProgressBar) -> float:
    """Units per second from which the time left is reported."""
    return float(bar.format_dict["rate"])


def test_the_rate_is_that_of_most_spans(clock: list[float]) -> None:
    with ProgressBar(total=1000, file=io.StringIO()) as bar:
        for step in range(30):
            clock[0] += 40.0 if step == 10 else 2.0  # one checkpoint, say
            bar.update()
        assert rate(bar) == pytest.approx(0.5)
        for _ in range(15):  # more than half of the spans that count
            clock[0] += 1.0
            bar.update()
        assert rate(bar) == pytest.approx(1.0)


def test_updates_that_come_at_once_are_one_span_with_what_they_waited_for(clock: list[float]) -> None:
    """As in training: twenty steps are dispatched in no time, then the loop waits for the devices."""
    with ProgressBar(total=1000, file=io.StringIO()) as bar:
        for _, last in itertools.product(range(10), [False] * 19 + [True]):
            clock[0] += 4.0 if last else 0.001
            bar.update()
        assert rate(bar) == pytest.approx(5.0, rel=0.01)


def test_compiling_counts_for_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(total=10, desc="search x4", file=io.StringIO()) as bar:
        for step in range(4):
            with bar.compiling(step == 0):
                clock[0] += 60.0 if step == 0 else 1.0
            clock[0] += 1.0
            bar.update()
        assert bar.format_dict["rate"] == pytest.approx(1 / 2)
    assert "compiling search x4" in capsys.readouterr().err


def test_a_bar_that_is_off_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(total=10, desc="off", disable=True) as bar, bar.compiling():
        bar.update()
    with progress.compiling("a program", shown=False):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_few_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a bar that moves for over a second, and of something that compiles for over two; a person sees each move."""

    def said(name: str) -> int:
        with (tmp_path / name).open("w") as log, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", log)
            with ProgressBar(total=60) as bar:
                for _ in range(60):
                    time.sleep(0.02)
                    bar.update()
            with progress.compiling("a program"):
                time.sleep(2.3)
        return len((tmp_path / name).read_text().replace("\r", "\n").split())

    few = said("logged")
    monkeypatch.setattr(progress, "_is_logged", lambda: False)
    assert 0 < 2 * few < said("seen")
