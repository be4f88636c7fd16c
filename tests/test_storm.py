"""A short storm, see tests/storm.py."""

import random
from pathlib import Path

import pytest

from tests.storm import JOBS, storm


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kills"), [("data", 2), ("train", 4)])
def test_kills_at_random_moments_change_nothing(tmp_path: Path, name: str, kills: int) -> None:
    job = next(job for job in JOBS if job.name == name)
    assert storm(job, tmp_path, kills, random.Random(0), None).hits == kills
