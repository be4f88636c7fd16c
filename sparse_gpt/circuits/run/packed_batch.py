"""Samples of a task without padding between their prompts, and how they are cut so that few programs serve them."""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from sparse_gpt.circuits.run.task_batch import LENGTHS, TaskBatch, rows
from sparse_gpt.model.packing import NOWHERE, Packing
from sparse_gpt.parameters import Leaf

PART, CELLS = 2048, 4096  # tokens that go through the whole model at one time, and prompts times the longest of them


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


def parts(batch: TaskBatch, context: int) -> list[TaskBatch]:
    """A batch cut for the whole model: each part has at most PART tokens, and CELLS in its prompts' grid.
    So three or four programs serve all samples, and what they work on stays in cache.

    Args:
        batch: B samples.
        context: of the model.
    """
    cuts, tokens, longest = [0], 0, 0
    for i, length in enumerate((np.asarray(batch.positions) + 1).tolist()):
        tokens, longest = tokens + length, max(longest, length)
        if i > cuts[-1] and (tokens > PART or (i + 1 - cuts[-1]) * laid_out(longest, context) > CELLS):
            cuts.append(i)
            tokens, longest = length, length
    return [rows(batch, slice(*both)) for both in itertools.pairwise([*cuts, len(batch.positions)])]


def packed_part(part: TaskBatch, context: int) -> PackedBatch:
    """One of `parts`, filled up."""
    time = _time(part, context)
    return packed(alike(part), max(PART, time), max(CELLS // time, 1), time)


def together(batch: TaskBatch, context: int) -> PackedBatch:
    """A batch of which one gradient is taken."""
    return packed(alike(batch), tokens_of(batch, PART), len(batch.positions), _time(batch, context))


def laid_out(length: int, context: int) -> int:
    """The length that prompts of so many tokens are laid out in: LENGTHS, twice as much and so on, or the context if
    that is less."""
    doubled = LENGTHS * 2 ** max(0, math.ceil(math.log2(length / LENGTHS)))
    return doubled if doubled <= context else max(length, context)


def _time(batch: TaskBatch, context: int) -> int:
    return laid_out(int(np.max(batch.positions)) + 1, context)


def alike(batch: TaskBatch) -> TaskBatch:
    """A batch without what tells its tasks apart: programs do not need it."""
    return batch._replace(task=None, foil_share=None)
