"""The revision in a manifest, and the reason where there is none."""

from pathlib import Path

import pytest

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
    assert found["git_revision"] == revision
    assert found.get("git_revision_missing", "").startswith(reason)
    assert ("git_revision_missing" in found) == bool(reason)
