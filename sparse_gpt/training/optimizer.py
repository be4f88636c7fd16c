"""The optimizer recipes as optax chains (paper, section 2 and appendix; reference train.py).

                  gradients are                         held constant    direction           order of a step
paper             clipped to an RMS of 1                nothing          Adam                decay, move, project
openai_reference  divided by (RMS + 1e-5)               see below        Adam                move, project, decay
fast              divided, each tensor's by its own     see below        Adam                move, project, decay
muon              divided by (RMS + 1e-5)               nothing          Muon for matrices   move, project, decay

The RMS is one number over all parameters together but in `fast`. `optimizer.grad_rms` stands for the 1 that gradients
are clipped to, and those that are divided are multiplied by it. What the reference holds constant, `without_constants`
says. Moments and gradients stay dense. The projection follows `optax.apply_updates`, as in optax.projections. Decay
multiplies the weights by 1 - lr * decay, as PyTorch's AdamW does; `optax.add_decayed_weights` comes to the same apart
from last bits, but cannot follow the projection.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from sparse_gpt.config import Config, OptimizerConfig
from sparse_gpt.parameters import BIGRAM, MATRIX, ParameterSpec, Params, Path, PyTree, parameter_table, unflatten

Project = Callable[[Params], Params]
Table = Mapping[Path, ParameterSpec]
MUON_RMS = 0.3  # of an entry of Muon's direction; Adam's, with the eps of 0.1, has about as much


class Recipe(NamedTuple):
    """How gradients change parameters.

    Attributes:
      rms: the RMS of gradients as the recipe counts it, before it is controlled; a float32 scalar.
      direction: from gradients to a direction, without learning rate or decay. A run starts from its `init`, and
        checkpoints hold its state: that of Adam alone in all of these. A bridged run needs a `count` of steps in it.
      apply: ``apply(params, direction, learning_rate, project)`` gives the new parameters.
    """

    rms: Callable[[Params], jax.Array]
    direction: optax.GradientTransformation
    apply: Callable[[Params, Params, jax.Array, Project], Params]


def make(config: Config, table: Table | None = None) -> Recipe:
    """The recipe of config.optimizer.

    Args:
      config: validated.
      table: rows of the tensors that are trained; default: those of the configured model.
    """
    table = parameter_table(config.model) if table is None else table
    return RECIPES[config.optimizer.recipe](config.optimizer, table)


def paper(o: OptimizerConfig, table: Table) -> Recipe:
    """AdamW on clipped gradients; the projection comes last."""
    decays = decayed(table)

    def apply(params: Params, direction: Params, learning_rate: jax.Array, project: Project) -> Params:
        params = decay(params, decays, learning_rate * o.weight_decay)
        return project(move(params, direction, learning_rate))

    return Recipe(gradient_rms, chain(clip_by_rms(o.grad_rms), adam(o)), apply)


def openai_reference(o: OptimizerConfig, table: Table) -> Recipe:
    """The reference's train.py: its gradients, all scaled to an RMS of 1, and decay after the projection."""

    def rms(gradients: Params) -> jax.Array:
        gradients = without_constants(gradients)
        return gradient_rms({name: leaf for name, leaf in gradients.items() if name != FINAL_BIAS})

    direction = chain(hold_constants(), divide_by(lambda gradients: (rms(gradients) + 1e-5) / o.grad_rms), adam(o))
    return Recipe(rms, direction, functools.partial(_project_then_decay, o, decayed(table)))


def fast(o: OptimizerConfig, table: Table) -> Recipe:
    """The reference's order of operations with every tensor's gradients scaled to an RMS of 1, one by one.

    Of one RMS for all, most is the unembedding's, and Adam's eps is next to it: attention and neurons, whose gradients
    are a tenth as large, hardly move. Where it was tried it ends above the reference (docs/results/recipes.md).
    """
    scaled = chain(
        hold_constants(), optax.stateless(lambda gradients, _: each_by_its_rms(gradients, o.grad_rms)), adam(o)
    )
    return Recipe(gradient_rms, scaled, functools.partial(_project_then_decay, o, decayed(table)))


def muon(o: OptimizerConfig, table: Table) -> Recipe:
    """The reference's order of operations with Muon's direction for the block matrices, and nothing held constant."""
    matrices = unflatten({path: spec.kind == MATRIX for path, spec in table.items()})
    scaled = chain(
        divide_by(lambda gradients: (gradient_rms(gradients) + 1e-5) / o.grad_rms), adam_and_muon(o, matrices)
    )
    return Recipe(gradient_rms, scaled, functools.partial(_project_then_decay, o, decayed(table)))


def _project_then_decay(
    o: OptimizerConfig,
    decays: Params,
    params: Params,
    direction: Params,
    learning_rate: jax.Array,
    project: Project,
) -> Params:
    params = project(move(params, direction, learning_rate))
    return decay(params, decays, learning_rate * o.weight_decay)


RECIPES: Mapping[str, Callable[[OptimizerConfig, Table], Recipe]] = {
    "paper": paper,
    "openai_reference": openai_reference,
    "fast": fast,
    "muon": muon,
}

FINAL_BIAS = "final_logits_bias"


