"""The revision in a manifest, and the reason where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt import machine
from sparse_gpt.records import converted
from sparse_gpt.records.run import Numerics
from sparse_gpt.training import manifest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("git", "revision", "reason"),
    [
        (f"echo '{REPOSITORY}'; echo abc", "abc", ""),
        (None, "", "git does not run"),
        ("exit 1", "", "git found no revision"),
        (
            "echo \"fatal: detected dubious ownership in repository at '/a'\" >&2; echo 'Add it' >&2; exit 128",
            "",
            "fatal: detected dubious ownership in repository at '/a'",
        ),
        ("echo 'fatal: not a git repository' >&2; exit 128", "", "fatal: not a git repository"),
        ("echo /; echo abc", "", "unpacked inside the checkout of something else, /"),
    ],
    ids=["checkout", "no git", "no word", "another's", "archive", "inside another"],
)
def test_a_manifest_says_why_it_has_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: str | None, revision: str, reason: str
) -> None:
    if git is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{git}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = manifest.describe({})
    assert found.git_revision == revision
    assert (found.git_revision_missing or "").startswith(reason)
    assert ("git_revision_missing" in found.tree()) == bool(reason)


def test_a_manifest_says_what_the_last_bits_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: Sample CPU\nflags\t\t: fpu avx2 fma avx512f\n\n")
    monkeypatch.setenv(machine.THREADS, "3")
    found = machine.numerics(tmp_path)
    assert found["processor"] == "Sample CPU"
    assert found["vector_extensions"] == ["avx2", "fma", "avx512f"]
    assert found["threads"] == 3
    assert manifest.describe({}).machine == converted(machine.numerics(), Numerics)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"processor": "Other CPU"}, "processor Other CPU there"),
        ({"threads": 77}, "threads 77 there"),
        ({"cores": 77}, ""),  # it is threads that count
    ],
)
def test_going_on_elsewhere_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    manifest.update(tmp_path, {"machine": {**machine.numerics(), **change}})
    note = manifest.other_machine(tmp_path)
    assert said in note
    assert bool(note) == bool(said)
    assert "\n" not in note


@pytest.mark.parametrize("facts", [{}, {"machine": None}, {"machine": {}}, {"machine": [1]}])
def test_a_manifest_of_an_older_version_names_no_machine(tmp_path: Path, facts: dict[str, Any]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    assert manifest.other_machine(tmp_path) == ""
