"""What a node becomes when it is ablated: its mean over the pretraining distribution, zero, or its mean on the task."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.gated import TaskBatch
from sparse_gpt.circuits.gates import GateArrays
from sparse_gpt.config import NODE_SITES
from sparse_gpt.model.parameters import Params
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import Transformer


def node_means(model: Transformer, params: Params, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> GateArrays:
    """Mean activation of every node over tokens that count.

    Args:
      model: the transformer.
      params: its weights.
      batches: pairs (tokens (B, T) int32, counted (B, T) bool), all of one shape.

    Returns:
      site -> (n_layer, width) float32.

    Raises:
      ValueError: not a single token counts.
    """

    @jax.jit
    def totals(params: Params, tokens: jax.Array, counted: jax.Array) -> dict[str, jax.Array]:
        seen: dict[tuple[str, int], jax.Array] = {}
        model.apply({"params": params}, tokens, tap=recorder(seen, NODE_SITES))
        weight = counted.astype(jnp.float32)
        return {
            site: jnp.stack(
                [jnp.einsum("btw,bt->w", seen[site, layer], weight) for layer in range(model.config.n_layer)]
            )
            for site in NODE_SITES
        }

    count = 0
    sums = {site: np.zeros(()) for site in NODE_SITES}
    for tokens, counted in batches:
        count += int(np.sum(counted))
        for site, value in totals(params, tokens, counted).items():
            sums[site] = sums[site] + np.asarray(value, np.float64)
    if not count:
        raise ValueError("no tokens to average activations over")
    return {site: np.asarray(total / count, np.float32) for site, total in sums.items()}


def pretraining_means(model: Transformer, params: Params, batches: Iterable[np.ndarray]) -> GateArrays:
    """`node_means` over every position of (B, T) batches of pretraining tokens."""
    return node_means(model, params, ((tokens, np.ones(tokens.shape, bool)) for tokens in batches))


def task_means(model: Transformer, params: Params, batch: TaskBatch, chunk: int = 256) -> GateArrays:
    """`node_means` over the prompts of a task, padding left out."""
    padding = -len(batch.positions) % min(chunk, len(batch.positions))
    positions = np.pad(batch.positions, (0, padding), constant_values=-1)  # a padded row counts no token
    tokens = np.pad(batch.tokens, ((0, padding), (0, 0)))
    counted = np.arange(tokens.shape[1])[None, :] <= positions[:, None]
    parts = len(positions) // min(chunk, len(batch.positions))
    return node_means(model, params, zip(np.split(tokens, parts), np.split(counted, parts), strict=True))
