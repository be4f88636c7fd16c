"""Natural occurrences of a task's decision: places of running text at which the answer or the foil comes next.

A circuit explains the model only if it decides as the model does where nobody wrote the prompt. Occurrences in
validation text judge it; a search may have those in training text as one more family.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.run.task_batch import TaskBatch, rows, without_longest
from sparse_gpt.model import Params, Transformer

SHARE = 0.5  # of the model's probability that answer and foil must have together: elsewhere it decides something else
LEAST = 8  # tokens of a prompt
LONGEST = 64  # tokens: the last ones before the decision
MOST = 512  # samples
ROWS = 128  # prompts that the model is asked about at a time


class Prompt(NamedTuple):
    """The last tokens of text before it decides between two."""

    tokens: tuple[int, ...]  # LEAST to LONGEST of them
    came: int  # 0 or 1: which of the two followed


def one_decision(batch: TaskBatch) -> tuple[int, int] | None:
    """The two tokens between which every sample decides; None where samples differ, as for names that are copied."""
    pairs = np.unique(np.sort(np.stack([batch.answer, batch.foil], axis=1), axis=1), axis=0)
    return (int(pairs[0, 0]), int(pairs[0, 1])) if len(pairs) == 1 else None


def natural_samples(
    model: Transformer, params: Params, windows: Iterable[np.ndarray], tokens: tuple[int, int], most: int = MOST
) -> TaskBatch | None:
    """Samples of a decision between two tokens, from text.

    Args:
        model: the whole model; it must give the two tokens at least SHARE together, wherever a sample is taken.
        params: its weights.
        windows: batches of text that the model was not trained on, int (B, T) all of one shape.
        tokens: the two ids.
        most: samples, the first ones in the order of the text.

    Returns:
        Samples with different prompts, which are no pairs: `answer` is the token that came, `foil` the other one. None
        where there is none.
    """
    known: set[tuple[int, ...]] = set()
    waiting: list[Prompt] = []
    kept: list[Prompt] = []
    for batch in windows:
        for prompt in _prompts(np.asarray(batch, np.int32), tokens):
            if prompt.tokens not in known:
                known.add(prompt.tokens)
                waiting.append(prompt)
        while len(waiting) >= ROWS and len(kept) < most:
            kept += _decided(model, params, waiting[:ROWS], tokens)
            waiting = waiting[ROWS:]
        if len(kept) >= most:
            break
    else:
        kept += _decided(model, params, waiting, tokens) if waiting else []
    return _batch(kept[:most], tokens, _longest(model)) if kept else None


def _prompts(text: np.ndarray, tokens: tuple[int, int]) -> Iterator[Prompt]:
    """Places of (B, T) text before one of the two tokens, in the order of the text."""
    following = text[:, 1:]
    for window, position in zip(*np.nonzero(np.isin(following, tokens)), strict=True):
        if position >= LEAST - 1:
            start = max(0, int(position) + 1 - LONGEST)
            came = int(following[window, position] == tokens[1])
            yield Prompt(tuple(text[window, start : position + 1].tolist()), came)


def _decided(model: Transformer, params: Params, prompts: list[Prompt], tokens: tuple[int, int]) -> list[Prompt]:
    """Those of at most ROWS prompts at whose end the model gives the two tokens at least SHARE together."""
    batch = _batch(prompts, tokens, _longest(model))
    filled = rows(batch, np.resize(np.arange(len(prompts)), ROWS))
    share = np.asarray(_joint_share(model, params, filled.tokens, filled.positions, jnp.asarray(tokens)))
    return [prompt for prompt, each in zip(prompts, share, strict=False) if each >= SHARE]


def _longest(model: Transformer) -> int:
    return min(LONGEST, model.config.context)


def _batch(prompts: list[Prompt], tokens: tuple[int, int], longest: int) -> TaskBatch:
    padded = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt.tokens)] = prompt.tokens
    last = np.array([len(prompt.tokens) - 1 for prompt in prompts], np.int32)
    ids, came = np.array(tokens, np.int32), np.array([prompt.came for prompt in prompts])
    return TaskBatch(padded, last, ids[came], ids[1 - came])


@functools.partial(jax.jit, static_argnums=0)
def _joint_share(
    model: Transformer, params: Params, text: jax.Array, positions: jax.Array, tokens: jax.Array
) -> jax.Array:
    """(B,) the probability that the model gives the two tokens together, after one position of each row."""
    logits = jnp.asarray(model.apply({"params": params}, text, positions=positions))[:, 0]
    return jnp.sum(jnp.take(jax.nn.softmax(logits, axis=-1), tokens, axis=-1), axis=-1)


def in_pairs(batch: TaskBatch, seed: int) -> TaskBatch | None:
    """Natural samples as pairs of different answers, in random order, as many as the rarer answer has. The two prompts
    of a pair are about equally long, and otherwise nothing to each other. None without two answers."""
    answer = np.asarray(batch.answer)
    by_answer = [np.flatnonzero(answer == token) for token in np.unique(answer)]
    if len(by_answer) != 2:
        return None
    rng, count = np.random.default_rng(seed), min(map(len, by_answer))
    chosen = [np.sort(rng.permutation(index)[:count]) for index in by_answer]
    sides = [index[np.argsort(batch.positions[index], kind="stable")] for index in chosen]
    pairs = np.stack(sides, axis=1)[rng.permutation(count)]
    swapped = rng.random(count) < 0.5  # so that the place in the pair tells nothing
    pairs[swapped] = pairs[swapped, ::-1]
    return rows(batch, pairs.reshape(-1))


def dealt_out(batch: TaskBatch, count: int, ends: Sequence[int]) -> TaskBatch:
    """Training samples of `count` pairs, some of them more than once where a batch has fewer. Samples that are to be
    fresh must be new, so no pair is in two of the parts that end at `ends`: the first, of which the selection takes
    samples, and one for each check. What comes after them, and is searched on alone, has all pairs.

    Pairs that `without_longest` leaves out are left out here, or the parts would begin elsewhere.
    """
    while True:
        pairs = _places(len(batch.positions) // 2, count, ends)
        found = rows(batch, np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1))
        kept = without_longest(found)
        if len(kept.positions) == len(found.positions):
            return found
        short = np.asarray(batch.positions).reshape(-1, 2).max(axis=1) < kept.tokens.shape[1]
        batch = rows(batch, np.repeat(short, 2))


def _places(distinct: int, count: int, ends: Sequence[int]) -> np.ndarray:
    """(count,) which of so many pairs stands where. The first part has at most half of them, the others the rest."""
    sizes = np.diff(np.minimum([0, *ends, count], count))
    first, later = min(int(sizes[0]), distinct // 2), np.cumsum(sizes[1:-1])
    borders = first + (distinct - first) * later // max(int(later[-1]), 1)
    parts = np.split(np.arange(distinct), [first, *borders])[:-1]
    return np.concatenate(
        [np.resize(part, size) for part, size in zip([*parts, np.arange(distinct)], sizes, strict=True)]
    )
