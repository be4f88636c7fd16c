"""The free word that decides a prompt's cluster: the last one that fills a template and that no training prompt has."""

import re
from collections import Counter
from collections.abc import Callable, Set

import numpy as np

from sparse_gpt.circuits.run.task_batch import TaskBatch

_WORD = re.compile(r"[^\W\d_]+")

TokenText = Callable[[int], str]


def vocabulary(batch: TaskBatch, token_text: TokenText) -> set[str]:
    """Words of its prompts."""
    return {word for prompt in _prompts(batch, token_text) for word in _WORD.findall(prompt)}


def free_words(
    heldout: TaskBatch, seen: Set[str], token_text: TokenText, known: Set[str] = frozenset()
) -> frozenset[str]:
    """Words of one set's held-out prompts that are not among `seen`, those of training prompts: splits have disjoint
    words, so what templates say is in both and what fills them is in one.

    Templates that were not searched say more. So only `known` words count, those that fill the task's held-out prompts;
    where there are none, words of all prompts do not.
    """
    count = Counter(word for prompt in _prompts(heldout, token_text) for word in set(_WORD.findall(prompt)))
    fills = known or {word for word, prompts in count.items() if prompts < len(heldout.positions)}
    return frozenset(count.keys() & fills - seen)


def clusters(batch: TaskBatch, free: frozenset[str], token_text: TokenText | None) -> np.ndarray:
    """(B,) the last free word that both prompts of a pair have; where there is none, the pair's last word.

    Without `token_text` it is the number of the last token before the answer.
    """
    if token_text is None:
        last = np.asarray(batch.tokens)[np.arange(len(batch.positions)), batch.positions]
        return np.repeat(last[::2], 2).astype(str)
    prompts = [_WORD.findall(prompt) for prompt in _prompts(batch, token_text)]
    return np.repeat([_deciding(prompts[i], prompts[i + 1], free) for i in range(0, len(prompts), 2)], 2)


def distinct_pairs(batch: TaskBatch) -> np.ndarray:
    """(B,) clusters of pairs of natural text, which no word fills: each its own, but for those that come again."""
    tokens = np.asarray(batch.tokens)
    _, label = np.unique(tokens.reshape(len(tokens) // 2, -1), axis=0, return_inverse=True)
    return np.repeat(label.reshape(-1), 2).astype(str)


def _deciding(first: list[str], second: list[str], free: frozenset[str]) -> str:
    common = [word for word in first if word in second] or first
    return next((word for word in reversed(common) if word in free), common[-1] if common else "")


def _prompts(batch: TaskBatch, token_text: TokenText) -> list[str]:
    tokens, positions = np.asarray(batch.tokens), np.asarray(batch.positions)
    text = {int(token): token_text(int(token)) for token in np.unique(tokens)}
    return ["".join(text[t] for t in row[: end + 1].tolist()) for row, end in zip(tokens, positions, strict=True)]
