"""A folder has one writer, which a second one names; a refusal leaves the folder as it was."""

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparse_gpt import locks
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot

REPOSITORY = Path(__file__).resolve().parent.parent
HOLD = """
import sys
from pathlib import Path
from sparse_gpt import locks
sys.argv = ["launch/train.py"]
with locks.writing(Path(sys.stdin.readline().rstrip())):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """A process that holds a folder until its standard input is closed."""
    # No site-packages: it starts in milliseconds.
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLD], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def other(workdir: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds `workdir`."""
    process = holder(workdir)
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_names_the_first(workdir: Path, other: "subprocess.Popen[str]") -> None:
    reported = (
        rf"^{workdir} is being written by process {other.pid} on \S+ \(launch\.train, since \d\d:\d\d\); wait for"
    )
    with pytest.raises(InputError, match=reported), locks.writing(workdir):
        pass
    with pytest.raises(InputError, match=reported):
        locks.refuse_while_written(workdir)


def test_a_kill_leaves_a_file_that_stops_nobody(workdir: Path, other: "subprocess.Popen[str]") -> None:
    other.kill()
    other.wait()
    assert (workdir / locks.NAME).is_file()
    locks.refuse_while_written(workdir)
    with locks.writing(workdir):
        assert f"pid={os.getpid()}\n" in (workdir / locks.NAME).read_text()
    assert not list(workdir.iterdir())


def test_one_process_may_hold_a_folder_several_times(workdir: Path) -> None:
    with locks.writing(workdir):
        with locks.writing(workdir / ".." / workdir.name):
            locks.refuse_while_written(workdir)
        assert holds(workdir)
    assert not (workdir / locks.NAME).exists()


def holds(folder: Path) -> bool:
    """Whether anybody holds the folder."""
    with (folder / locks.NAME).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_scripts_that_a_script_starts_work_in_its_folder(workdir: Path) -> None:
    with locks.writing(workdir):
        process = holder(workdir)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert holds(workdir)


def test_a_holder_on_another_host_is_not_the_parent_of_the_same_number(workdir: Path) -> None:
    workdir.mkdir(parents=True)
    with (workdir / locks.NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for host, allowed in ((socket.gethostname(), True), ("elsewhere", False)):
            who = f"pid={os.getppid()}\nhost={host}\ncommand=launch.train\nsince=2026-01-01 00:00:00\n"
            (workdir / locks.NAME).write_text(who)
            refused = pytest.raises(InputError, match=f"by process {os.getppid()} on elsewhere")
            with contextlib.nullcontext() if allowed else refused, locks.writing(workdir):
                pass


def test_a_folder_made_for_the_lock_alone_goes_again(workdir: Path, tmp_path: Path) -> None:
    with locks.writing(workdir):
        pass
    assert not list(tmp_path.iterdir())
    with locks.writing(workdir, keep=True):
        (workdir / "file").touch()
    assert {path.name for path in workdir.iterdir()} == {"file", locks.NAME}


def test_without_locks_on_the_file_system_one_line_is_reported(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.writing(workdir):
        locks.refuse_while_written(workdir)
    assert capsys.readouterr().err == (
        f"{workdir}: its file system has no locks; see to it that nothing else writes there\n"
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"pid=1\n", b"[" * 100_000, b"pid=1\nhost=a\rb\n" + b"=" * 9000])
def test_any_lock_file_gives_one_line(workdir: Path, other: "subprocess.Popen[str]", content: bytes) -> None:
    del other
    (workdir / locks.NAME).write_bytes(content)
    with pytest.raises(InputError, match="is being written by another process; wait") as caught:
        locks.refuse_while_written(workdir)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), locks.writing(tmp_path / "file" / "run"):
        pass


# ---------------------------------------------------------------------------------------------------------------------
# A refusal leaves the folder as it was


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_what_came_since_goes_unless_work_has_begun(tmp_path: Path, there: bool, begun: bool) -> None:
    folder = tmp_path / "a" / "b"
    if there:
        folder.mkdir(parents=True)
        (folder / "mine").touch()
    before, held = tree(tmp_path), Snapshot(folder)

    def work() -> None:
        with held.restore_if_refused(lambda: begun):
            (folder / "c" / "d").mkdir(parents=True)
            (folder / "file").touch()
            (folder / "link").symlink_to(tmp_path)
            raise InputError("no")

    with pytest.raises(InputError):
        work()
    assert (tree(tmp_path) == before) is not begun


def test_a_full_disk_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    def work() -> None:
        with Snapshot(tmp_path).restore_if_refused():
            (tmp_path / "file").touch()
            raise InputError("no room") from OSError(errno.ENOSPC, "full")

    with pytest.raises(InputError):
        work()
    assert tree(tmp_path) == ["file"]
