"""Attention weights of one head from its recorded queries and keys."""

import numpy as np


def attention_weights(q: np.ndarray, k: np.ndarray, sink: float | None) -> np.ndarray:
    """Causal attention of one head.

    Args:
      q: (..., T, d_head) queries.
      k: (..., T, d_head) keys.
      sink: the head's learned logit of looking nowhere; None without one.

    Returns:
      (..., T, T + 1) float64: a row of weights per query, the sink's share last; rows sum to 1.
    """
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    last = np.full((*scores.shape[:-1], 1), -np.inf if sink is None else sink)
    scores = np.concatenate([scores, last], axis=-1)
    weights: np.ndarray = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
