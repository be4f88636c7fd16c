"""Attention weights of one head from recorded queries and keys."""

import numpy as np

from sparse_gpt.config import ModelConfig
from sparse_gpt.parameters import Params


def head_attention(
    model: ModelConfig, params: Params, q: np.ndarray, k: np.ndarray, layer: int, head: int
) -> np.ndarray:
    """Causal attention of one head.

    Args:
      model: sizes.
      params: of the model, for the head's sink if it has one.
      q: (..., T, n_head * d_head) queries of the layer.
      k: (..., T, n_head * d_head) keys of the layer.
      layer: of the head.
      head: its index.

    Returns:
      (..., T, T + 1) float64: a row of weights per query, the sink's share last; rows sum to 1.
    """
    channels = slice(head * model.d_head, (head + 1) * model.d_head)
    q, k = (np.asarray(each[..., channels], np.float64) for each in (q, k))
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(model.d_head)
    scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    sink = float(np.asarray(params[f"h_{layer}"]["attn"]["sink"])[head]) if model.attention_sink else -np.inf
    scores = np.concatenate([scores, np.full((*scores.shape[:-1], 1), sink)], axis=-1)
    weights: np.ndarray = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
