"""Batches by step: pure, complete, mixed by weight, the same for any number of processes."""

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt.config import DataConfig
from sparse_gpt.data import Corpus, idioms, prepare_corpus
from sparse_gpt.data.corpus import Work
from sparse_gpt.errors import InputError

CONTEXT = 32


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    tree = tmp_path_factory.mktemp("tree")
    for i in range(30):
        (tree / f"{i}.py").write_text("".join(idioms.documents(i + 1, 0, 4)))
    return prepare_corpus(
        tree.parent / "corpus",
        DataConfig(f"idioms:0.75,python_source={tree}:0.25", tokens=30_000, validation_fraction=0.1),
        300,
        progress=False,
        work=Work(shard_tokens=4000),
    )


def windows_of(corpus: Corpus, split: str, source: int) -> set[bytes]:
    """All windows of a source and split, cut with NumPy alone."""
    found = []
    for shard in corpus.manifest["shards"]:
        if (shard["source"], shard["split"]) == (source, split):
            ids = np.fromfile(corpus.folder / "shards" / shard["name"], corpus.manifest["dtype"]).astype(np.int32)
            starts = range(0, len(ids) - CONTEXT, CONTEXT)
            found.extend(ids[start : start + CONTEXT + 1].tobytes() for start in starts)
    return set(found)


def rows(corpus: Corpus, count: int, split: str = "train", seed: int = 0) -> list[bytes]:
    windows = corpus.windows(split, seed, CONTEXT)
    return [windows[i].tobytes() for i in range(count)]


def test_shape_and_type(corpus: Corpus) -> None:
    batch = corpus.batch("train", 0, 5, 8, CONTEXT)
    assert batch.shape == (8, CONTEXT + 1)
    assert batch.dtype == np.int32
    assert batch.min() >= 0
    assert batch.max() < corpus.tokenizer.vocab_size


def test_batch_is_a_pure_function_of_the_step(corpus: Corpus) -> None:
    again = Corpus.open(corpus.folder)
    for step in (7, 0, 10**6, 3):
        assert (again.batch("train", 3, step, 8, CONTEXT) == corpus.batch("train", 3, step, 8, CONTEXT)).all()


def test_seed_split_and_epoch_change_the_order(corpus: Corpus) -> None:
    first = rows(corpus, 20)
    assert rows(corpus, 20, seed=1) != first
    assert not set(rows(corpus, 20, split="validation")) & set(first)
    single = windows_of(corpus, "train", 1)
    python = [row for row in rows(corpus, 12 * len(single)) if row in single]
    assert python[: len(single)] != python[len(single) : 2 * len(single)]


def test_neighboring_seeds_share_no_epoch(corpus: Corpus) -> None:
    """grain adds the epoch to the seed: taken as it is, seed 1 would begin with the second epoch of seed 0."""
    single = windows_of(corpus, "train", 1)
    two = [[r for r in rows(corpus, 12 * len(single), seed=seed) if r in single] for seed in (0, 1)]
    assert two[0][len(single) : 2 * len(single)] != two[1][: len(single)]


@pytest.mark.slow
def test_every_window_once_per_epoch(corpus: Corpus) -> None:
    """Of each source; sources alternate by weight, so the smaller is repeated more often."""
    for source in (0, 1):
        known = windows_of(corpus, "train", source)
        mine = [row for row in rows(corpus, 12 * len(known)) if row in known]
        for epoch in range(2):
            assert set(mine[epoch * len(known) : (epoch + 1) * len(known)]) == known


