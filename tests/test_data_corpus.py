"""Preparing a corpus: counts, determinism, kills, damage; every bad input names the value and the way out."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse_gpt.config import DataConfig
from sparse_gpt.data import Corpus, Tokenizer, idioms, prepare_corpus, shards
from sparse_gpt.data.cleaning import Rule
from sparse_gpt.data.corpus import Work
from sparse_gpt.data.ingest import Seen
from sparse_gpt.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = {"vocab_size": 320, "shard_tokens": 6000, "checkpoint_bytes": 10_000, "validation_fraction": 0.15}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 Python files, copies of 20 of them, and one file that is not UTF-8."""
    folder = tmp_path_factory.mktemp("tree")
    for i in range(40):
        (folder / f"file{i}.py").write_text("".join(idioms.documents(100 + i, 0, 2)))
    for i in range(20):
        (folder / f"copy{i}.py").write_text((folder / f"file{i}.py").read_text())
    (folder / "latin.py").write_bytes(b"name = '\xe9t\xe9'  # not UTF-8\n")
    return folder


def prepare(folder: Path, tree: Path, **changes: Any) -> Corpus:
    """A small corpus of DataConfig's fields, vocab_size, rule, and fields of Work."""
    given = {"sources": f"idioms:1,python_source={tree}:1", "tokens": 40_000} | SMALL | changes
    size, rule = given.pop("vocab_size"), given.pop("rule", None)
    work = Work(**{name: given.pop(name) for name in Work.__dataclass_fields__ if name in given})
    return prepare_corpus(folder, DataConfig(**given), size, rule, progress=False, work=work)


