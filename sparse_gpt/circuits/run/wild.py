"""Natural occurrences of a task's decision: places of running text at which the answer or the foil comes next.

A circuit explains the model only if it decides as the model does where nobody wrote the prompt.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.model import Params, Transformer

SHARE = 0.5  # of the model's probability that answer and foil must have together: elsewhere it decides something else
LEAST = 8  # tokens of a prompt
LONGEST = 64  # tokens: the last ones before the decision
MOST = 512  # samples


class Places(NamedTuple):
    """Where text decides between two tokens: window, position of the last token before it, the token that came."""

    window: np.ndarray  # (N,) index
    position: np.ndarray  # (N,) from 0
    came: np.ndarray  # (N,) 0 or 1: which of the two


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
    prompts: dict[tuple[int, ...], int] = {}
    for batch in windows:
        text = np.asarray(batch, np.int32)
        for window, position, came in zip(*_places(model, params, text, tokens), strict=True):
            start = max(0, int(position) + 1 - LONGEST)
            prompts.setdefault(tuple(text[window, start : position + 1].tolist()), int(came))
        if len(prompts) >= most:
            break
    if not prompts:
        return None
    chosen = list(prompts.items())[:most]
    padded = np.zeros((len(chosen), LONGEST), np.int32)
    for row, (prompt, _) in enumerate(chosen):
        padded[row, : len(prompt)] = prompt
    last = np.array([len(prompt) - 1 for prompt, _ in chosen], np.int32)
    came = np.array([came for _, came in chosen])
    ids = np.array(tokens, np.int32)
    return TaskBatch(padded, last, ids[came], ids[1 - came])


def _places(model: Transformer, params: Params, text: np.ndarray, tokens: tuple[int, int]) -> Places:
    share = np.asarray(jax.device_get(_joint_share(model, params, text, jnp.asarray(tokens))))[:, :-1]
    following = text[:, 1:]
    found = np.isin(following, tokens) & (share >= SHARE) & (np.arange(text.shape[1] - 1) >= LEAST - 1)
    window, position = np.nonzero(found)
    return Places(window, position, (following[window, position] == tokens[1]).astype(int))


@functools.partial(jax.jit, static_argnums=0)
def _joint_share(model: Transformer, params: Params, text: jax.Array, tokens: jax.Array) -> jax.Array:
    """(B, T) the probability that the model gives the two tokens together, after each token."""
    logits = jnp.asarray(model.apply({"params": params}, text))
    return jnp.sum(jnp.take(jax.nn.softmax(logits, axis=-1), tokens, axis=-1), axis=-1)
