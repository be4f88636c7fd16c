"""Every flag that names a folder or a file refuses what cannot be one, in one line and before anything is written."""

import os
from pathlib import Path

import pytest

from sparse_gpt import paths
from sparse_gpt.errors import InputError
from sparse_gpt.records import Record
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


SUFFIXES = [
    ("logits", "logits", ".npy"), ("logits", "activations_out", ".npz"), ("train", "params_out", ".npz"),
    ("store", "output", ".zip"), ("tasks", "export", ".jsonl"), ("reproduce", "page", ".md"),
]  # fmt: skip


def called_for(script: str, folder: Path) -> dict[str, str]:
    """Flags that the script needs until it looks at what it is to write."""
    more = {"tasks": {"tokenizer": str(folder)}, "reproduce": {"workdir": str(folder / "new")}}
    return needed(script, folder) | more.get(script, {})


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts end where their work would begin."""
    for script in ("logits", "train", "store", "tasks"):
        monkeypatch.setattr(f"launch.jobs.{script}.main", lambda *_: pytest.fail("began"))
    monkeypatch.setattr("launch.reproduce.check_page", lambda _: pytest.fail("began"))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("script", "flag", "suffix"), SUFFIXES)
def test_a_file_of_another_kind_is_not_written_over(folder: Path, script: str, flag: str, suffix: str) -> None:
    kept = dict.fromkeys(("manifest.json", f"old{suffix}.txt"), "kept")
    for name, text in kept.items():
        (folder / name).write_text(text)
    for name in kept:
        flags = called_for(script, folder) | {flag: str(folder / name)}
        one_line(launch_here(script, *called(script, flags)), f"--{flag}={folder / name}: ", suffix)
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name in kept} == kept
    assert paths.output_file(flag, str(folder / "of any name"), suffix) == folder / "of any name"


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("script", "flag", "suffix"), SUFFIXES)
def test_nothing_is_written_among_the_files_of_a_workdir(folder: Path, script: str, flag: str, suffix: str) -> None:
    run = folder / "run"
    (run / "circuits" / "copy").mkdir(parents=True)
    (folder / "link").symlink_to(run)
    for name in ("config.json", "manifest.json"):
        (run / name).write_text("{}")
    before = sorted(folder.rglob("*"))
    for place in (f"run/circuits/copy/ablation{suffix}", f"link/circuits/x{suffix}"):
        flags = called_for(script, folder) | {flag: str(folder / place)}
        one_line(launch_here(script, *called(script, flags)), f"--{flag}={folder / place}: ", "is among the files of")
    assert sorted(folder.rglob("*")) == before
    for place in (f"run/x{suffix}", f"circuits{suffix}"):  # what is no part of it may stand beside
        assert paths.output_file(flag, str(folder / place), suffix) == folder / place
    with pytest.raises(InputError, match="is among the files of"):
        paths.output_file("export", str(run / "metrics.jsonl"), ".jsonl")


def test_every_file_of_a_workdir_is_known() -> None:
    own = {record.FILE.split("/")[0] for record in Record.__subclasses__() if record.FILE}
    assert own <= {*paths.OWN}


@pytest.mark.usefixtures("no_work")
def test_parameters_are_written_over_nothing_that_the_training_reads(folder: Path) -> None:
    for flag in ("init_from", "batches"):
        given = {flag: str(folder / "a.npz"), "params_out": f"{folder}/./a.npz"}
        done = launch_here("train", *called("train", needed("train", folder) | given))
        one_line(done, "--params_out=", f"is a file of --{flag} too")


def test_a_folder_where_a_file_is_needed(folder: Path) -> None:
    for script, flag in (("logits", "logits"), ("store", "output"), ("tasks", "export")):
        more = {"tokenizer": str(folder)} if script == "tasks" else {}
        one_line(
            launch_here(script, *called(script, needed(script, folder) | more | {flag: str(folder)})), "is a folder"
        )