@pytest.mark.parametrize("share", [0.75, 0.9137, 0.1])
def test_an_epoch_has_every_window_of_every_source_and_little_more(corpus: Corpus, share: float) -> None:
    weights = (share, 1 - share)
    sources = [{**source, "weight": w} for source, w in zip(corpus.manifest["sources"], weights, strict=True)]
    mixed = Corpus(corpus.folder, {**corpus.manifest, "sources": sources}, corpus.tokenizer, corpus.sha256)
    known = [windows_of(corpus, "validation", source) for source in (0, 1)]
    assert min(map(len, known)) > 1
    count = mixed.epoch("validation", CONTEXT)
    assert set(rows(mixed, count, "validation")) == known[0] | known[1]
    assert set(rows(mixed, count * 9 // 10 - 1, "validation")) != known[0] | known[1]


@pytest.mark.parametrize(
    ("windows", "weights"),
    [([95, 124, 178], [0.37, 0.51, 0.15]), ([202, 256], [0.64, 0.38]), ([5, 6, 7], [0.71, 0.15, 0.17])],
)
def test_an_epoch_is_enough_where_weights_are_no_round_numbers(
    monkeypatch: pytest.MonkeyPatch, corpus: Corpus, windows: list[int], weights: list[float]
) -> None:
    """Sources which their weights alone would leave unfinished."""
    streams = [(i, [(i, w) for w in range(count)], weights[i]) for i, count in enumerate(windows)]
    mixed = Corpus(corpus.folder, corpus.manifest, corpus.tokenizer, corpus.sha256)
    monkeypatch.setattr(mixed, "_streams", lambda split, context: streams)
    count, given = mixed.epoch("train", CONTEXT), mixed.windows("train", 0, CONTEXT)
    assert {given[i] for i in range(count)} == {window for _, stream, _ in streams for window in stream}


def test_an_epoch_of_an_unknown_split(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="split 'dev': choose one of train"):
        corpus.epoch("dev", CONTEXT)


def test_sources_are_mixed_by_weight(corpus: Corpus) -> None:
    known = windows_of(corpus, "train", 0)
    for start in (0, 400, 100_000):
        batch = corpus.batch("train", 0, start, 400, CONTEXT)
        assert sum(row.tobytes() in known for row in batch) == pytest.approx(300, abs=4)


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_processes_read_the_same_global_batches(corpus: Corpus, processes: int) -> None:
    loaders = [corpus.loader("train", 1, 16, CONTEXT, 4, (p, processes)) for p in range(processes)]
    for step in range(4, 8):
        parts = [next(loader) for loader in loaders]
        assert all(part.shape == (16 // processes, CONTEXT + 1) for part in parts)
        assert (np.concatenate(parts) == corpus.batch("train", 1, step, 16, CONTEXT)).all()


def test_loader_resumes_from_the_step_alone(corpus: Corpus) -> None:
    whole = list(itertools.islice(corpus.loader("train", 0, 4, CONTEXT), 9))
    rest = list(itertools.islice(corpus.loader("train", 0, 4, CONTEXT, start_step=5), 4))
    assert all((a == b).all() for a, b in zip(whole[5:], rest, strict=True))


def test_loader_reads_ahead_and_stops_its_thread(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = Corpus._rows

    def counted(windows: object, start: int, count: int) -> np.ndarray:
        asked.append(start // count)
        return real(windows, start, count)  # type: ignore[arg-type]

    monkeypatch.setattr(Corpus, "_rows", staticmethod(counted))
    loader = corpus.loader("train", 0, 4, CONTEXT)
    next(loader)
    loader.close()  # type: ignore[attr-defined]
    assert asked == [0, 1, 2, 3, 4]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_windows_do_not_cross_documents_of_other_shards(corpus: Corpus) -> None:
    known = windows_of(corpus, "train", 0) | windows_of(corpus, "train", 1)
    assert set(rows(corpus, 300)) <= known


def test_bad_input(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of train, validation, test"):
        corpus.batch("dev", 0, 0, 4, CONTEXT)
    with pytest.raises(InputError, match="less than one window of 100001"):
        corpus.batch("validation", 0, 0, 4, 100_000)
    with pytest.raises(InputError, match="multiple of the 3 processes"):
        corpus.loader("train", 0, 16, CONTEXT, part=(0, 3))
    with pytest.raises(InputError, match="no corpus there"):
        Corpus.open(tmp_path)
