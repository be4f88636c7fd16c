"""Source pinned_source: the files of the list, or one line that says which package is not what it should be."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_gpt import presets
from sparse_gpt.config import DataConfig
from sparse_gpt.data import pinned, prepare_corpus
from sparse_gpt.data.pinned import PinnedFile, PinnedSource, format_list, read_list
from sparse_gpt.data.source_kinds import open_source
from sparse_gpt.data.spec import parse_sources
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import expected
from tests.pin_sources import PACKAGES, pinned_versions

TEXTS = {"ripple/a.py": b"x = 1\n", "ripple/deep/b.py": b"y = 2\r\n"}


def source() -> PinnedSource:
    found = open_source(parse_sources("pinned_source")[0], 0, 64_000)
    assert isinstance(found, PinnedSource)
    return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with one of version 1.0, and a list of its two files instead of the real list."""
    for name, content in {**TEXTS, "ripple-1.0.dist-info/METADATA": b"Name: ripple\nVersion: 1.0\n"}.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = [
        PinnedFile(name, len(text), hashlib.sha256(text).hexdigest(), "ripple", "1.0") for name, text in TEXTS.items()
    ]
    (tmp_path / "list.txt").write_text(format_list(files))
    assert read_list(tmp_path / "list.txt") == files
    monkeypatch.setattr(pinned, "read_list", lambda: files)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def _remove_package(site: Path) -> None:
    (site / "ripple-1.0.dist-info" / "METADATA").unlink()
    (site / "ripple-1.0.dist-info").rmdir()


def _another_version(site: Path) -> None:
    (site / "ripple-1.0.dist-info" / "METADATA").write_text("Name: ripple\nVersion: 1.1\n")


def _change(site: Path) -> None:
    (site / "ripple" / "a.py").write_bytes(b"x = 2\n")


def _remove_file(site: Path) -> None:
    (site / "ripple" / "deep" / "b.py").unlink()


def test_the_files_of_the_list_are_read_as_they_are(site: Path) -> None:
    (site / "ripple" / "other.py").write_text("not in the list\n")
    assert sorted(str(document.content) for document in source().read()) == sorted(map(str, TEXTS.values()))
    assert source().fingerprint()["files"] == 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove_package, ("package ripple 1.0, which is not installed", "launch/environment.sh", "ripple==1.0")),
        (_another_version, ("package ripple 1.0, and 1.1 is installed", "launch/environment.sh", "ripple==1.0")),
        (_change, ("ripple/a.py is not what this version has", "--force-reinstall --no-deps ripple==1.0")),
        (_remove_file, ("ripple/deep/b.py cannot be read (No such file", "--force-reinstall --no-deps ripple==1.0")),
    ],
)
def test_what_differs_is_named_and_never_another_corpus(
    site: Path, tmp_path: Path, damage: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    before = source()
    assert len(before.files) == 2
    damage(site)
    with pytest.raises(InputError) as reported:
        prepare_corpus(tmp_path / "corpus", DataConfig("pinned_source", tokens=100), 300, progress=False)
    assert all(word in str(reported.value) for word in words), reported.value
    assert "\n" not in str(reported.value)
    assert not (tmp_path / "corpus").exists()
    if damage in (_change, _remove_file):  # in the middle of reading, too
        with pytest.raises(InputError):
            list(before.read())


def test_the_list_is_of_the_pinned_versions_and_they_are_installed() -> None:
    """When this fails after a new pin: python -m tests.pin_sources"""
    versions = pinned_versions()
    assert {(file.package, file.version) for file in read_list()} == {(name, versions[name]) for name in PACKAGES}
    assert source().fingerprint()["files"] == len(read_list())  # every file is what the list says


@pytest.mark.slow
def test_a_corpus_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """Python 3.11, 3.12 and 3.13 gave this hash. When it moves, so do those of experiments/expected.py: see there."""
    corpus = prepare_corpus(tmp_path, DataConfig("idioms:1,pinned_source:1", tokens=20_000), 300, progress=False)
    assert corpus.sha256 == "9e9685ae3f5012de15c4f18b3a4ec23e1326bd38efcbff62ee084f1dd321df1f"


def test_default_sources_of_presets_do_not_depend_on_what_is_installed() -> None:
    for name, preset in presets.PRESETS.items():
        kinds = {spec.kind for spec in parse_sources(preset().data.sources)}
        assert kinds <= {"idioms", "pinned_source"}, name
    assert set(expected.CORPORA) <= set(presets.PRESETS)
