"""What a node becomes when it is ablated: its mean over the pretraining distribution, zero, its mean on the task, or
its value at a random position of the pretraining distribution (resample).

A draw of resample ablation is one position of pretraining text, chosen uniformly: all nodes take the values that they
have there, together, at every position of every prompt. Step t of a search uses draw t mod RESAMPLED, shared by all
searches and samples. Sizes are chosen where every ROWS selection samples have a draw of their
own. What circuit.json reports is measured with one further draw, the one in ablation.npz, and `resampled_task_loss` is
the mean over yet others. prune.seed decides all of them.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.config import NODE_SITES
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import Transformer
from sparse_gpt.parameters import Params

RESAMPLED = 64  # draws that a search uses, cyclically
CHUNK = 16  # windows that are run at a time


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


def pretraining_draws(
    model: Transformer, params: Params, batches: Iterable[np.ndarray], count: int, seed: int
) -> GateArrays:
    """Activations of every node at random positions of (B, T) batches of pretraining tokens.

    Args:
      model: the transformer.
      params: its weights.
      batches: windows of tokens, all of one shape.
      count: number of draws.
      seed: of the positions.

    Returns:
      site -> (count, n_layer, width) float32. Entry i of every site comes from the same position; no two are the same.

    Raises:
      ValueError: fewer than `count` positions.
    """

    @jax.jit
    def at(params: Params, tokens: jax.Array, positions: jax.Array) -> dict[str, jax.Array]:
        seen: dict[tuple[str, int], jax.Array] = {}
        model.apply({"params": params}, tokens, tap=recorder(seen, NODE_SITES))
        row = jnp.arange(len(positions))
        layers = range(model.config.n_layer)
        return {site: jnp.stack([seen[site, layer][row, positions] for layer in layers], axis=1) for site in NODE_SITES}

    windows = np.concatenate(list(batches))
    window, position = np.divmod(
        np.random.default_rng(seed).choice(windows.size, count, replace=False), windows.shape[1]
    )
    filled = np.resize(np.arange(count), -(-count // CHUNK) * CHUNK)
    parts = [
        jax.device_get(at(params, windows[window[some]], position[some].astype(np.int32)))
        for some in np.split(filled, len(filled) // CHUNK)
    ]
    return {site: np.concatenate([part[site] for part in parts])[:count].astype(np.float32) for site in NODE_SITES}


def task_means(model: Transformer, params: Params, batch: TaskBatch, chunk: int = 256) -> GateArrays:
    """`node_means` over the prompts of a task, padding left out."""
    padding = -len(batch.positions) % min(chunk, len(batch.positions))
    positions = np.pad(batch.positions, (0, padding), constant_values=-1)  # a padded row counts no token
    tokens = np.pad(batch.tokens, ((0, padding), (0, 0)))
    counted = np.arange(tokens.shape[1])[None, :] <= positions[:, None]
    parts = len(positions) // min(chunk, len(batch.positions))
    return node_means(model, params, zip(np.split(tokens, parts), np.split(counted, parts), strict=True))
