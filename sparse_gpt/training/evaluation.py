"""Evaluation of a language model while it trains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sparse_gpt.config import Config
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params
from sparse_gpt.training import sharding, step

Evaluate = Callable[[step.TrainState, list[np.ndarray]], dict[str, Any]]


def evaluation(config: Config, mesh: Mesh | None) -> Evaluate:
    """Mean loss over batches (val_loss), and how many MLP neurons were zero at every one of their tokens."""
    model = build(config)

    def evaluate(params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen: dict[tuple[str, int], jax.Array] = {}
        with sharding.activations_whole(mesh):
            logits: Any = model.apply({"params": params}, tokens[:, :-1], tap=recorder(seen, ("mlp_neuron",)))
        alive = jnp.stack([jnp.any(x != 0, axis=(0, 1)) for x in seen.values()])
        return step.cross_entropy(logits, tokens[:, 1:]), alive

    compiled = jax.jit(evaluate, out_shardings=None if mesh is None else sharding.replicated(mesh))

    def over_batches(state: step.TrainState, batches: list[np.ndarray]) -> dict[str, Any]:
        rows = config.train.batch_size
        results = [jax.device_get(compiled(state.params, sharding.put_batch(mesh, rows, tokens))) for tokens in batches]
        alive = np.logical_or.reduce([alive for _, alive in results])
        return {"val_loss": float(np.mean([loss for loss, _ in results])), "dead_neurons": int(np.sum(~alive))}

    return over_batches
