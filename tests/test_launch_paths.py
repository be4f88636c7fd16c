"""Every flag that names a folder or a file refuses what cannot be one, in one line and before anything is written."""

import os
from pathlib import Path

import pytest

from tests.inprocess import launch_here
from tests.test_launch import one_line

# script, flags it needs, flags that name a path; {} is a folder with a file `here` in it
PATHS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("benchmark", (), ("workdir",)),
    ("bridge", ("--workdir={}/new",), ("workdir", "dense", "independent")),
    ("card", ("--workdir={}", "--task=for_while"), ("workdir", "init_from")),
    ("compile_tpu", (), ("workdir",)),
    ("data", (), ("workdir",)),
    ("export_openai", ("--workdir={}", "--output={}/new"), ("workdir", "output")),
    ("import_openai", ("--workdir={}/new", "--source={}"), ("workdir", "source", "tokenizer")),
    (
        "logits",
        ("--workdir={}", "--tokens={}/here", "--logits={}/new.npy"),
        ("workdir", "init_from", "tokens", "logits", "activations_out"),
    ),
    ("page", ("--workdir={}", "--task=for_while"), ("workdir", "init_from")),
    ("prune", ("--workdir={}",), ("workdir", "init_from")),
    ("report", ("--workdir={}",), ("workdir", "init_from")),
    ("reproduce", ("--experiment=torture",), ("workdir", "model")),
    ("steer", ("--workdir={}",), ("workdir",)),
    ("store", ("--workdir={}", "--output={}/new.zip"), ("workdir", "output")),
    ("tasks", (), ("workdir", "tokenizer", "export")),
    ("train", ("--workdir={}/new",), ("workdir", "init_from", "batches", "params_out")),
]
NO_PATHS = {
    "": "empty",
    " ": "empty",
    "gs://bucket/run": "local or mounted path",
    "file:///run": "local or mounted path",
    "a\0b": "NUL",
    "/".join(["long"] * 2000): "too long",
    "n" * 256: "too long",
    "~nosuchuser/run": "no such user",
}
WRITERS = [
    ("benchmark", "workdir"), ("bridge", "workdir"), ("card", "workdir"), ("compile_tpu", "workdir"),
    ("data", "workdir"),
    ("export_openai", "output"), ("import_openai", "workdir"), ("logits", "logits"), ("reproduce", "workdir"),
    ("store", "output"), ("tasks", "export"), ("train", "workdir"), ("prune", "workdir"), ("report", "workdir"),
    ("page", "workdir"), ("steer", "workdir"),
]  # fmt: skip


def needed(script: str, folder: Path) -> dict[str, str]:
    """Flags that the script cannot do without, name -> value."""
    (flags,) = (flags for name, flags, _ in PATHS if name == script)
    return dict(flag.format(folder).removeprefix("--").split("=", 1) for flag in flags)


def called(script: str, flags: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").write_text("a file")
    return tmp_path


@pytest.mark.parametrize(("script", "flag"), [(script, flag) for script, _, flags in PATHS for flag in flags])
def test_what_can_be_no_path_is_refused(folder: Path, script: str, flag: str) -> None:
    for value, words in NO_PATHS.items():
        done = launch_here(script, *called(script, needed(script, folder) | {flag: value}))
        one_line(done, f"--{flag}=", words)
    assert os.listdir(folder) == ["here"]


@pytest.mark.parametrize("field", ["data.corpus", "data.tokenizer", "data.sources", "bridge.init_from"])
@pytest.mark.parametrize("script", ["train", "bridge", "data"])
def test_paths_in_the_configuration_too(folder: Path, script: str, field: str) -> None:
    value = "text=gs://bucket/file:1" if field == "data.sources" else "gs://bucket/run"
    done = launch_here(script, f"--workdir={folder / 'new'}", f"--config.{field}={value}")
    one_line(done, f"--config.{field}={value}", "local or mounted path")
    assert os.listdir(folder) == ["here"]


@pytest.mark.parametrize(("script", "flag"), WRITERS)
def test_places_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, flag: str) -> None:
    """A file where a folder is needed, a link that leads nowhere, a folder without permission."""
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "closed").mkdir()
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    needs = needed(script, folder) | ({"tokenizer": str(folder)} if script == "tasks" else {})
    for place in ("here/new.zip", "dangling/new.zip", "closed/new.zip"):
        done = launch_here(script, *called(script, needs | {flag: str(folder / place)}))
        one_line(done, f"--{flag}=", place.split("/")[0])
    assert sorted(os.listdir(folder)) == ["closed", "dangling", "here"]
    assert os.listdir(folder / "closed") == []


def test_a_folder_where_a_file_is_needed(folder: Path) -> None:
    for script, flag in (("logits", "logits"), ("store", "output"), ("tasks", "export")):
        more = {"tokenizer": str(folder)} if script == "tasks" else {}
        one_line(
            launch_here(script, *called(script, needed(script, folder) | more | {flag: str(folder)})), "is a folder"
        )
