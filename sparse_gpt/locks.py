"""One writer per folder: a lock that names its holder and dies with it.

The lock is flock on FOLDER/.lock, which the operating system gives back when the holder ends, however it ends. The file
says who holds it and may stay behind after a kill; alone it means nothing.

Scripts that write to a workdir (training, bridges, circuits, steering, import, corpus, report) hold it, so no two of
them work in one workdir at a time, not even those that write different files: each of them reads what the others write.
Scripts that only read it (store, export) are refused while it is held, and hold nothing themselves.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.folders import make, remove_empty, unwritable

NAME = ".lock"
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # what file systems without flock say


@dataclasses.dataclass
class _Hold:
    """A folder that this process holds."""

    folder: Path
    file: int | None  # descriptor of its lock file; None where the parent process has it
    made: list[Path]  # folders made for it, innermost first
    times: int = 0
    keep: bool = False


_held: dict[Path, _Hold] = {}
_guard = threading.RLock()


@contextlib.contextmanager
def writing(folder: Path, keep: bool = False) -> Iterator[None]:
    """Holds a folder, which is made if it is not there, for the body. The same process may hold it several times.

    Args:
      folder: what is written to.
      keep: whether the lock file stays beside what else is there; otherwise it goes. Folders that were made for it go
        if nothing is in them.

    Raises:
      InputError: another process holds it (the message names it), or the folder cannot be written.
    """
    folder = Path(folder).absolute()
    key = Path(os.path.realpath(folder))
    with _guard:
        if key not in _held:
            _held[key] = _hold(folder)
        hold = _held[key]
        hold.times, hold.keep = hold.times + 1, hold.keep or keep
    try:
        yield
    finally:
        with _guard:
            hold.times -= 1
            if not hold.times:
                del _held[key]
                _release(hold)


def _hold(folder: Path) -> _Hold:
    made = make(folder)
    try:
        return _Hold(folder, _take(folder), made)
    except BaseException:
        remove_empty(made)
        raise


def _release(hold: _Hold) -> None:
    if hold.file is not None:
        with contextlib.suppress(OSError):
            if not hold.keep or os.listdir(hold.folder) == [NAME]:
                (hold.folder / NAME).unlink()  # ours, as long as we hold the lock
        os.close(hold.file)
    remove_empty(hold.made)


def refuse_while_written(folder: Path) -> None:
    """InputError if another process writes to a folder. For scripts that only read it, even on read-only storage."""
    path = Path(folder) / NAME
    if Path(os.path.realpath(folder)) in _held:
        return
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # nobody has written here, or nobody can
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(_refusal(Path(folder))) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(file)


def _take(folder: Path) -> int | None:
    """The open lock file of a folder, locked. None where the process that started this one has it: a script that runs
    others (reproduce) holds its folder for all of them."""
    path = folder / NAME
    for attempt in range(20):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(file, path):
                _say_who(file)
                return file
            os.close(file)  # the holder before us has just removed it
        except BlockingIOError as error:
            os.close(file)
            holder = _holder(folder)
            # On shared storage, a process of another host may have the number of this one's parent.
            if (holder.get("pid"), holder.get("host")) == (str(os.getppid()), socket.gethostname()):
                return None
            if attempt > 2:  # a reader holds it for a moment, see `refuse_while_written`
                raise InputError(_refusal(folder)) from error
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(file)
                raise unwritable(folder, error) from error
            print(f"{folder}: its file system has no locks; see to it that nothing else writes there", file=sys.stderr)
            return file
    raise InputError(_refusal(folder))


def _same(file: int, path: Path) -> bool:
    """Whether an open file is (still) the one under this path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _say_who(file: int) -> None:
    """Writes process, host, command and start time. On a full disk the lock holds all the same, without a name."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "command": command(), "since": since}
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, "".join(f"{name}={value}\n" for name, value in facts.items()).encode(), 0)


def command() -> str:
    """What this process runs, as "launch.train"."""
    path = Path(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.name == "__main__.py" else path.stem
    return f"launch.{name}" if path.parent.name == "launch" else name or "python"


def _holder(folder: Path) -> dict[str, str]:
    """What the lock file says of the process that wrote it last: pid, host, command, since. {} if it says nothing."""
    try:
        text = (folder / NAME).read_bytes()[:4096].decode(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: "".join(filter(str.isprintable, value))[:200] for name, _, value in pairs}


def _refusal(folder: Path) -> str:
    """One line that names the holder as far as the lock file says."""
    said, who = _holder(folder), "another process"
    if said.keys() >= {"pid", "host", "command", "since"}:
        since = said["since"].removeprefix(time.strftime("%Y-%m-%d "))[:-3]  # without seconds
        who = f"process {said['pid']} on {said['host']} ({said['command']}, since {since})"
    return f"{folder} is being written by {who}; wait for it or stop it"