# ---------------------------------------------------------------------------------------------------------------------
# From gradients to a direction


def gradient_rms(gradients: Params) -> jax.Array:
    """Root mean square over every entry of every gradient, a float32 scalar."""
    leaves = jax.tree.leaves(gradients)
    total = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)
    return jnp.sqrt(total / sum(leaf.size for leaf in leaves))


def divide_by(divisor: Callable[[Params], jax.Array]) -> optax.GradientTransformation:
    """All gradients divided by one number, which is computed from them."""

    def update(gradients: Params, params: Params) -> Params:
        del params
        scale = 1.0 / divisor(gradients)
        return jax.tree.map(lambda g: g * scale, gradients)

    return optax.stateless(update)


def each_by_its_rms(gradients: Params, rms: float = 1.0) -> Params:
    """Every tensor's gradients scaled to an RMS of `rms`, one by one; zeros stay zeros."""
    return jax.tree.map(lambda g: g / ((jnp.sqrt(jnp.mean(jnp.square(g))) + 1e-7) / rms), gradients)


def clip_by_rms(limit: float) -> optax.GradientTransformation:
    """Gradients with an RMS of at most `limit`: over N entries, `optax.clip_by_global_norm(limit * sqrt(N))`, which
    need not know N."""
    return divide_by(lambda gradients: jnp.maximum(gradient_rms(gradients) / limit, 1.0))


def hold_constants() -> optax.GradientTransformation:
    """`without_constants` as a transformation."""
    return optax.stateless(lambda gradients, _: without_constants(gradients))


def without_constants(gradients: Params) -> Params:
    """Gradients as the reference's autograd leaves them: none for the final logits bias, which is a constant there, nor
    for the bigram row of the last vocabulary entry (its table is looked up with padding_idx=-1)."""
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in gradients.items() if name == FINAL_BIAS}
    if "bigram" in gradients:
        zeros["bigram"] = gradients["bigram"].at[-1].set(0.0)
    return {**gradients, **zeros}


def adam(o: OptimizerConfig) -> optax.GradientTransformation:
    """Adam's direction, without learning rate or decay."""
    return optax.scale_by_adam(b1=o.beta1, b2=o.beta2, eps=o.eps)


def adam_and_muon(o: OptimizerConfig, matrices: Params) -> optax.GradientTransformation:
    """Adam's direction with its state, but where the tree of bools `matrices` says so, Muon's: the first moment, one
    step ahead (Nesterov), with its singular values brought near to 1, at an RMS of about MUON_RMS an entry.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the scale that makes
    learning rates those of Adam: Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982), there 0.2.
    """
    inner = adam(o)

    def update(gradients: Params, state: PyTree, params: Params | None = None) -> tuple[Params, PyTree]:
        direction, after = inner.update(gradients, state, params)
        count = after.count.astype(jnp.float32)
        now, ahead = 1 - o.beta1**count, 1 - o.beta1 ** (count + 1)

        def moved(is_matrix: bool, adam: jax.Array, first: jax.Array, gradient: jax.Array) -> jax.Array:
            if not is_matrix:
                return adam
            moment = o.beta1 * first / ahead + (1 - o.beta1) * gradient / now
            return MUON_RMS * max(moment.shape) ** 0.5 * orthogonal(moment)

        return jax.tree.map(moved, matrices, direction, after.mu, gradients), after

    return optax.GradientTransformation(inner.init, update)


def orthogonal(matrix: jax.Array) -> jax.Array:
    """A matrix with its singular vectors and singular values near 1, by five Newton-Schulz steps; zeros stay zeros."""
    newton_schulz = optax.contrib.scale_by_muon(beta=0.0, nesterov=False)
    return cast(jax.Array, newton_schulz.update(matrix, newton_schulz.init(matrix))[0])


def chain(*transformations: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.chain` of stateless transformations and a last one, whose state is all that the chain keeps: checkpoints
    hold Adam's moments without a place for what stands before them. Where more has a state, `optax.chain` itself."""
    chained, last = optax.chain(*transformations), transformations[-1]
    stateless = (optax.EmptyState(),) * (len(transformations) - 1)

    def update(gradients: Params, state: PyTree, params: Params | None = None) -> tuple[Params, PyTree]:
        direction, states = chained.update(gradients, (*stateless, state), params)
        return direction, states[-1]

    return optax.GradientTransformation(last.init, update)


# ---------------------------------------------------------------------------------------------------------------------
# From a direction to new weights


def move(params: Params, direction: Params, learning_rate: jax.Array) -> Params:
    """Parameters after one step against a direction."""
    return optax.apply_updates(params, jax.tree.map(lambda d: -learning_rate * d, direction))


def decay(params: Params, decays: Params, rate: jax.Array) -> Params:
    """Parameters with those tensors multiplied by 1 - rate where the tree of bools `decays` says so."""
    shrink = 1.0 - rate
    return jax.tree.map(lambda w, decays: w * shrink if decays else w, params, decays)


def decayed(table: Table) -> Params:
    """Tree of bools: tensors with more than one dimension, except the bigram table."""
    return unflatten({path: len(spec.shape) > 1 and spec.kind != BIGRAM for path, spec in table.items()})
