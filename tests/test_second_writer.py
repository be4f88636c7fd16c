"""One table over the scripts: which of them are refused while another process writes to the workdir, and that a refusal
leaves the workdir as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sparse_gpt import config as configs
from sparse_gpt import locks, presets
from sparse_gpt.io import write_json
from tests.inprocess import launch_here
from tests.test_locks import holder, tree

TINY = "--preset=tiny"
# Script and flags; all of them in the workdir of a tiny model.
WRITERS = {
    "train": ("train", TINY),
    "bridge": ("bridge", TINY),
    "prune": ("prune",),
    "report": ("report",),
    "steer": ("steer",),
    "data": ("data",),
    "benchmark": ("benchmark", "--parts=data"),
    "reproduce": ("reproduce", "--experiment=scale-equality"),
    "store reads": ("store", "--output=new.zip"),
    "export_openai reads": ("export_openai", "--output=new"),
}
# Found wrong only in the workdir, or after it was made: script, flags, and what the line names.
REFUSED = {
    "context": (("train", TINY, "--config.model.context=100000"), "less than one window of 100001"),
    "vocabulary": (("train", TINY, "--config.model.vocab_size=3"), "vocab"),
    "sources": (("train", TINY, "--config.data.sources=nowhere"), "nowhere"),
    "init_from": (("train", TINY, "--init_from=nowhere"), "nowhere"),
    "dense": (("bridge", TINY, "--dense=nowhere"), "nowhere"),
    "data": (("data", TINY, "--config.data.sources=nowhere"), "nowhere"),
    "import": (("import_openai", "--source=nowhere"), "nowhere"),
    "unpack": (("prune", "--init_from=nowhere"), "nowhere"),
    "settings": (("prune", "--init_from=laptop", "--shared", "--task=for_while,if_equals",
                  "--config.prune.batch_pairs=3"), "batch_pairs"),
}  # fmt: skip


@pytest.fixture
def held(workdir: Path) -> Iterator[str]:
    """A workdir that another process writes to; the id of that process."""
    workdir.mkdir(parents=True)
    write_json(workdir / "config.json", configs.to_dict(presets.tiny()))
    process = holder(workdir)
    yield str(process.pid)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("flags", WRITERS.values(), ids=WRITERS)
def test_a_second_writer_gets_one_line_that_names_the_first(
    workdir: Path, held: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    before = tree(tmp_path)
    done = launch_here(flags[0], f"--workdir={workdir}", *flags[1:], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert f"is being written by process {held} on " in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize(("flags", "reported"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_leaves_the_workdir_as_it_was(
    workdir: Path, tmp_path: Path, flags: tuple[str, ...], reported: str, there: bool
) -> None:
    if there:
        workdir.mkdir(parents=True)
    before = tree(tmp_path)
    done = launch_here(flags[0], f"--workdir={workdir}", *flags[1:], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert reported in done.stderr.splitlines()[-1]
    assert tree(tmp_path) == before


def test_a_lock_left_by_a_kill_stops_no_script(workdir: Path, tmp_path: Path) -> None:
    workdir.mkdir(parents=True)
    (workdir / locks.NAME).write_text("pid=1\nhost=elsewhere\ncommand=launch.train\nsince=2020-01-01 00:00:00\n")
    done = launch_here("report", f"--workdir={workdir}")
    assert "being written" not in done.stderr
    assert tree(tmp_path) == [workdir.parent.name, str(workdir.relative_to(tmp_path))]
