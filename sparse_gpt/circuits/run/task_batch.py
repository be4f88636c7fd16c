"""Samples of a task as arrays, and what is done to a batch of them before it meets a model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sparse_gpt.parameters import Leaf

LEFT_OUT, BUCKET = 0.1, 8  # the longest pairs: their share, and what the tokens of all others are rounded up to
LENGTHS = 32  # evaluated prompts are padded to a multiple of so many tokens: few programs serve all tasks


class EncodedTask(Protocol):
    """What `tasks.encode` returns: numpy arrays; rows 2 i and 2 i + 1 are a pair."""

    @property
    def tokens(self) -> np.ndarray: ...  # (B, T) int32, padded on the right
    @property
    def lengths(self) -> np.ndarray: ...  # (B,): the answer is predicted at position lengths - 1
    @property
    def answer_id(self) -> np.ndarray: ...  # (B,)
    @property
    def foil_id(self) -> np.ndarray: ...  # (B,)


class TaskBatch(NamedTuple):
    """Samples of a task. Rows 2 i and 2 i + 1 are a pair."""

    tokens: Leaf  # (B, T) int32
    positions: Leaf  # (B,) int32, where the answer is predicted
    answer: Leaf  # (B,) int32
    foil: Leaf  # (B,) int32
    task: Leaf = None  # (B,) int32, which of several tasks; None when there is one
    foil_share: Leaf = None  # (B,) the model's probability of the foil, where it is to be matched; see objective.py

    @property
    def packing(self) -> None:
        """Prompts are padded to one length."""
        return None


def task_batch(encoded: EncodedTask) -> TaskBatch:
    """All samples of an encoded task."""
    return TaskBatch(
        np.asarray(encoded.tokens, np.int32),
        np.asarray(encoded.lengths, np.int32) - 1,
        np.asarray(encoded.answer_id, np.int32),
        np.asarray(encoded.foil_id, np.int32),
    )


def rows(batch: TaskBatch, index: Leaf | slice) -> TaskBatch:
    """The given rows (an index array or slice) of a batch."""
    return TaskBatch(*(None if array is None else array[index] for array in batch))


def joined(batches: Sequence[TaskBatch]) -> TaskBatch:
    """Samples of several batches of one length, one batch after the other."""
    return TaskBatch(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*batches, strict=True)))


def padded(batch: TaskBatch, length: int) -> TaskBatch:
    """A batch with prompts padded to `length`; what stands after the answer's position changes nothing."""
    return batch._replace(tokens=np.pad(batch.tokens, ((0, 0), (0, length - batch.tokens.shape[1]))))


def by_length(batch: TaskBatch) -> TaskBatch:
    """A batch in order of length, pairs together: what goes through the model at one time is then of like length."""
    pairs = np.argsort(np.max(np.asarray(batch.positions).reshape(-1, 2), axis=1), kind="stable")
    return rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))


def by_task_and_length(batch: TaskBatch) -> TaskBatch:
    """The same within each task of a batch of several: what goes through the model at one time is then of one task."""
    if batch.task is None:
        return by_length(batch)
    tasks = np.asarray(batch.task)
    return joined([by_length(rows(batch, np.flatnonzero(tasks == each))) for each in np.unique(tasks)])


def few(batch: TaskBatch, most: int) -> np.ndarray:
    """Rows of at most `most` samples of a batch in order of length: pairs together, of all lengths but the longest,
    which all others would be padded to."""
    lengths = _lengths(batch)
    pairs = np.arange(len(lengths))
    if len(pairs) > most // 2:
        pairs = np.flatnonzero(_short(batch, lengths))
        pairs = pairs[np.linspace(0, len(pairs) - 1, min(most // 2, len(pairs))).astype(int)]
    return np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1)


def rounded(length: int, most: int) -> int:
    """The next multiple of LENGTHS, at most `most`, the model's context."""
    return min(-(-length // LENGTHS) * LENGTHS, most)


def trimmed(batch: TaskBatch, least: int = 0) -> TaskBatch:
    """A batch no wider than `rounded` says that its prompts, or `least` tokens, need."""
    length = max(int(np.max(batch.positions)) + 1, least)
    return batch._replace(tokens=batch.tokens[:, : rounded(length, batch.tokens.shape[1])])


def without_longest(batch: TaskBatch) -> TaskBatch:
    """A batch without its longest pairs, at most a tenth of all.

    Prompts are padded to the longest, so a few long ones would cost the search more than all others together.
    """
    lengths = _lengths(batch)
    longest = _longest(lengths)
    kept = rows(batch, np.repeat(lengths <= longest, 2))
    return kept._replace(tokens=kept.tokens[:, :longest])


def _lengths(batch: TaskBatch) -> np.ndarray:
    """(pairs,) tokens of the longer one of each pair."""
    return np.max(np.asarray(batch.positions).reshape(-1, 2), axis=1) + 1


def _short(batch: TaskBatch, lengths: np.ndarray) -> np.ndarray:
    """(pairs,) whether one is not among the longest; of a task that would be left out whole, among its own longest."""
    short = lengths <= _longest(lengths)
    if batch.task is not None:
        task = np.asarray(batch.task)[::2]
        for each in np.setdiff1d(task, task[short]):
            own = task == each
            short |= own & (lengths <= _longest(lengths[own]))
    return short


def _longest(lengths: np.ndarray) -> int:
    """A multiple of BUCKET tokens that holds all but LEFT_OUT of the pairs."""
    return -(-int(np.quantile(lengths, 1 - LEFT_OUT, method="inverted_cdf")) // BUCKET) * BUCKET


def interleave(batches: Sequence[TaskBatch]) -> TaskBatch:
    """Pairs of the batches, alternating, as far as the shortest one goes; `task` is a sample's batch."""
    pairs = min(len(batch.positions) for batch in batches) // 2
    length = max(batch.tokens.shape[1] for batch in batches)
    parts = [rows(padded(batch, length), slice(2 * pairs)) for batch in batches]
    parts = [batch._replace(task=np.full(2 * pairs, i, np.int32)) for i, batch in enumerate(parts)]

    def woven(arrays: Sequence[np.ndarray]) -> np.ndarray:
        by_pair = [array.reshape(pairs, 2, *array.shape[1:]) for array in arrays]
        return np.stack(by_pair, axis=1).reshape(-1, *arrays[0].shape[1:])

    return TaskBatch(*(None if arrays[0] is None else woven(arrays) for arrays in zip(*parts, strict=True)))
