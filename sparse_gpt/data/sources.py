"""Where documents come from: what every source can do, generated idioms, and Python files.

A source is an ordered sequence of documents that can be read from any position on, so that an interrupted
preparation continues where it stopped. The order depends on names and the seed only, never on the order in which a
file system lists a folder, and is scattered, so that a part of a source is a fair sample of it.
"""

import abc
import functools
import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sparse_gpt.data import idioms
from sparse_gpt.data.spec import SourceSpec
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

Position = tuple[int, int]  # (file, row within it), or (0, index) for sources without files
START: Position = (0, 0)


class Document(NamedTuple):
    """One document as read. `content` is None when `problem` (a key of `problems.PROBLEMS`) says why."""

    content: str | bytes | None
    after: Position  # where to continue
    problem: str = ""


class File(NamedTuple):
    """A file of a source: its path, its name within the source (independent of where that is stored), its size."""

    path: str
    name: str
    size: int


class Source(abc.ABC):
    """A sequence of documents."""

    endless = False  # generated: as many documents as one likes, whatever the target
    generated = False  # written by this project: near-duplicates are meant

    def __init__(self, spec: SourceSpec, seed: int, max_bytes: int):
        self.spec, self.seed, self.max_bytes = spec, seed, max_bytes

    @abc.abstractmethod
    def fingerprint(self) -> Tree:
        """What identifies the content without reading all of it. Raises InputError if the source cannot be used."""

    @abc.abstractmethod
    def read(self, start: Position = START) -> Iterator[Document]:
        """Documents from `start` on."""


class Idioms(Source):
    """Generated simple programs; document i depends on the seed and i only."""

    endless = True
    generated = True

    def fingerprint(self) -> Tree:
        digest = hashlib.sha256()
        for document in idioms.documents(self.seed, 0, 32):
            digest.update(document.encode())
        return {"first_documents_sha256": digest.hexdigest()}

    def read(self, start: Position = START) -> Iterator[Document]:
        index = start[1]
        while True:
            yield Document(idioms.generate(self.seed, index), (0, index + 1))
            index += 1


class Files(Source):
    """A source stored in files, in an order given by the hash of their names and the seed."""

    @abc.abstractmethod
    def _find(self) -> list[File]: ...

    @functools.cached_property
    def files(self) -> list[File]:
        """All files of the source in reading order. Raises InputError if there are none."""
        found = self._find()
        if not found:
            raise InputError(f"data.sources: {self.spec.name}: no files found")
        return sorted(found, key=lambda file: (_scatter(self.seed, file.name), file.name))

    def fingerprint(self) -> Tree:
        listing = "\n".join(f"{file.name}\t{file.size}" for file in self.files)
        return {
            "files": len(self.files),
            "file_bytes": sum(file.size for file in self.files),
            "listing_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        }


def _scatter(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


class WholeFiles(Files):
    """One document per file."""

    errors: tuple[type[Exception], ...] = (OSError,)  # of files that cannot be read

    def read(self, start: Position = START) -> Iterator[Document]:
        for index in range(start[0], len(self.files)):
            file, after = self.files[index], (index + 1, 0)
            if file.size > self.max_bytes:
                yield Document(None, after, "too_large")
                continue
            try:
                yield Document(self._content(file), after)
            except self.errors as error:
                yield self.skip(file, after, error)

    def skip(self, file: File, after: Position, error: Exception) -> Document:
        """The document that stands for a file that could not be read."""
        del file, error
        return Document(None, after, "unreadable")

    def _content(self, file: File) -> bytes:
        return Path(file.path).read_bytes()


class PythonSource(WholeFiles):
    """The .py files below some folders (separated by ";"); by default the standard library and installed packages.

    The default is another corpus on every machine; `pinned.PinnedSource` is the same one everywhere.
    """

    def _find(self) -> list[File]:
        if self.spec.location:
            whole = os.path.expanduser(self.spec.location)  # a folder's name may have a ";" in it
            parts = [os.path.expanduser(part) for part in self.spec.location.split(";") if part]
            roots = [Path(part) for part in ([whole] if os.path.isdir(whole) else parts)]
        else:
            roots = _interpreter_folders()
        found: dict[Path, File] = {}
        for root in roots:
            if not os.path.isdir(root):  # also where a path cannot be: too long, or with a zero in it
                raise InputError(f"data.sources: {self.spec.name}: {root} is not a folder")
            for path, size in _python_files(root):
                found.setdefault(path, File(str(path), path.relative_to(root).as_posix(), size))
        return list(found.values())


def _interpreter_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = (Path(paths[key]) for key in ("stdlib", "purelib", "platlib"))
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _python_files(root: Path) -> Iterator[tuple[Path, int]]:
    """(path, size) of every .py file below `root`; hidden folders, caches and links to folders are left out.

    Packages installed inside the standard library's folder belong to an interpreter that need not be the running one.
    """
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and name not in ("__pycache__", "site-packages", "dist-packages")
        ]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                yield path, path.stat().st_size
