"""Folders that a script makes, and how it leaves them as they were when it refuses its input."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.io import NO_SPACE

KEPT = {".lock"}  # see locks.py: its holder removes it


def missing(folder: Path) -> list[Path]:
    """Which of a folder and the folders above it are not there, innermost first."""
    folder = Path(folder).absolute()
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def make(folder: Path) -> list[Path]:
    """Makes a folder and those above it, and returns which were made, innermost first. InputError if that fails."""
    made = missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(made)
        raise unwritable(folder, error) from error
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders, in their order, until one is not empty."""
    for path in folders:
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def unwritable(folder: Path, error: OSError) -> InputError:
    """One line about a folder that cannot be made or written."""
    if error.errno in NO_SPACE:
        return InputError(f"{folder}: the disk is full ({error.strerror}); free some space and run the command again")
    return InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder")


class Snapshot:
    """What a folder, which need not be there, holds before a script works in it; with `empty`, nothing.

    To be made by the process that holds the folder's lock, or what another one writes meanwhile would be taken for new.
    """

    def __init__(self, folder: Path, empty: bool = False):
        self.folder = Path(folder).absolute()
        self._missing = missing(self.folder)
        self._names = set(os.listdir(self.folder)) if self.folder.is_dir() and not empty else set()

    def restore(self) -> None:
        """Removes what has come into the folder since, and the folder itself if it was not there."""
        if self.folder.is_dir():
            kept = self._names if self.folder in self._missing else self._names | KEPT
            for name in set(os.listdir(self.folder)) - kept:
                path = self.folder / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        remove_empty(self._missing)

    @contextlib.contextmanager
    def restore_if_refused(self, begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Restores the folder when the body refuses its input (InputError) and the work proper has not `begun`.

        A full disk is no such refusal: the same command goes on with what is there.
        """
        try:
            yield
        except InputError as error:
            if not begun() and not disk_full(error):
                self.restore()
            raise


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the disk (or a quota) is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
