"""Python source of packages that requirements.txt pins: the same documents on every machine and Python version.

Which files, and what is in them, says a list that is part of this package; `python -m tests.pin_sources` makes it. A
file that is missing or differs is an error and never another corpus.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sparse_gpt.data.sources import File, WholeFiles
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

LIST = Path(__file__).with_name("pinned_files.txt")
_HEAD = "# SHA-256, bytes and path of the Python files that source pinned_source reads; made by tests/pin_sources.py\n"


class PinnedFile(NamedTuple):
    """A file of a pinned package: `name` is its path in site-packages."""

    name: str
    size: int
    sha256: str
    package: str
    version: str


def format_list(files: Iterable[PinnedFile]) -> str:
    """The text of a list: "package==version" on a line of its own, then one line per file of it."""
    lines, pin = [_HEAD], ""
    for file in files:
        if pin != f"{file.package}=={file.version}":
            pin = f"{file.package}=={file.version}"
            lines.append(f"{pin}\n")
        lines.append(f"{file.sha256} {file.size} {file.name}\n")
    return "".join(lines)


def read_list(path: Path = LIST) -> list[PinnedFile]:
    """The files that a list names."""
    files, package, version = [], "", ""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        digest, _, rest = line.partition(" ")
        if not rest:
            package, version = digest.split("==")
            continue
        size, _, name = rest.partition(" ")
        files.append(PinnedFile(name, int(size), digest, package, version))
    return files


class PinnedSource(WholeFiles):
    """The files of the list, read where the packages are installed and compared with it."""

    def _find(self) -> list[File]:
        self._pinned = {file.name: file for file in read_list()}
        folders: dict[str, importlib.metadata.Distribution] = {}
        for file in self._pinned.values():
            if file.package not in folders:
                folders[file.package] = self._distribution(file.package, file.version)
        return [
            File(str(folders[file.package].locate_file(file.name)), file.name, file.size)
            for file in self._pinned.values()
        ]

    def _distribution(self, package: str, version: str) -> importlib.metadata.Distribution:
        way_out = f"bash launch/environment.sh, or pip install {package}=={version}"
        try:
            found = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise InputError(
                f"data.sources: {self.spec.name}: reads files of package {package} {version}, which is not installed; "
                f"{way_out}"
            ) from error
        if found.version != version:
            raise InputError(
                f"data.sources: {self.spec.name}: reads files of package {package} {version}, and {found.version} is "
                f"installed; {way_out}"
            )
        return found

    def fingerprint(self) -> Tree:
        """Also compares every file with the list, so that a preparation does not stop in the middle."""
        for file in self.files:
            self._content(file)
        digests = "\n".join(f"{self._pinned[file.name].sha256} {file.name}" for file in self.files)
        return {**super().fingerprint(), "contents_sha256": hashlib.sha256(digests.encode()).hexdigest()}

    def _content(self, file: File) -> bytes:
        pinned = self._pinned[file.name]
        try:
            content = Path(file.path).read_bytes()
            problem = "" if hashlib.sha256(content).hexdigest() == pinned.sha256 else "is not what this version has"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        if problem:
            raise InputError(
                f"data.sources: {self.spec.name}: {file.path} {problem}; "
                f"pip install --force-reinstall --no-deps {pinned.package}=={pinned.version}"
            )
        return content
