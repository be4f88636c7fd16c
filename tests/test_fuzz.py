"""The listed cases of tests/fuzz.py and some drawn ones, always the same; `python -m tests.fuzz` runs more of them."""

import itertools
from pathlib import Path
from typing import NoReturn

import pytest

from sparse_gpt.errors import InputError
from tests import fuzz, fuzz_scripts

DRAWN = 1500


def assert_none_fails(cases: "fuzz.Iterator[fuzz.Case]", at_least: int) -> None:
    count, failed = fuzz.run(cases, say=lambda line: None)
    assert not failed, "python -m tests.fuzz ...\n" + "\n".join(failed[:20])
    assert count >= at_least


@pytest.mark.slow
def test_fields_and_files_take_or_refuse_what_they_are_given() -> None:
    assert_none_fails(fuzz.listed(scripts=False), at_least=4000)


@pytest.mark.slow
def test_drawn_cases_are_taken_or_refused() -> None:
    assert_none_fails(itertools.islice(fuzz.drawn(seed=0), DRAWN), at_least=DRAWN)


SCRIPTS = [case for case in fuzz.listed() if case.name.startswith("scripts/")]


@pytest.mark.slow
@pytest.mark.parametrize("script", fuzz_scripts.SCRIPTS)
def test_scripts_take_or_refuse_where_they_are_to_work(script: str) -> None:
    cases = [case for case in SCRIPTS if case.what.startswith(f"{script} ")]
    assert_none_fails(iter(cases), at_least=len(fuzz_scripts.PLACES))


def test_a_case_can_be_repeated_by_its_name() -> None:
    first, again = (list(itertools.islice(fuzz.drawn(seed=3), 20)) for _ in range(2))
    assert first == again
    names = [case.name for case in itertools.chain(fuzz.listed(), first)]
    assert len(set(names)) == len(names)


def _many_lines(folder: Path) -> NoReturn:
    raise InputError("first\nsecond")


def _wait(folder: Path) -> NoReturn:
    raise fuzz.Hung("still running")


@pytest.mark.parametrize(
    ("run", "part"), [(lambda folder: 1 / 0, "ZeroDivisionError"), (_many_lines, "2 lines"), (_wait, "still running")]
)
def test_what_is_not_as_promised_fails(run: "fuzz.Callable[[Path], object]", part: str) -> None:
    assert part in fuzz.outcome(fuzz.Case("a", "b", run))


@pytest.mark.parametrize("code", ['open("new.txt", "w").close(); raise InputError("x")', "1 / 0", 'print(end="")'])
def test_a_script_that_breaks_a_promise_is_found(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch import report

    monkeypatch.setattr(report, "main", lambda: exec(code))
    case = (report.__name__.removeprefix("launch."), "workdir", "no/such", tmp_path)
    if code.startswith("print"):
        fuzz_scripts.check(*case)
    else:
        with pytest.raises(AssertionError):
            fuzz_scripts.check(*case)
