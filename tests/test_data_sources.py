"""Sources: the mixture's description, order, reading from any position, damaged and foreign content."""

import gzip
import importlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt import config as configs
from sparse_gpt.data import sources as sources_module
from sparse_gpt.data.source_kinds import open_source
from sparse_gpt.data.sources import Document, Source
from sparse_gpt.data.spec import SourceSpec, parse_sources
from sparse_gpt.errors import InputError

MAX_BYTES = 1000


def source(text: str, seed: int = 0) -> Source:
    return open_source(parse_sources(text)[0], seed, MAX_BYTES)


def contents(documents: Iterator[Document]) -> list[Any]:
    return [document.problem or document.content for document in documents]


def write_tree(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


# -- the description -----------------------------------------------------------------------------------------------


def test_parse() -> None:
    assert parse_sources("idioms") == (SourceSpec("idioms", weight=1.0),)
    parsed = parse_sources(" idioms:3, python_source=/a b;/c:0.5 ,jsonl=gs://bucket/x-*.jsonl#code:1.5")
    assert [spec.name for spec in parsed] == ["idioms", "python_source=/a b;/c", "jsonl=gs://bucket/x-*.jsonl#code"]
    assert [spec.weight for spec in parsed] == [0.6, 0.1, 0.3]
    assert parse_sources("parquet=gs://a/b.parquet")[0] == SourceSpec("parquet", "gs://a/b.parquet", "text", 1.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('text="/a,b/*.txt":0.5', SourceSpec("text", "/a,b/*.txt")),
        ("text='/a#b/[x]{y}=z: 5.txt'", SourceSpec("text", "/a#b/[x]{y}=z: 5.txt")),
        ("text=/a[b]{c}=d e.txt", SourceSpec("text", "/a[b]{c}=d e.txt")),
        ('text="a:5"', SourceSpec("text", "a:5")),
        ('text=" say ""hi"" "', SourceSpec("text", ' say "hi" ')),
        ('jsonl="a,b"#"c,d"', SourceSpec("jsonl", "a,b", "c,d")),
        ("jsonl=a#b#c", SourceSpec("jsonl", "a", "b#c")),
        ("hf=a/b@c?data_dir=d&revision=e#f", SourceSpec("hf", "a/b@c?data_dir=d&revision=e", "f")),
    ],
)
def test_any_path_can_be_written(text: str, wanted: SourceSpec) -> None:
    assert parse_sources(text) == (wanted,)
    assert parse_sources(f"{wanted.name}:1") == (wanted,)  # as it is stored in a corpus's manifest


