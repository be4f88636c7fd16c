"""The paper's mask search: one step of one search, and where it begins.

Objective (paper, appendix on pruning): task loss + k_coef * (number of open gates), minimized over tau with AdamW.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_gpt.circuits.nodes import LIMIT, Gates, clamp, finite, heaviside
from sparse_gpt.circuits.run.gated_model import GatedModel, binary_loss
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters
from sparse_gpt.config import NODE_SITES
from sparse_gpt.parameters import PyTree

ATTRIBUTION_DECAY = 0.95  # of the running mean of the task loss's gradient with respect to a gate


class SearchState(NamedTuple):
    """What a search carries from step to step; leading axis S outside of vmap."""

    tau: Gates
    optimizer: PyTree
    attribution: Gates  # running mean of d(task loss) / d(gate); the more negative, the more the node helps


def initial_states(h: Hyperparameters, searchable: Gates) -> SearchState:
    """States of S searches before the first step: tau ~ bias + scale * N(0, 1); nodes that are not searched at -1."""
    starts = zip(h.seed, h.init_noise_bias, h.init_noise_scale, strict=True)
    taus = [_initial_tau(int(seed), bias, scale, searchable) for seed, bias, scale in starts]
    tau = {site: np.stack([each[site] for each in taus]) for site in NODE_SITES}
    zeros = jax.tree.map(np.zeros_like, tau)
    moments = optax.ScaleByAdamState(np.zeros(len(h.seed), np.int32), zeros, zeros)
    return jax.tree.map(jnp.array, SearchState(tau, moments, zeros))


def _initial_tau(seed: int, bias: float, scale: float, searchable: Gates) -> dict[str, np.ndarray]:
    rng, tau = np.random.default_rng(seed), {}
    for site in NODE_SITES:
        start = np.clip(bias + scale * rng.standard_normal(searchable[site].shape), -LIMIT, LIMIT)
        tau[site] = np.where(np.asarray(searchable[site]) > 0, start, -LIMIT).astype(np.float32)
    return tau


def learning_rate(h: Hyperparameters, step: jax.Array, steps: int) -> jax.Array:
    """Linear warm-up over the first fraction of the steps, then linear decay towards 0."""
    warm = jnp.maximum(1.0, h.warmup * steps)
    done = step.astype(jnp.float32)
    return h.learning_rate * jnp.minimum((done + 1) / warm, (steps - done) / jnp.maximum(1.0, steps - warm))


# More than six parameters: as of `mask_search.advance`.
def update(
    gated: GatedModel,
    searchable: Gates,
    h: Hyperparameters,
    state: SearchState,
    step: jax.Array,
    batch: AnyBatch,
    steps: int,
    tie_qk: bool = False,
) -> tuple[SearchState, tuple[jax.Array, jax.Array]]:
    """One step of one search. Returns the new state and (task loss, number of open nodes) before the step.

    With `tie_qk`, tau of a q channel is also that of the k channel of the same index. Both nodes are paid for.
    """
    gated = gated.with_ablation_set(step)

    def task_loss(gates: Gates) -> jax.Array:
        return binary_loss(gated.answer_logits(gates, batch))

    def open_gates(tau: Gates) -> Gates:
        gates = {site: heaviside(value, h.heaviside_temp) * searchable[site] for site, value in tau.items()}
        return gates | {"attn_k": gates["attn_q"]} if tie_qk else gates

    gates, through = jax.vjp(open_gates, state.tau)
    loss, slope = jax.value_and_grad(task_loss)(gates)
    slope = finite(slope)
    (gradient,) = through(jax.tree.map(lambda d: d + h.k_coef, slope))
    clipped, _ = optax.clip_by_global_norm(h.grad_clip).update(gradient, optax.EmptyState())
    direction, optimizer = optax.scale_by_adam(b2=h.beta2).update(clipped, state.optimizer)
    rate = learning_rate(h, step, steps)
    tau = jax.tree.map(lambda t, d: t - rate * (d + h.weight_decay * t), state.tau, direction)
    tau = {site: jnp.where(searchable[site] > 0, value, -LIMIT) for site, value in clamp(tau).items()}
    decay = ATTRIBUTION_DECAY
    attribution = jax.tree.map(lambda a, d: decay * a + (1 - decay) * d, state.attribution, slope)
    opened = jnp.sum(jnp.stack([jnp.sum(gate) for gate in gates.values()]))
    return SearchState(tau, optimizer, attribution), (loss, opened)
