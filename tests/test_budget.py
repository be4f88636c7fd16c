"""The guard against long tests, and when it keeps quiet."""

import pytest

from tests import budget

pytest_plugins = ["pytester"]

MODULE = """
import pytest, time
SLOW_FIXTURES = {"trained"}

def work():
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass

@pytest.fixture
def prepared():
    work()

@pytest.fixture
def trained():
    work()

def test_long(): work()
def test_long_setup(prepared): pass
@pytest.mark.slow
def test_marked(): work()
def test_marked_by_its_fixture(trained): pass
def test_short(): time.sleep(0.1)  # of no processor's time
"""


@pytest.mark.parametrize(
    ("seconds", "slow", "fails"), [(9.9, False, False), (10.1, False, True), (99.0, True, False)], ids=str
)
def test_what_is_too_long(seconds: float, slow: bool, fails: bool) -> None:
    assert (budget.too_long(seconds, 10.0, slow) is not None) == fails


@pytest.mark.slow
def test_an_unmarked_test_that_takes_long_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(MODULE)
    options = ("-p", "tests.budget", "-p", "no:cacheprovider", "-W", "default", "-o", "markers=slow", "-q")
    with monkeypatch.context() as patch:  # undone before the guard looks at this test
        patch.setattr(budget, "allowed", lambda: 0.05)
        every, chosen = (pytester.runpytest_inprocess(*options, *more) for more in ((), ("-m", "slow")))
    every.assert_outcomes(passed=3, failed=2, warnings=1)
    every.stdout.fnmatch_lines(["*test_long: took * s of processor time, setup included; at most * s on this machine*"])
    chosen.assert_outcomes(passed=2, deselected=3, warnings=1)


def test_files_with_many_slow_tests_come_first(pytester: pytest.Pytester) -> None:
    one = "import pytest\n\n@pytest.mark.slow\ndef test_one(): pass\ndef test_quick(): pass\n"
    pytester.makepyfile(
        test_a="def test_quick(): pass", test_b=one, test_c=one + "@pytest.mark.slow\ndef test_two(): pass"
    )
    options = ("-p", "tests.budget", "-p", "no:cacheprovider", "-o", "markers=slow", "--collect-only", "-q")
    found = pytester.runpytest_inprocess(*options)
    found.stdout.fnmatch_lines(["test_c.py::test_one", "test_c.py::test_quick", "test_c.py::test_two", "test_b.py::*"])
    assert "test_a.py::test_quick" in found.outlines[5]


def test_a_slower_machine_is_allowed_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for measured, expected in ((budget.LOOP / 2, 1), (budget.LOOP, 1), (3 * budget.LOOP, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(budget, "calibration", lambda measured=measured: measured)
            assert budget.allowed.__wrapped__() == pytest.approx(expected * budget.LIMIT * budget.SLACK)