@pytest.fixture(scope="module")
def corpus(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(tmp_path_factory.mktemp("corpus") / "corpus", tree)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def documents(corpus: Corpus, source: int, split: str) -> list[str]:
    """The documents of a source and split, read with NumPy alone."""
    stream = b"".join(
        (corpus.folder / "shards" / shard["name"]).read_bytes()
        for shard in corpus.manifest["shards"]
        if shard["source"] == source and shard["split"] == split
    )
    ids = np.frombuffer(stream, corpus.manifest["dtype"])
    assert not len(ids) or ids[-1] == corpus.tokenizer.eot_id
    ends = np.flatnonzero(ids == corpus.tokenizer.eot_id)
    return [
        corpus.tokenizer.decode(part[part != corpus.tokenizer.eot_id].tolist()) for part in np.split(ids, ends + 1)[:-1]
    ]


# -- what is in it -------------------------------------------------------------------------------------------------


def test_every_document_is_there_once_in_the_right_split(corpus: Corpus, tree: Path) -> None:
    by_split = {split: documents(corpus, 1, split) for split in ("train", "validation", "test")}
    found = [text for texts in by_split.values() for text in texts]
    files = {path.read_text() for path in tree.glob("file*.py")}
    assert len(found) == len(set(found)) == 40
    assert set(found) == files
    entry = corpus.manifest["sources"][1]
    assert entry["dropped"] == {"duplicate": 20, "not_utf8": 1}
    assert entry["documents_read"] == 61
    assert entry["exhausted"]
    assert {s: c["documents"] for s, c in entry["splits"].items()} == {s: len(t) for s, t in by_split.items()}
    assert entry["splits"]["train"]["bytes"] == sum(len(text.encode()) for text in by_split["train"])


def test_generated_source_fills_its_share(corpus: Corpus) -> None:
    counts = corpus.manifest["sources"][0]["splits"]["train"]
    assert 20_000 <= counts["tokens"] < 21_000
    texts = documents(corpus, 0, "train")
    assert len(texts) == counts["documents"]
    assert not set(texts) & set(documents(corpus, 0, "validation"))
    assert texts[0] in set(idioms.documents(0, 0, 10))


def test_manifest_vouches_for_every_shard(corpus: Corpus) -> None:
    assert corpus.manifest["format"] == "sparse_gpt.corpus/1"
    assert len([shard for shard in corpus.manifest["shards"] if shard["source"] == 0]) > 3
    listed = {shard["name"] for shard in corpus.manifest["shards"]}
    assert {path.name for path in (corpus.folder / "shards").iterdir()} == listed
    for split in ("train", "validation", "test"):
        assert corpus.tokens(split) == sum(s["splits"][split]["tokens"] for s in corpus.manifest["sources"])


@pytest.mark.slow
def test_bytes_do_not_depend_on_place_threads_or_checkpoints(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere" / "tree")
    for workers, checkpoint_bytes in ((1, 1000), (3, 10**9)):
        other = prepare(tmp_path / str(workers), tree, workers=workers, checkpoint_bytes=checkpoint_bytes)
        assert contents(other.folder) == contents(corpus.folder)
    moved = prepare(tmp_path / "moved", tmp_path / "elsewhere" / "tree")
    assert [shard["sha256"] for shard in moved.manifest["shards"]] == [s["sha256"] for s in corpus.manifest["shards"]]


def test_seed_changes_the_corpus(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    assert prepare(tmp_path, tree, seed=1).sha256 != corpus.sha256


@pytest.mark.slow
def test_zero_tokens_takes_everything_in_proportion(tree: Path, tmp_path: Path) -> None:
    corpus = prepare(tmp_path, tree, tokens=0, sources=f"idioms:3,python_source={tree}:1")
    idiom, python = (source["splits"]["train"]["tokens"] for source in corpus.manifest["sources"])
    assert 3 * python <= idiom < 3 * python + 1000


def test_a_tokenizer_can_be_given(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    other = prepare(tmp_path, tree, seed=1, tokenizer=str(corpus.folder / "tokenizer"))
    assert other.tokenizer.sha256 == corpus.tokenizer.sha256
    assert other.manifest["settings"]["tokenizer"] == corpus.tokenizer.sha256


def test_reject_keeps_documents_out(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    word = "while"
    other = prepare(tmp_path, tree, rule=Rule(lambda text: word in text, "no loops"))
    assert other.manifest["settings"]["reject"] == "no loops"
    for number in (0, 1):
        before, after = (documents(c, number, "train") for c in (corpus, other))
        assert any(word in text for text in before)
        assert not any(word in text for text in after)
        assert other.manifest["sources"][number]["dropped"]["rejected"] > 0


def test_complete_corpus_is_opened_not_rebuilt(corpus: Corpus, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.ShardWriter, "__init__", None)  # would raise
    assert prepare(corpus.folder, tree).sha256 == corpus.sha256


# -- interruptions -------------------------------------------------------------------------------------------------

# Each child continues the preparation and is killed, either before its n-th renaming or flushing to disk or by a
# timer; the parent goes on until one comes to the end.
KILLER = """
import os, random, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.test_data_corpus import prepare, Path

def child(rng):
    left = rng.randrange(1, 30)
    def counted(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    os.replace, os.fsync = counted(os.replace), counted(os.fsync)
    if rng.random() < 0.3:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.02, 0.5))
    prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    os._exit(0)

rng = random.Random(int(sys.argv[4]))
deaths = 0
while True:
    part = random.Random(rng.random())
    if not (pid := os.fork()):
        child(part)
    if os.waitpid(pid, 0)[1] == 0:
        break
    deaths += 1
    assert deaths < 200
print(deaths)
"""


@pytest.mark.parametrize("size", [None, 0, 12])
def test_a_short_log_of_duplicates_is_named(tmp_path: Path, size: int | None) -> None:
    log = tmp_path / "seen.bin"
    if size is not None:
        log.write_bytes(bytes(size))
    with pytest.raises(InputError, match=rf"seen\.bin: {size or 0} bytes where 16 were written; delete {tmp_path}$"):
        Seen(log, 2).close()
    log.write_bytes(bytes(20))  # what came after the last flush goes
    seen = Seen(log, 2)
    seen.close()
    assert (seen.keys, log.stat().st_size) == (2, 16)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_continues_to_the_same_bytes(
    corpus: Corpus, tree: Path, tmp_path: Path, seed: int
) -> None:
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLER),
        str(REPOSITORY),
        str(tmp_path / "c"),
        str(tree),
        str(seed),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 3
    assert contents(tmp_path / "c") == contents(corpus.folder)


class _Stop(Exception):
    pass


def interrupted(folder: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> None:
    """Leaves a preparation unfinished after a few shards."""
    real = shards.ShardWriter._finish
    left = after

    def finish(writer: shards.ShardWriter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Stop
        real(writer)

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "_finish", finish)
        with pytest.raises(_Stop):
            prepare(folder, tree)


def test_unfinished_corpus_is_not_opened_and_keeps_its_settings(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, tree, monkeypatch)
    with pytest.raises(InputError, match=r"manifest\.json is missing"):
        Corpus.open(tmp_path)
    with pytest.raises(InputError, match="unfinished corpus with seed=0, not 5"):
        prepare(tmp_path, tree, seed=5)


def test_changed_sources_are_noticed_on_continuing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tree, tmp_path / "tree")
    interrupted(tmp_path / "c", tmp_path / "tree", monkeypatch)
    (tmp_path / "tree" / "new.py").write_text("print('one file more')\n")
    with pytest.raises(InputError, match="has changed since"):
        prepare(tmp_path / "c", tmp_path / "tree")


def test_full_disk_keeps_shards_and_continues(
    corpus: Corpus, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.fsync, 40

    def fsync(file: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(InputError, match=r"no space left.*run the same command again"):
            prepare(tmp_path, tree)
    before = {path: path.read_bytes() for path in (tmp_path / "shards").glob("*.bin")}
    assert before
    assert not list(tmp_path.rglob("*.tmp"))
    prepare(tmp_path, tree)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert contents(tmp_path) == contents(corpus.folder)


def test_two_at_once_are_refused(tree: Path, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            prepare(tmp_path, tree)


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Path:
    shutil.copytree(corpus.folder, tmp_path / "copy")
    return tmp_path / "copy"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    data, status = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # a disk error leaves no trace in the time


@pytest.mark.parametrize(
    ("harm", "message"),
    [(truncate, "damaged, .* bytes instead of"), (flip, "damaged .its SHA-256 differs"), (Path.unlink, "missing")],
)
def test_damaged_shard_is_named(copy: Path, harm: Callable[[Path], None], message: str) -> None:
    path = sorted((copy / "shards").iterdir())[2]
    harm(path)
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        Corpus.open(copy)


def test_large_corpus_is_hashed_again_when_a_file_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_ALWAYS_HASH_BELOW", 0)
    hashed: list[str] = []
    real = shards.sha256_file
    monkeypatch.setattr(shards, "sha256_file", lambda path: hashed.append(path.name) or real(path))
    Corpus.open(copy)
    count = len(hashed)
    assert count == len(list((copy / "shards").iterdir()))
    Corpus.open(copy)
    assert len(hashed) == count
    path = sorted((copy / "shards").iterdir())[0]
    flip(path)
    os.utime(path)
    with pytest.raises(InputError, match=path.name):
        Corpus.open(copy)
    assert len(hashed) == count + 1
    with pytest.raises(InputError, match=path.name):
        Corpus.open(copy, verify="full")


def test_tokenizer_of_another_corpus_is_refused(copy: Path) -> None:
    folder = copy / "tokenizer"
    table = json.loads((folder / "encoder.json").read_text())
    shorter = {name: i for name, i in table.items() if i < 310}
    merges = (folder / "vocab.bpe").read_text().splitlines()[: 1 + 310 - 256]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps(shorter))
    (folder / "vocab.bpe").write_text("\n".join(merges) + "\n")
    assert Tokenizer.load(folder).vocab_size == 311
    with pytest.raises(InputError, match="is not the corpus's tokenizer"):
        Corpus.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other/1"}', '{"format": "sparse_gpt.corpus/1"}'])
def test_damaged_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        Corpus.open(copy)


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": "text={tree}/*.nothing"}, "no files found"),
        ({"sources": "python_source={tree}", "max_file_bytes": 10}, "no training document left.*61 too_large"),
        ({"sources": "idioms", "tokens": 0}, "has no end"),
        ({"vocab_size": 200}, "at least 257"),
        ({"vocab_size": 65536}, "allows only"),
        ({"tokenizer": "/nowhere"}, "no tokenizer there"),
    ],
)
def test_unusable_input_leaves_nothing_behind(
    tree: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "sources" in changes:
        changes = changes | {"sources": changes["sources"].format(tree=tree)}
    with pytest.raises(InputError, match=message) as caught:
        prepare(tmp_path / "c", tree, **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()
    prepare(tmp_path / "c", tree)  # the same folder serves the mended command


def test_given_tokenizer_of_another_size(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 320 entries, the model 512"):
        prepare(tmp_path, tree, vocab_size=512, tokenizer=str(corpus.folder / "tokenizer"))


def test_corpus_of_other_settings_is_refused(corpus: Corpus, tree: Path) -> None:
    before = contents(corpus.folder)
    with pytest.raises(InputError, match="holds a corpus with tokens=40000, not 50000"):
        prepare(corpus.folder, tree, tokens=50_000)
    assert contents(corpus.folder) == before


def test_folder_of_something_else_is_left_alone(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files and no corpus"):
        prepare(tmp_path, tree)
    assert contents(tmp_path) == {"tokenizer/mine.txt": b"precious"}


def test_folder_that_is_a_file(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(tmp_path / "file", tree)


def test_global_random_state_is_not_touched(tree: Path, tmp_path: Path) -> None:
    """Preparing must not draw from, or seed, the generator of a program that uses it as a library."""
    state = random.getstate()
    prepare(tmp_path, tree, tokens=5_000)
    assert random.getstate() == state
