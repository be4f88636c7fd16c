"""Dead neurons begin again.

A neuron that AbsTopK chooses for no token has no gradient: nothing but chance brings it back, and decay takes what
min-alive kept for it. The paper counts them among what makes training sparse models dear; here most die once the
density is at its target. Every `sparsity.revive_every` steps those that had no gradient in that time get input weights
again, as dense and as large as the others of their matrix, and output weights of zero, so that the model goes on
computing what it did; those have gradients from the next step on.

Whether a neuron is dead is read off Adam's second moments, so nothing is counted, and a resumed run revives the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.config import Config
from sparse_gpt.parameters import Params
from sparse_gpt.training import schedules
from sparse_gpt.training.step import Jitted, TrainState

SMALL = 0.01  # of a matrix's mean second moment: what the largest one of a living neuron is above
STREAM = 4  # of config.train.seed, beside those of training/step.py and bridges/training.py
LAST = 0.9  # of the steps: what begins later has no time to learn


def is_due(config: Config, s: int) -> bool:
    """Whether dead neurons begin again before step s."""
    every = config.sparsity.revive_every
    return every > 0 and s > 0 and s % every == 0 and s < LAST * schedules.iterations(config)


def revive(config: Config, state: TrainState, s: int) -> TrainState:
    """The state before step s with dead neurons begun again; the one given is donated.

    Args:
      config: of the run.
      state: of a language model, on its devices; its optimizer's state has Adam's `mu` and `nu`.
      s: number of the step; the new weights are drawn from it and config.train.seed.
    """
    faded = np.float32(config.optimizer.beta2**config.sparsity.revive_every)
    leaves, tree = jax.tree.flatten(state)
    program = _compiled(tree, tuple(leaf.sharding for leaf in leaves))
    revived: TrainState = program(state, np.uint32(config.train.seed), np.uint32(s), faded)
    return revived


@functools.cache
def _compiled(tree: jax.tree_util.PyTreeDef, shardings: tuple[jax.sharding.Sharding, ...]) -> Jitted:
    """`begin_again` for states that are placed so, which it leaves where they are."""
    return jax.jit(begin_again, donate_argnums=0, out_shardings=jax.tree.unflatten(tree, shardings))


def begin_again(state: TrainState, seed: jax.Array, s: jax.Array, faded: jax.Array) -> TrainState:
    """The state with dead neurons begun again.

    A neuron is dead if no second moment of its input weights is above `faded` times SMALL times the mean of the matrix:
    for as many steps none of its gradients was a tenth of what they are there. Recipes scale gradients differently, or
    not at all, so nothing else is asked of their size.

    Args:
      state: see `revive`.
      seed, s: uint32 scalars, what the new weights are drawn from.
      faded: float32 scalar, what is left of a second moment after sparsity.revive_every steps without a gradient.

    Returns:
      The state, in which such a neuron's bias, output weights and first moments are 0, and its second moments such that
      it does not count as dead before it has had as many steps.
    """
    params, mu, nu = (dict(tree) for tree in (state.params, state.optimizer.mu, state.optimizer.nu))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), s)
    for layer in range(sum(name.startswith("h_") for name in params)):
        name = f"h_{layer}"
        moments = nu[name]["mlp"]["c_fc"]["kernel"]
        small = SMALL * jnp.mean(moments)
        dead = jnp.max(moments, axis=0) <= faded * small
        inputs = draw_like(jax.random.fold_in(key, layer), params[name]["mlp"]["c_fc"]["kernel"])
        params[name] = _where_dead(dead, params[name], inputs, 0.0)
        mu[name] = _where_dead(dead, mu[name], 0.0, 0.0)
        nu[name] = _where_dead(dead, nu[name], small, small)
    return TrainState(params, state.optimizer._replace(mu=mu, nu=nu))


def draw_like(key: jax.Array, weights: jax.Array) -> jax.Array:
    """A matrix of the shape of `weights`, about as many of its entries nonzero, normal with their root mean square."""
    places, values = jax.random.split(key)
    nonzeros = jnp.count_nonzero(weights).astype(jnp.float32)
    rms = jnp.sqrt(jnp.sum(jnp.square(weights)) / jnp.maximum(nonzeros, 1.0))
    chosen = jax.random.uniform(places, weights.shape) < nonzeros / weights.size
    return jnp.where(chosen, rms * jax.random.normal(values, weights.shape), 0.0)


def _where_dead(dead: jax.Array, block: Params, inputs: jax.Array | float, rest: jax.Array | float) -> Params:
    """A block's tree with `inputs` in the place of dead neurons' input weights, and `rest` in that of their bias and
    output weights."""
    mlp = block["mlp"]
    into = {part: jnp.where(dead, inputs if part == "kernel" else rest, leaf) for part, leaf in mlp["c_fc"].items()}
    out = {**mlp["c_proj"], "kernel": jnp.where(dead[:, None], rest, mlp["c_proj"]["kernel"])}
    return {**block, "mlp": {**mlp, "c_fc": into, "c_proj": out}}
