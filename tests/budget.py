"""A test that takes long says so: an unmarked one that needs over two seconds of processor time fails.

Processor time of this process and of those it has waited for, so that a busy machine fails no test. What counts as a
second is measured: a fixed loop is timed when the first test starts, and a slower machine has proportionally more.
"""

import functools
import resource
import time
from collections import Counter
from collections.abc import Iterator

import pytest

LIMIT = 2.0  # seconds of processor time, setup included
SLACK = 5.0  # compiling with every cache cold, next to another worker on the same core's threads
LOOP = 0.17  # seconds that `calibration` takes on the machine that LIMIT is meant for

spent = pytest.StashKey[float]()


def used() -> float:
    """Seconds of processor time so far."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@functools.cache
def allowed() -> float:
    """Seconds of processor time that an unmarked test may take on this machine."""
    return LIMIT * SLACK * max(1.0, min(calibration() for _ in range(3)) / LOOP)


def calibration() -> float:
    """Seconds of processor time of a fixed piece of work."""
    start, total = time.process_time(), 0
    for i in range(1_500_000):
        total += i * i % 7
    return time.process_time() - start


def too_long(seconds: float, limit: float, slow: bool) -> str | None:
    """What is wrong with a test that took `seconds`; None if nothing is."""
    if slow or seconds <= limit:
        return None
    return (
        f"took {seconds:.1f} s of processor time, setup included; at most {limit:.1f} s on this machine. "
        "Make it faster, or mark it or the fixture it waits for as slow"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[spent] = -used()
    try:
        return (yield)
    finally:
        item.stash[spent] += used()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    item.stash[spent] -= used()
    try:
        return (yield)
    finally:
        item.stash[spent] += used()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.passed:
        slow = item.get_closest_marker("slow") is not None
        if problem := too_long(item.stash[spent], allowed(), slow):
            report.outcome, report.longrepr = "failed", f"{item.nodeid}: {problem}"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that waits for a fixture in its module's SLOW_FIXTURES is slow. Files with many slow tests come first:
    started last, one of them would keep one worker busy when the others have nothing left."""
    for item in items:
        waits = set(getattr(item, "fixturenames", ())) & set(
            getattr(getattr(item, "module", None), "SLOW_FIXTURES", ())
        )
        if waits:
            item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
