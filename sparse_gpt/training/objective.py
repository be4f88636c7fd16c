"""What the loop trains: a language model, or anything with the same six methods (bridges/training.py)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sparse_gpt.config import Config
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import Transformer, apply, build
from sparse_gpt.parameters import Params
from sparse_gpt.training import revival, schedules, sharding, step
from sparse_gpt.training.schedules import StepSettings
from sparse_gpt.training.step import Jitted, TrainState

Advance = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


class Objective(Protocol):
    """What a run trains, on the devices that it was made for."""

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is computed."""

    def make_state(self) -> TrainState:
        """A fresh state from config.train.seed."""

    def settings(self, s: int) -> StepSettings:
        """What is scheduled for step s."""

    def compile_step(self) -> Advance:
        """``advance(state, tokens, lr, keep) -> (state, metrics)`` as step.train_step, compiled for such states.
        Metrics beside loss and grad_rms (numbers or vectors) are logged under their own names."""

    def revive(self, state: TrainState, s: int) -> TrainState:
        """The state before step s with dead neurons begun again, see revival.py; the one given is donated."""

    def evaluate(self, state: TrainState, batches: list[np.ndarray]) -> Tree:
        """Entries for metrics.jsonl from validation batches: val_loss, dead_neurons, …"""


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Training of a (sparse) language model; `mesh` is None on a single device, `row` the tokens of a batch's row where
    they are not context + 1."""

    config: Config
    mesh: Mesh | None = None
    row: int | None = None

    def abstract_state(self) -> TrainState:
        state = step.abstract_state(self.config, self.mesh)
        return step.on_one_device(state) if self.mesh is None else state

    def make_state(self) -> TrainState:
        return step.make_state(self.config, self.mesh)

    def settings(self, s: int) -> StepSettings:
        return schedules.settings(self.config, s)

    def compile_step(self) -> Advance:
        lowered = step.compile_step(self.config, self.mesh).lower(
            self.abstract_state(), *step.abstract_inputs(self.config, self.row)
        )
        compiled: Advance = lowered.compile()
        return compiled

    def revive(self, state: TrainState, s: int) -> TrainState:
        return revival.revive(self.config, state, s)

    def evaluate(self, state: TrainState, batches: list[np.ndarray]) -> Tree:
        return evaluate_model(self.config, self.mesh, state.params, batches)


def evaluate_model(config: Config, mesh: Mesh | None, params: Params, batches: list[np.ndarray]) -> Tree:
    """Mean loss over batches (val_loss), and how many MLP neurons were zero at every one of their tokens.

    Args:
      config, mesh: of the run; None for one device.
      params: the model's, where they are placed.
      batches: int32 (rows, at most context + 1), this process's rows.
    """
    compiled, rows = _compiled(build(config), mesh), config.train.batch_size
    results = [jax.device_get(compiled(params, sharding.put_batch(mesh, rows, tokens))) for tokens in batches]
    alive = np.logical_or.reduce([alive for _, alive in results])
    return {"val_loss": float(np.mean([loss for loss, _ in results])), "dead_neurons": int(np.sum(~alive))}


@functools.cache
def _compiled(model: Transformer, mesh: Mesh | None) -> Jitted:
    """``(params, tokens) -> (loss, alive)``, with alive (layers, d_mlp): neurons that were not always zero."""

    def evaluate_batch(params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen: dict[tuple[str, int], jax.Array] = {}
        with sharding.activations_on(mesh):
            logits = apply(model, params, tokens[:, :-1], tap=recorder(seen, ("mlp_neuron",)))
        alive = jnp.stack([jnp.any(x != 0, axis=(0, 1)) for x in seen.values()])
        return step.cross_entropy(logits, tokens[:, 1:]), alive

    return jax.jit(evaluate_batch, out_shardings=None if mesh is None else sharding.replicated(mesh))
