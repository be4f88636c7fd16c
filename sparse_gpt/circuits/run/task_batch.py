"""Samples of a task as arrays, and what is done to a batch of them before it meets a model."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from sparse_gpt.model.packing import NOWHERE, Packing
from sparse_gpt.parameters import Leaf

LEFT_OUT, BUCKET = 0.1, 8  # the longest pairs: their share, and what the tokens of all others are rounded up to
MANY_ANSWERS = 16  # pairs of answers, from which on what a task asks for is a word
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


class PackedBatch(NamedTuple):
    """Samples of a task without padding between their prompts; otherwise as a `TaskBatch`."""

    tokens: Leaf  # (1, N) int32
    packing: Packing
    answer: Leaf
    foil: Leaf
    task: Leaf = None
    foil_share: Leaf = None

    @property
    def positions(self) -> jax.Array:
        """(B,) where the answers are predicted, within each prompt."""
        return self.packing.positions


AnyBatch = TaskBatch | PackedBatch


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


def packed(batch: TaskBatch, tokens: int, count: int | None = None, time: int | None = None) -> PackedBatch:
    """A batch on the host with its prompts one after the other, each up to the token that predicts its answer.

    Filled up, so that few programs serve many batches, to `tokens` (N), to `count` prompts (B; default: as many as it
    has) without tokens, and to a longest prompt of `time` (T; default: as the batch is padded).
    """
    ends, more = np.asarray(batch.positions), 0 if count is None else count - len(batch.positions)
    time = batch.tokens.shape[1] if time is None else time
    row, at = np.nonzero(np.arange(time)[None, :] <= ends[:, None])
    fill = tokens - len(row)
    grid = np.full((len(ends) + more, time), NOWHERE, np.int32)
    grid[row, at] = np.arange(len(row))

    def of_tokens(x: np.ndarray, filler: int = 0) -> np.ndarray:
        return np.pad(x, (0, fill), constant_values=filler).astype(np.int32)

    def of_prompts(x: Leaf, kind: type = np.int32) -> np.ndarray | None:
        return None if x is None else np.pad(np.asarray(x, kind), (0, more))

    where = Packing(of_tokens(at), of_prompts(np.cumsum(ends + 1) - 1), grid, of_tokens(row * time + at, NOWHERE), time)
    return PackedBatch(
        of_tokens(np.asarray(batch.tokens)[row, at])[None],
        where,
        of_prompts(batch.answer),
        of_prompts(batch.foil),
        of_prompts(batch.task),
        of_prompts(batch.foil_share, np.float32),
    )


def packed_values(values: np.ndarray, batch: TaskBatch, into: PackedBatch) -> np.ndarray:
    """What belongs to tokens (B, at least T), or to prompts (B, 1), of a batch in the order of `packed(batch, ...)`:
    (N,), or (its B,), filled up with zeros."""
    ends = np.asarray(batch.positions)
    if values.shape[1] == 1:
        return np.pad(values[:, 0], (0, len(into.answer) - len(ends)))
    inside = np.arange(values.shape[1])[None, :] <= ends[:, None]
    return np.pad(values[inside], (0, into.tokens.size - int(inside.sum())))


def tokens_of(batch: TaskBatch, multiple: int) -> int:
    """Tokens of all prompts of a batch, rounded up to a multiple."""
    return -(-int(np.sum(np.asarray(batch.positions) + 1)) // multiple) * multiple


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
        pairs = np.flatnonzero(lengths <= _longest(lengths))
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


def _longest(lengths: np.ndarray) -> int:
    """A multiple of BUCKET tokens that holds all but LEFT_OUT of the pairs."""
    return -(-int(np.quantile(lengths, 1 - LEFT_OUT, method="inverted_cdf")) // BUCKET) * BUCKET


def answer_clusters(batch: TaskBatch) -> np.ndarray:
    """(B,) labels of samples whose losses are not independent: of a task that copies words, those whose pair has the
    same two answers; else every pair is its own."""
    answers = np.sort(np.stack([batch.answer, batch.foil], axis=1), axis=1)
    _, label = np.unique(answers, axis=0, return_inverse=True)
    label = label.reshape(-1)
    return label if label.max() + 1 >= MANY_ANSWERS else np.arange(len(label)) // 2


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


def by_task(batch: TaskBatch, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of each task, by name; of a batch of one task, all."""
    if batch.task is None:
        yield names[0], np.arange(len(batch.positions))
        return
    for i, name in enumerate(names):
        yield name, np.flatnonzero(batch.task == i)
