"""Sources that a library reads over the network: what fails there, and their options."""

import sys
import types
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sparse_gpt.errors import InputError
from tests.test_data_damage import LINES, read, source


class _LibraryError(Exception):
    """As libraries of buckets have them, outside OSError."""


@pytest.mark.parametrize("error", [ConnectionError("reset"), _LibraryError("quota\nexceeded")])
@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_a_bucket_that_fails_is_no_reason_to_leave_documents_out(
    monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/a.x": LINES})

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error

    try:
        opened = source(f"{kind}=memory://bucket/a.x")
        assert len(opened.files) == 1  # type: ignore[attr-defined]
        monkeypatch.setattr(MemoryFileSystem, "open", fails)
        for attempt in (opened.fingerprint, lambda: list(opened.read())):
            with pytest.raises(InputError, match=r"a\.x: cannot be read now .*it continues") as raised:
                attempt()
            assert "\n" not in str(raised.value)
        monkeypatch.setattr(MemoryFileSystem, "glob", fails)
        with pytest.raises(InputError, match=r"reset|quota"):
            read(f"{kind}=memory://bucket/*")
    finally:
        memory.rm("/bucket", recursive=True)


class _Rows(list[dict[str, Any]]):
    """As much of a streamed dataset as is used; a row that is an exception is raised."""

    info = types.SimpleNamespace(version="1.2.0")

    def skip(self, count: int) -> "_Rows":
        return _Rows(self[count:])

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            if isinstance(row, Exception):
                raise row
            yield row


def hub(monkeypatch: pytest.MonkeyPatch, rows: list[Any] | Exception) -> list[Any]:
    """Puts a package in the place of datasets, whose one dataset holds these rows, and returns what it is asked for."""
    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> _Rows:
        asked.append((args, kwargs))
        if isinstance(rows, Exception):
            raise rows
        return _Rows(rows)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


@pytest.mark.parametrize(
    ("location", "config", "options"),
    [
        ("a/b", None, {}),
        ("a/b@c", "c", {}),
        ("a/b?data_dir=data/python", None, {"data_dir": "data/python"}),
        ("a/b@c?split=test&revision=v1=x", "c", {"split": "test", "revision": "v1=x"}),
    ],
)
def test_hub_options(
    monkeypatch: pytest.MonkeyPatch, location: str, config: str | None, options: dict[str, str]
) -> None:
    asked = hub(monkeypatch, [{"other": 1}, {"text": "a"}, {"text": b"b"}])
    assert read(f"hf={location}") == ["no_column", "a", b"b"]
    assert asked == [(("a/b", config), {"split": "train", "streaming": True, **options})]


@pytest.mark.parametrize(
    ("location", "rows", "reported"),
    [
        ("a/b?folder=x", [], "'folder=x': each of data_dir, revision, split"),
        ("a/b?split=", [], "'split='"),
        ("a/b?split=x&split=y", [], "'split=y'"),
        ("a/b", [], "the dataset is empty"),
        ("a/b", [{"code": "x"}], "no column 'text'; there are: code"),
        ("a/b", RuntimeError("Dataset scripts\nare no longer supported"), "scripts are no.*hf=a/b.data_dir=FOLDER"),
        ("a/b", ValueError("Config name is missing"), "hf=a/b@CONFIG"),
        ("a/b", [RuntimeError("gone")], "cannot be read .RuntimeError: gone"),
        ("a/b", [{"text": "x"}] * 40 + [TypeError("broken")], "cannot be read on .TypeError: broken.*it continues"),
    ],
)
def test_hub_sets_that_cannot_be_read_are_one_line(
    monkeypatch: pytest.MonkeyPatch, location: str, rows: Any, reported: str
) -> None:
    hub(monkeypatch, rows)
    with pytest.raises(InputError, match=reported) as raised:
        read(f"hf={location}")
    assert "\n" not in str(raised.value)
