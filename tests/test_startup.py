"""How `launch.benchmark --parts=startup` times processes, on ones that do nothing else."""

import sys
from pathlib import Path

import pytest

from sparse_gpt.costs import startup
from sparse_gpt.errors import InputError


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_process_is_timed_until_its_file_has_a_line_and_then_ended(tmp_path: Path) -> None:
    code = f"import time; time.sleep(0.3); open({str(tmp_path / 'log')!r}, 'w').write('line'); time.sleep(60)"
    assert 0.3 <= startup._seconds(python(code), tmp_path, tmp_path / "log") < 60


def test_a_process_gets_the_cache_and_is_timed_until_its_end(tmp_path: Path) -> None:
    code = f"import os, time; time.sleep(0.2); assert os.environ['JAX_COMPILATION_CACHE_DIR'] == {str(tmp_path)!r}"
    assert startup._seconds(python(code), tmp_path) >= 0.2


@pytest.mark.parametrize(
    ("code", "until", "said"),
    [("print(1)", "log", "ended with 0 before its first step"), ("1 / 0", None, "ZeroDivisionError")],
)
def test_a_process_that_ends_too_early_is_one_line(tmp_path: Path, code: str, until: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        startup._seconds(python(code), tmp_path, tmp_path / until if until else None)


def test_each_round_has_a_cache_of_its_own_that_is_empty_first_and_then_warm(tmp_path: Path) -> None:
    seen: list[Path] = []

    def run(cache: Path) -> float:
        seen.append(cache)
        return float(len(seen))

    rows = startup._with_caches("it", run, tmp_path, 3)
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4] == seen[5]
    assert [(row["cache"], row["seconds"], row["least"]) for row in rows] == [("empty", 3.0, 1.0), ("warm", 4.0, 2.0)]
