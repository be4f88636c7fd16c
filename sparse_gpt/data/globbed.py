"""Sources in files that a pattern names, local or on any file system of fsspec (gs://, s3://, …)."""

import functools
import os
from collections.abc import Iterator

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sparse_gpt.data.compressed import ARCHIVES, READ_ERRORS, Damaged, NeedsPackage, library_errors, read_chunks
from sparse_gpt.data.sources import START, Document, File, Files, Position, WholeFiles
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree


class Globbed(Files):
    """Files whose path is the location, or matches it as a pattern."""

    @functools.cached_property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system of the location."""
        return self._resolve()[0]

    @property
    def local(self) -> bool:
        """Whether the files are on this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    def error(self, message: str) -> InputError:
        """An InputError that names the source."""
        return InputError(f"data.sources: {self.spec.name}: {message}")

    def _resolve(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            with library_errors():
                filesystem, pattern = fsspec.core.url_to_fs(self.spec.location)
        except OSError as error:
            raise self.error(str(error)) from error
        return filesystem, pattern

    def _find(self) -> list[File]:
        filesystem, pattern = self._resolve()
        literal = self.local and os.path.isfile(pattern)  # "[1].txt" is itself, though "[" is a wildcard too
        try:
            with library_errors():
                matches = {pattern: filesystem.info(pattern)} if literal else filesystem.glob(pattern, detail=True)
        except OSError as error:
            raise self.error(str(error)) from error
        fixed = pattern if literal else pattern.split("*")[0].split("?")[0].split("[")[0]
        folder = fixed.rpartition("/")[0]
        found = [
            File(path, path[len(folder) :].lstrip("/"), self._size(path, info))
            for path, info in matches.items()
            if self._is_file(path, info)
        ]
        if not found:
            raise self.error(f"no files found{self._why_none(pattern, matches)}")
        archive = next((file.path for file in found if file.path.lower().endswith(ARCHIVES)), "")
        if archive:
            raise self.error(f"{archive} is an archive of many files; unpack it and name what is in it")
        return found

    def _is_file(self, path: str, info: Tree) -> bool:
        """Pipes, sockets and devices are none: reading them may never end. fsspec calls them "other", and links too."""
        return os.path.isfile(path) if self.local else info.get("type") != "directory"

    def _size(self, path: str, info: Tree) -> int:
        return os.stat(path).st_size if self.local else int(info.get("size") or 0)

    def _why_none(self, pattern: str, matches: Tree) -> str:
        if self.local and os.path.isdir(pattern):
            return f"; it is a folder: name its files, as in {self.spec.kind}={self.spec.location.rstrip('/')}/**"
        special = [path for path in matches if self.local and not os.path.isdir(path) and os.path.exists(path)]
        if special:
            return f"; {special[0]} is a pipe, socket or device: write what it gives into a file"
        if "[" in pattern:
            return "; [ and ] are wildcards: write [[] for ["
        return ""

    def chunks(self, file: File) -> Iterator[bytes]:
        """The content of a file; see `read_chunks`. What has no size is not opened: in /proc, that may never end."""
        return iter(()) if self.local and not file.size else read_chunks(self.filesystem, file.path)

    def skip(self, file: File, after: Position, error: Exception) -> Document:
        """The document that stands for the rest of a file that could not be read.

        Raises:
            InputError: trouble with another file system than the local one may pass, so nothing is skipped for it; or
                a package is missing.
        """
        if isinstance(error, NeedsPackage):
            raise self.error(f"{file.path}: {error}") from error
        if isinstance(error, Damaged):
            return Document(None, after, "damaged")
        if self.local:
            return Document(None, after, "unreadable")
        raise self.error(f"{file.path}: cannot be read now ({error}); run the same command again, it continues")

    def fingerprint(self) -> Tree:
        """Also reads the beginning of the first file, so that a missing package is named before anything is written."""
        try:
            next(self.chunks(self.files[0]), b"")
        except READ_ERRORS as error:
            self.skip(self.files[0], START, error)
        return super().fingerprint()


class TextFiles(Globbed, WholeFiles):
    """Text files by glob, one document each; compressed ones (gzip, bzip2, xz, Zstandard) are unpacked."""

    errors = READ_ERRORS

    def _content(self, file: File) -> bytes:
        """The beginning of a file, by one chunk more than is allowed if there is more."""
        content = bytearray()
        for chunk in self.chunks(file):
            content += chunk
            if len(content) > self.max_bytes:
                break
        return bytes(content)
