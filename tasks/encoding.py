"""Samples as token arrays, and whether a tokenizer can express a task at all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .copies import Tokenizer
from .task import VARIANTS, AnyTask, Pair, Sample, TaskError

BUCKET = 8
"""Prompts are padded to a multiple of this length, so that few shapes are compiled."""
FURTHER = 4
"""One more pair is drawn for each so many, in case some are longer than the context."""


@dataclass(frozen=True)
class EncodedTask:
    """Rows 2i and 2i + 1 are a pair.

    Attributes:
        tokens: int32 (2 * pairs, T), prompts padded with 0 on the right to a multiple of 8, or to the model's context.
        lengths: int32 (2 * pairs,); the prediction is read at position lengths - 1.
        answer_id: int32 (2 * pairs,).
        foil_id: int32 (2 * pairs,).
    """

    tokens: np.ndarray
    lengths: np.ndarray
    answer_id: np.ndarray
    foil_id: np.ndarray


def encode(pairs: Iterable[Pair], tokenizer: Tokenizer) -> EncodedTask:
    """Pairs as arrays.

    Raises:
        TaskError: no pairs, or an answer that is not one token of its own after its prompt.
    """
    return encode_samples([sample for pair in pairs for sample in (pair.first, pair.second)], tokenizer)


def encode_samples(samples: Sequence[Sample], tokenizer: Tokenizer) -> EncodedTask:
    """Samples as arrays, a row each. Raises TaskError as `encode`."""
    if not samples:
        raise TaskError("no samples to encode; ask for at least one pair")
    rows = [encode_sample(sample, tokenizer) for sample in samples]
    lengths = np.array([len(prompt) for prompt, _, _ in rows], np.int32)
    tokens = np.zeros((len(rows), -(-int(lengths.max()) // BUCKET) * BUCKET), np.int32)
    for row, (prompt, _, _) in zip(tokens, rows, strict=True):
        row[: len(prompt)] = prompt
    answers = np.array([answer for _, answer, _ in rows], np.int32)
    foils = np.array([foil for _, _, foil in rows], np.int32)
    return EncodedTask(tokens, lengths, answers, foils)


# More than six parameters: which pairs, of what, in whose tokens; callers choose each of them freely.
def sample(
    task: AnyTask,
    tokenizer: Tokenizer,
    split: str,
    count: int,
    seed: int = 0,
    variant: str = "main",
    context: int | None = None,
) -> EncodedTask:
    """`count` pairs of a task as arrays (or all that a file has): `Task.pairs` for this tokenizer, encoded.

    Of a family, pairs that are longer than `context` are passed over, unless more than a fifth are.

    Raises:
        TaskError: as `Task.pairs` and `encode`, naming the task; or a prompt has more tokens than `context`.
    """
    drawn = count if context is None or variant in VARIANTS else count + -(-count // FURTHER)
    pairs = task.pairs(split, drawn, seed, variant, tokenizer)
    if drawn > count:
        short = [pair for pair in pairs if _longest(pair, tokenizer) <= (context or 0)]
        enough = min(count, len(pairs) - len(pairs) // (FURTHER + 1))  # a file may have fewer than are asked for
        pairs = short[:count] if len(short) >= enough else pairs
    try:
        encoded = encode(pairs, tokenizer)
    except TaskError as error:
        raise TaskError(f"task {task.name}: {error}") from error
    row = int(encoded.lengths.argmax())
    if context is not None and encoded.lengths[row] > context:
        pair = pairs[row // 2]
        where = (pair.first, pair.second)[row % 2].where
        raise TaskError(
            f"task {task.name}: {where and where + ': '}prompts of {encoded.lengths[row]} tokens exceed the model's "
            f"context {context}"
        )
    # Rounded up, rows can be longer than the context.
    return encoded if context is None else replace(encoded, tokens=encoded.tokens[:, :context])


def _longest(pair: Pair, tokenizer: Tokenizer) -> int:
    """Tokens of the longer prompt of a pair."""
    return max(len(tokenizer.encode(sample.prompt)) for sample in (pair.first, pair.second))


def encode_sample(sample: Sample, tokenizer: Tokenizer) -> tuple[list[int], int, int]:
    """Token ids of the prompt, id of the answer, id of the foil.

    Raises:
        TaskError: unless encode(prompt + answer) == encode(prompt) + [one id], the same for the foil, and they differ.
            Of a sample from a file, it begins with FILE:LINE.
    """
    if sample.where:
        try:
            return encode_sample(replace(sample, where=""), tokenizer)
        except TaskError as error:
            raise TaskError(f"{sample.where}: {error}") from error
    prompt = list(tokenizer.encode(sample.prompt))
    answer, foil = (_single(sample.prompt, prompt, text, tokenizer) for text in (sample.answer, sample.foil))
    if answer == foil:
        raise TaskError(f"answer {sample.answer!r} and foil {sample.foil!r} are the same token")
    return prompt, answer, foil


def _single(text: str, prompt: Sequence[int], answer: str, tokenizer: Tokenizer) -> int:
    ids = list(tokenizer.encode(text + answer))
    after = ids[len(prompt) :]
    where = f"after {text[-24:]!r}"
    if ids[: len(prompt)] != prompt:
        raise TaskError(
            f"answer {answer!r} is not a token of its own {where}: it merges with the end of the prompt; where that is "
            "a space, begin the answer with it instead"
        )
    if len(after) != 1:
        pieces = " | ".join(repr(tokenizer.decode([i])) for i in after)
        raise TaskError(
            f"answer {answer!r} is {len(after)} tokens {where} ({pieces}) under this tokenizer "
            f"({tokenizer.vocab_size} entries); use a larger vocabulary, or leave this out"
        )
    return after[0]


def check(task: AnyTask, tokenizer: Tokenizer) -> None:
    """Whether the tokenizer can express the task: some pairs of every split and variant are encoded, of a file all.

    Raises:
        TaskError: it cannot; names the task, the answer and how it was split.
    """
    for split, variant in task.parts:
        if variant in VARIANTS:  # a family that it cannot express is left out, where it is wanted
            sample(task, tokenizer, split, task.checked_pairs, variant=variant)
