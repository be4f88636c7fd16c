"""The programs that an evaluator runs, each compiled once for all samples and masks of a shape."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import Gates
from sparse_gpt.circuits.run.calibration import Calibration, apply
from sparse_gpt.circuits.run.gated_model import GatedModel, binary_loss
from sparse_gpt.circuits.run.masks import AT_A_TIME, MaskedModel
from sparse_gpt.circuits.run.objective import traced_losses
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.parameters import Leaf

SAMPLES_AT_A_TIME = 16  # whose own gradients are taken
Program = tuple[jax.tree_util.PyTreeDef, tuple[tuple[int, ...], ...]]
_COMPILED: set[Program] = set()  # what `_logits` was called with
Call = tuple[MaskedModel, Gates, np.ndarray, np.ndarray, AnyBatch, np.int32]  # arguments of `_logits`


@jax.jit
def _logits(
    model: MaskedModel,
    gates: Gates,
    places: jax.Array,
    kept: jax.Array,
    batch: AnyBatch,
    count: jax.Array,
) -> jax.Array:
    """(N, B, 2) answer and foil logits of N masks, one by one: side by side they would leave the cache.

    Those from `count` on only fill up the shape: they are skipped, and get zeros.
    """

    def one(mask: tuple[Gates, jax.Array, jax.Array]) -> jax.Array:
        gates, kept, index = mask

        def run() -> jax.Array:
            return model.masked_logits(gates, places, kept, batch, differentiable=False)

        return jax.lax.cond(index < count, run, lambda: jnp.zeros((len(batch.answer), 2)))

    return jax.lax.map(one, (gates, kept, jnp.arange(len(kept))))


def side_by_side(calls: Sequence[Call]) -> list[np.ndarray]:
    """Results of `_logits` for several arguments, AT_A_TIME of them at once."""
    compiling: dict[Program, Future[np.ndarray]] = {}
    running = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for call in calls:
            program = jax.tree.structure(call), tuple(np.shape(leaf) for leaf in jax.tree.leaves(call))
            if program in compiling:  # or two threads would compile it
                compiling.pop(program).result()
                _COMPILED.add(program)
            running.append(pool.submit(_on_host, call))
            if program not in _COMPILED:
                compiling[program] = running[-1]
        found = [each.result() for each in running]
    _COMPILED.update(compiling)
    return found


def _on_host(call: Call) -> np.ndarray:
    return np.asarray(_logits(*call))


class Wanted(NamedTuple):
    """What the logits of B samples are worth, beside the samples themselves.

    Attributes:
        index: (B, 2) of the batch, see `calibration.choice_index`.
        foil_share: (B,) what they are to match; None: the answers.
        weight: (B,) of each sample's loss in the sum.
    """

    index: Leaf
    foil_share: Leaf | None
    weight: Leaf


@jax.jit  # which is why it takes the evaluator apart: its arrays are traced, and it has more than six of them
def slopes(
    model: MaskedModel,
    gates: Gates,
    places: jax.Array,
    kept: jax.Array,
    batch: AnyBatch,
    wanted: Wanted,
    calibration: Calibration,
) -> tuple[Gates, jax.Array]:
    """Gradient of one mask's calibrated loss with respect to its gates and its edges."""

    def loss(gates: Gates, kept: jax.Array) -> jax.Array:
        logits = model.masked_logits(gates, places, kept, batch, differentiable=True)
        logits = apply(calibration, logits, wanted.index)
        return jnp.sum(wanted.weight * traced_losses(logits[:, 0] - logits[:, 1], wanted.foil_share))

    return jax.grad(loss, argnums=(0, 1))(gates, kept)


@jax.jit
def gate_slopes(model: GatedModel, gates: Gates, batch: AnyBatch, foil_share: jax.Array | None = None) -> Gates:
    """Gradient of the uncalibrated task loss, or of the divergence from the model's answers `foil_share` (B,), with
    respect to gates of any size. Without edges, whose gradients would need those of all weights."""

    def loss(gates: Gates) -> jax.Array:
        logits = model.answer_logits(gates, batch)
        if foil_share is None:
            return binary_loss(logits)
        return jnp.mean(traced_losses(logits[:, 0] - logits[:, 1], foil_share))

    return jax.grad(loss)(gates)


@jax.jit
def margin_slopes(model: GatedModel, gates: Gates, batch: TaskBatch) -> tuple[jax.Array, Gates]:
    """(B,) margins, answer - foil, of one mask with all its edges, and their gradients (B, ...) by its gates."""

    def margin(gates: Gates, sample: TaskBatch) -> jax.Array:
        one = jax.tree.map(lambda x: x[None], sample)
        logits = model.answer_logits(gates, one)
        return logits[0, 0] - logits[0, 1]

    def of_sample(sample: TaskBatch) -> tuple[jax.Array, Gates]:
        return jax.value_and_grad(margin)(gates, sample)

    return jax.lax.map(of_sample, batch, batch_size=SAMPLES_AT_A_TIME)
