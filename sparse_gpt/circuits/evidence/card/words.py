"""The free word that decides a prompt's cluster: the last one that no training prompt has."""

import re
from collections.abc import Callable, Iterable

import numpy as np

from sparse_gpt.circuits.run.task_batch import TaskBatch

_WORD = re.compile(r"[^\W\d_]+")

TokenText = Callable[[int], str]


def free_words(train: TaskBatch, heldout: TaskBatch, token_text: TokenText) -> frozenset[str]:
    """Words of held-out prompts that no training prompt has: splits have disjoint words, so what templates say is in
    both and what fills them is in one."""
    seen, free = (_vocabulary(_prompts(batch, token_text)) for batch in (train, heldout))
    return frozenset(free - seen)


def clusters(batch: TaskBatch, free: frozenset[str], token_text: TokenText | None) -> np.ndarray:
    """(B,) the last free word that both prompts of a pair have; where there is none, the pair's last word.

    Without `token_text` it is the number of the last token before the answer.
    """
    if token_text is None:
        last = np.asarray(batch.tokens)[np.arange(len(batch.positions)), batch.positions]
        return np.repeat(last[::2], 2).astype(str)
    prompts = [_WORD.findall(prompt) for prompt in _prompts(batch, token_text)]
    return np.repeat([_deciding(prompts[i], prompts[i + 1], free) for i in range(0, len(prompts), 2)], 2)


def _deciding(first: list[str], second: list[str], free: frozenset[str]) -> str:
    common = [word for word in first if word in second] or first
    return next((word for word in reversed(common) if word in free), common[-1] if common else "")


def _prompts(batch: TaskBatch, token_text: TokenText) -> list[str]:
    tokens, positions = np.asarray(batch.tokens), np.asarray(batch.positions)
    text = {int(token): token_text(int(token)) for token in np.unique(tokens)}
    return ["".join(text[t] for t in row[: end + 1].tolist()) for row, end in zip(tokens, positions, strict=True)]


def _vocabulary(prompts: Iterable[str]) -> set[str]:
    return {word for prompt in prompts for word in _WORD.findall(prompt)}