def test_the_configuration_has_a_list_and_takes_the_text_of_older_files() -> None:
    listed = ["idioms:3", 'text="a, b.txt":1']
    of_list, of_text = (configs.from_dict({"data": {"sources": given}}).data for given in (listed, ",".join(listed)))
    assert of_list == of_text
    assert of_list.sources == tuple(listed)
    assert parse_sources(of_list.sources) == parse_sources(",".join(listed))
    assert configs.to_dict(configs.replace(configs.Config(), {"data.sources": listed}))["data"]["sources"] == listed
    with pytest.raises(InputError, match="a comma that is not in quotes"):
        configs.from_dict({"data": {"sources": ["text=a, b.txt"]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no source"),
        (" , ", "no source"),
        ("wikipedia:1", "unknown kind 'wikipedia'"),
        ("idioms:0", "positive number"),
        ("idioms:-1", "positive number"),
        ("idioms:1.2.3", "positive number"),
        ("text:1", "needs a location"),
        ("idioms=here", "take no location"),
        ("text=*.txt#body", "has no columns"),
        ("idioms:1,idioms:2", "listed twice"),
        ("idioms:1e308,text=a:1e308", "too large"),
        ("pinned_source=here", "python_source=here"),
        ("text=a,b.txt", "unknown kind 'b.txt'.*a path with , or # in it goes in quotes"),
        ('text="a.txt', 'the quote " is not closed'),
        ("text='a'b.txt", "'b.txt' after the closing quote"),
    ],
)
def test_bad_descriptions(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_sources(text)


# -- files ---------------------------------------------------------------------------------------------------------


def test_order_depends_on_names_and_seed_only(tmp_path: Path) -> None:
    names = [f"{folder}/{name}.py" for folder in "abc" for name in ("x", "y", "z", "deep/w")]
    write_tree(tmp_path / "one", names)
    write_tree(tmp_path / "two", names[::-1])
    one, two = (source(f"python_source={tmp_path / name}") for name in ("one", "two"))
    assert contents(one.read()) == contents(two.read())
    assert one.fingerprint() == two.fingerprint()
    assert sorted(contents(one.read())) == sorted(f"# {name}\n".encode() for name in names)
    assert contents(one.read()) != sorted(contents(one.read()))
    assert contents(one.read()) != contents(source(f"python_source={tmp_path / 'one'}", seed=1).read())


def test_python_source_takes_only_python_files(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a.py", "b.txt", ".git/c.py", "d/__pycache__/e.py", "d/f.py", "site-packages/g.py"])
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    assert sorted(contents(source(f"python_source={tmp_path}").read())) == [b"# a.py\n", b"# d/f.py\n"]
    both = source(f"python_source={tmp_path};{tmp_path / 'd'}")
    assert len(contents(both.read())) == 2  # a file below two folders is read once


def test_default_folders_are_the_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = sources_module._interpreter_folders()
    for name in ("argparse.py", "json/decoder.py", "numpy/__init__.py"):
        assert any((folder / name).is_file() for folder in folders), name
    write_tree(tmp_path, ["lib/a.py", "lib/site-packages/b.py", "site/c.py"])
    monkeypatch.setattr(sources_module, "_interpreter_folders", lambda: [tmp_path / "lib", tmp_path / "site"])
    assert sorted(contents(source("python_source").read())) == [b"# lib/a.py\n", b"# site/c.py\n"]


def test_too_large_and_unreadable_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, ["a.py", "b.py"])
    (tmp_path / "c.py").write_text("#" * (MAX_BYTES + 1))
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "b.py":
            raise PermissionError(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert sorted(map(str, contents(source(f"python_source={tmp_path}").read()))) == [
        "b'# a.py\\n'",
        "too_large",
        "unreadable",
    ]


def test_text_by_glob_and_compressed(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a.txt", "b/c.txt", "d.md"])
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert contents(source(f"text={tmp_path}/*.txt").read()) == [b"# a.txt\n"]
    assert sorted(contents(source(f"text={tmp_path}/**/*.txt*").read())) == [b"# a.txt\n", b"# b/c.txt\n", b"packed"]


def test_text_on_another_file_system() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/corpus/a.txt": b"one", "/corpus/b.txt": b"two"})
    try:
        assert sorted(contents(source("text=memory://corpus/*.txt").read())) == [b"one", b"two"]
    finally:
        memory.rm("/corpus", recursive=True)


@pytest.mark.parametrize("text", ["text={}/*.txt", "jsonl={}/*.jsonl#text", "python_source={}"])
def test_nothing_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="no files found"):
        source(text.format(tmp_path)).fingerprint()


def test_missing_folder_and_unknown_file_system(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        source(f"python_source={tmp_path / 'nowhere'}").fingerprint()
    with pytest.raises(InputError, match="nosuchthing"):
        source("text=nosuchthing://bucket/*").fingerprint()


# -- tables --------------------------------------------------------------------------------------------------------


def json_lines(folder: Path) -> str:
    rows = [{"text": f"row {i}", "other": 1} for i in range(6)]
    lines = [json.dumps(row) for row in rows]
    lines[1:1] = ["not json", "", json.dumps({"other": 2}), json.dumps({"text": "x" * 20 * MAX_BYTES * 8}), "[1]"]
    (folder / "one.jsonl").write_text("\n".join(lines))
    (folder / "two.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed"}\n{"text": 7}\n'))
    (folder / "three.jsonl").write_text("")
    return f"jsonl={folder}/*.jsonl*#text"


def test_json_lines(tmp_path: Path) -> None:
    found = contents(source(json_lines(tmp_path)).read())
    assert sorted(found) == sorted(
        [*(f"row {i}" for i in range(6)), "packed", "not_json", "not_object", "no_column", "no_text", "too_large"]
    )


def test_reading_continues_anywhere(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", [f"{i}.py" for i in range(5)])
    for text in (json_lines(tmp_path), f"python_source={tmp_path / 'tree'}"):
        whole = list(source(text).read())
        for i, document in enumerate(whole):
            assert list(source(text).read(document.after)) == whole[i + 1 :]


def test_wrong_column_names_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "x", "path": "y"}\n')
    with pytest.raises(InputError, match="no column 'text'; there are: content, path"):
        source(f"jsonl={tmp_path}/a.jsonl").fingerprint()


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    values = [f"row {i}" for i in range(700)] + [None]
    table = pyarrow.table({"code": values, "n": list(range(701))})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=200)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    one = source(f"parquet={tmp_path}/a.parquet#code")
    assert contents(one.read()) == [*values[:-1], "no_text"]
    whole = list(one.read())
    for i in (0, 150, 199, 200, 555, 700):
        assert list(one.read(whole[i].after)) == whole[i + 1 :]
    assert "damaged" in contents(source(f"parquet={tmp_path}/*.parquet#code").read())
    with pytest.raises(InputError, match="there are: code, n"):
        source(f"parquet={tmp_path}/a.parquet#text").fingerprint()
    with pytest.raises(InputError, match="not a Parquet file"):
        source(f"parquet={tmp_path}/b.parquet#text").fingerprint()


@pytest.mark.parametrize(("text", "package"), [("parquet={}/a.x#t", "pyarrow"), ("hf=some/set#t", "datasets")])
def test_absent_optional_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, package: str
) -> None:
    (tmp_path / "a.x").write_text("x")
    for name in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        source(text.format(tmp_path)).fingerprint()


class _Rows(list[dict[str, Any]]):
    """As much of a streamed Hugging Face dataset as is used."""

    info = types.SimpleNamespace(version="1.2.0")

    def skip(self, count: int) -> "_Rows":
        return _Rows(self[count:])


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> _Rows:
        asked.append((args, kwargs))
        return _Rows([{"content": "a"}, {"content": None}, {"content": "b"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    one = source("hf=someone/code@python#content")
    assert one.fingerprint() == {"version": "1.2.0"}
    assert contents(one.read()) == ["a", "no_text", "b"]
    assert contents(one.read((0, 1))) == ["no_text", "b"]
    assert asked == [(("someone/code", "python"), {"split": "train", "streaming": True})]
    with pytest.raises(InputError, match="there are: content"):
        source("hf=someone/code").fingerprint()


# -- idioms --------------------------------------------------------------------------------------------------------


def test_idioms_continue_anywhere_and_follow_the_seed() -> None:
    def first(seed: int, count: int, start: tuple[int, int] = sources_module.START) -> list[Any]:
        documents = source("idioms", seed).read(start)
        return [next(documents).content for _ in range(count)]

    assert first(0, 8)[3:] == first(0, 5, (0, 3))
    assert first(0, 8) != first(1, 8)
