"""Intervals of the card: they count words, not samples."""

import dataclasses

import numpy as np
import pytest

from sparse_gpt.circuits.evidence.card.subject import sample_sets
from sparse_gpt.circuits.evidence.card.words import clusters, distinct_pairs, free_words, vocabulary
from sparse_gpt.circuits.run import statistics
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from tests import ground_truth


def covered(words: int, per_word: int, draws: int) -> float:
    """How often the interval holds the true mean, 0, when every sample of a word has the word's own value."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(words), per_word)
    hits = 0
    for _ in range(draws):
        values = np.repeat(rng.standard_normal(words), per_word) + 0.1 * rng.standard_normal(words * per_word)
        low, high = statistics.mean(values, labels).interval or (0, 0)
        hits += low <= 0 <= high
    return hits / draws


@pytest.mark.parametrize("words", [6, 16, 60])
def test_intervals_hold_what_they_promise_for_clustered_samples(words: int) -> None:
    assert covered(words, 8, 1000) == pytest.approx(0.95, abs=0.025)


def test_samples_of_one_word_count_once() -> None:
    values, labels = np.repeat(np.arange(10.0), 20), np.repeat(np.arange(10), 20)
    clustered, single = statistics.mean(values, labels), statistics.mean(values[::20], labels[::20])
    assert clustered.interval == pytest.approx(single.interval)
    assert statistics.mean(values, np.arange(200)).interval[1] < clustered.interval[1] - 1


def test_few_words_give_no_interval() -> None:
    assert statistics.mean(np.arange(40.0), np.arange(40) % 4) == statistics.Estimate(19.5, None, 4)
    assert statistics.nonnegative_mean(np.zeros(4), np.zeros(4)).interval is None


def test_t_quantiles() -> None:
    """Of a table."""
    known = {4: 2.776, 9: 2.262, 15: 2.131, 60: 2.000, 10**6: 1.960}
    for freedom, value in known.items():
        assert statistics.t_quantile(freedom) == pytest.approx(value, rel=5e-3)


def test_a_share_without_mistakes_is_not_certain() -> None:
    low, high = statistics.share(np.ones(256), np.arange(256) % 16).interval
    assert (round(low, 2), high) == (0.81, 1)
    wide = statistics.share(np.arange(256) % 16 < 12, np.arange(256) % 16).interval  # four words always wrong
    narrow = statistics.share(np.arange(256) % 4 < 3, np.arange(256) // 4).interval
    assert wide[1] - wide[0] > 1.7 * (narrow[1] - narrow[0])


@pytest.mark.parametrize("samples", [2, 3, 5, 7, 10])
def test_equal_shares_count_words(samples: int) -> None:
    """Also where rounding leaves the words' shares a little apart: eight words count as eight samples."""
    found = statistics.share(np.tile(np.arange(samples) < 1, 8), np.repeat(np.arange(8), samples))
    share, z = 1 / samples, 1.959964
    middle, half = share + z**2 / 16, z * np.sqrt(share * (1 - share) / 8 + z**2 / 256)  # Wilson
    assert found.interval == pytest.approx(((middle - half) / (1 + z**2 / 8), (middle + half) / (1 + z**2 / 8)))


def test_words_by_mean() -> None:
    found = statistics.by_cluster(np.array([1.0, 3.0, 0.0, 0.0]), np.array(["a", "a", "b", "b"]))
    assert found == [("a", 2.0, 2), ("b", 0.0, 2)]


TEXTS = ['"', "'", "print(", " say", " calm", " river", " old", "\n", "x", " lit", "tle"]


def prompts(*rows: list[int]) -> TaskBatch:
    length = max(map(len, rows))
    tokens = np.array([row + [7] * (length - len(row)) for row in rows], np.int32)
    ends = np.array([len(row) - 1 for row in rows], np.int32)
    return TaskBatch(tokens, ends, ends, ends)


def test_a_sample_s_cluster_is_its_last_free_word() -> None:
    train = prompts([2, 0, 6, 3], [2, 1, 6, 3])
    heldout = prompts([2, 0, 5, 4], [2, 1, 5, 4], [2, 0, 4, 9, 10, 3], [2, 1, 4, 9, 10, 3], [2, 0, 6], [2, 1, 6])
    seen = vocabulary(train, TEXTS.__getitem__)
    free = free_words(heldout, seen, TEXTS.__getitem__)
    assert free == {"calm", "river", "little"}
    assert free_words(heldout, seen, TEXTS.__getitem__, frozenset({"little", "old"})) == {"little"}
    assert free_words(heldout, seen - {"print"}, TEXTS.__getitem__) == free  # what all prompts have is a template's
    assert clusters(heldout, free, TEXTS.__getitem__).tolist() == ["calm", "calm", "little", "little", "old", "old"]
    assert clusters(heldout, free, None).tolist() == ["4", "4", "3", "3", "6", "6"]


def test_every_set_of_samples_has_free_words_of_its_own() -> None:
    """A family that the search did not see is filled with other words than the searched ones; text has none."""
    problem = ground_truth.problem(pairs=8)
    novel = ground_truth.batch("train", 8, 5)  # a template's words, those of the search
    new = np.repeat(np.arange(36, 40, dtype=np.int32), 4)
    novel.tokens[:, 4] = new
    text = [ground_truth.token_text(token) for token in range(ground_truth.VOCABULARY)]
    samples = dataclasses.replace(problem.samples, novel={"other": novel})
    found = sample_sets(dataclasses.replace(problem, samples=samples))["family other"].words
    assert found.tolist() == [text[token].strip() for token in new]
    twice = rows(novel, np.array([0, 1, 2, 3, 0, 1]))
    assert distinct_pairs(twice).tolist() == ["0", "0", "1", "1", "0", "0"]
