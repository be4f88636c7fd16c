"""Experiment: changes of a training that no recipe has, each alone, in half of a preset's steps and on the same bytes.

The preset itself is trained from several seeds, which says how large a difference has to be. All that is kept of a
change is its line in the table: what helps becomes part of a recipe (training/optimizer.py), what does not stays here,
where anyone can ask again. Candidates that are recipes or fields of the configuration are compared over whole runs by
experiments/recipes.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_gpt import config as configs
from sparse_gpt import interruption, presets
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_most, finish, metrics_rows, reported
from sparse_gpt.io import Json, Tree
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params, parameter_table, unflatten
from sparse_gpt.training import loop, optimizer, schedules, sharding, step
from sparse_gpt.training.objective import Advance, LanguageModel
from sparse_gpt.training.run import corpus_batches
from sparse_gpt.training.step import TrainState

HALF_THE_TIME = 2.62  # nats: what half of quickstart's steps should reach
TABLE = "training-changes.csv"


@dataclasses.dataclass(frozen=True)
class Change:
    """What one training has that its preset has not.

    Attributes:
      fields: of the configuration.
      annealing: of the share of annealing that is done, the share that the density has fallen; default: the same.
      rate: of the share of the steps after warm-up that are done, the factor of the learning rate; default: 1 - share.
      straight_through: weights that the projection would zero stay as they are; the model computes with projected ones,
        and every weight gets their gradient.
      moments_by_row: Adam has one second moment for all weights of a neuron, channel or token.
      seed: of the initial parameters.
    """

    fields: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    annealing: Callable[[float], float] | None = None
    rate: Callable[[float], float] | None = None
    straight_through: bool = False
    moments_by_row: bool = False
    seed: int = 0


CHANGES: Mapping[str, Change] = {
    "the preset": Change(),
    "straight-through gradients": Change(straight_through=True),
    "second moments by row": Change(moments_by_row=True),
    "learning rate constant until 0.7 of the steps": Change(rate=lambda done: min(1.0, (1.0 - done) / 0.3)),
    "density falls as a cubic": Change(annealing=lambda done: 1.0 - (1.0 - done) ** 3),
    "density falls exponentially": Change(annealing=lambda done: (1.0 - 16.0**-done) / (1.0 - 1.0 / 16.0)),
    "the preset, seed 1": Change(seed=1),
    # As many nonzeros as the preset has with embeddings at 1/4 and blocks at 1/16.
    "embeddings at 1/8, blocks at 0.146": Change(
        {"sparsity.embedding_density": 1 / 8, "sparsity.density": 0.0625 + 262144 / 393216 / 8}
    ),
    "embeddings at 0.297, blocks at 1/32": Change(
        {"sparsity.embedding_density": 0.25 + 393216 / 262144 / 32, "sparsity.density": 1 / 32}
    ),
    "the preset, seed 2": Change(seed=2),
}


def training_changes(
    folder: Path, preset: str = "quickstart", changes: Mapping[str, Change] | None = None
) -> list[Check]:
    """Trains the preset with every change (or finishes it), and compares validation losses and dead neurons."""
    finish("data", f"--preset={preset}", f"--workdir={folder}")
    corpus = Corpus.open(folder / "corpus")
    changes = CHANGES if changes is None else changes
    rows = [_trained(folder, corpus, preset, name, change) for name, change in changes.items()]
    plots.write_csv(folder / TABLE, rows)
    checks = [reported(f"{row['change']}: validation loss", row["val_loss"]) for row in rows]
    best = min(rows, key=lambda row: row["val_loss"])
    return [*checks, at_most(f"half of the steps, lowest: {best['change']}", best["val_loss"], HALF_THE_TIME)]


def _trained(folder: Path, corpus: Corpus, preset: str, name: str, change: Change) -> Tree:
    """One training as a line of the table; finished where it has begun."""
    config = half_run(preset, change)
    workdir = folder / name.replace(", ", "_").replace(" ", "_").replace("/", "_")
    mesh = sharding.make_mesh(config, jax.devices()[:1])
    print(name)
    batches = corpus_batches(config, corpus, mesh)
    if loop.train(config, workdir, batches, mesh=mesh, objective=Changed(config, change=change)).interrupted:
        raise interruption.Interrupted(interruption.LINE)
    logged = metrics_rows(workdir)
    quarters = np.array_split([row.loss for row in logged], 4)
    return {
        "change": name,
        "seed": change.seed,
        "val_loss": measures.validation_loss(workdir),
        "dead_neurons": logged[-1].dead_neurons,
        "training loss in quarters of the run": " ".join(f"{np.mean(part):.2f}" for part in quarters),
    }


def half_run(preset: str, change: Change) -> Config:
    """The preset with half of its steps and a change's fields."""
    base = presets.preset(preset)
    fields = {"train.steps": base.train.steps // 2, "train.seed": change.seed, **change.fields}
    return configs.validate(configs.replace(base, fields))


@dataclasses.dataclass(frozen=True)
class Changed(LanguageModel):
    """An Objective: a language model on one device, trained with a change."""

    change: Change = Change()

    @functools.cached_property
    def recipe(self) -> optimizer.Recipe:
        """The preset's, with the change's direction."""
        found = optimizer.make(self.config)
        if not self.change.moments_by_row:
            return found
        direction = optimizer.chain(
            optimizer.hold_constants(),
            optimizer.divide_by(lambda gradients: (found.rms(gradients) + 1e-5) / self.config.optimizer.grad_rms),
            adam_by_row(self.config),
        )
        return found._replace(direction=direction)

    def settings(self, s: int) -> schedules.StepSettings:
        found, change = schedules.settings(self.config, s), self.change
        rate, density, keep = found.learning_rate, found.density, found.keep
        if change.annealing:
            # The linear schedule at another step has the density wanted; the sharkfin factor follows the density.
            start, stop = (
                share * self.config.train.steps
                for share in (self.config.sparsity.anneal_start, self.config.sparsity.anneal_stop)
            )
            at = start + (stop - start) * change.annealing(schedules.annealing(self.config, s))
            density = schedules.density(self.config, at, self.config.sparsity.density)
            keep = schedules.keep_counts(self.config, at)
            rate *= (found.density / density) ** 0.5
        if change.rate:
            warmup = int(self.config.optimizer.warmup * self.config.train.steps)
            done = (s - warmup) / (self.config.train.steps - warmup)
            if 0 <= done < 1:
                rate *= change.rate(done) / (1.0 - done)
        return schedules.StepSettings(rate, density, keep)

    def abstract_state(self) -> TrainState:
        return step.on_one_device(jax.eval_shape(self.make_state))

    def make_state(self) -> TrainState:
        params = step.make_state(self.config).params
        return TrainState(params, self.recipe.direction.init(params))

    def compile_step(self) -> Advance:
        program = jax.jit(self._step, donate_argnums=0)
        compiled: Advance = program.lower(self.abstract_state(), *step.abstract_inputs(self.config, self.row)).compile()
        return compiled

    def _step(
        self, state: TrainState, tokens: jax.Array, lr: jax.Array, keep: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """As step.train_step, with the change."""
        projection, through = step.projection(self.config), self.change.straight_through
        used = projection(state.params, keep) if through else state.params
        microbatches = self.config.train.microbatches
        loss, gradients = step.loss_and_gradients(build(self.config), used, tokens, microbatches)
        direction, moments = self.recipe.direction.update(gradients, state.optimizer)
        params = self.recipe.apply(
            state.params, direction, lr, lambda params: params if through else projection(params, keep)
        )
        return TrainState(params, moments), {"loss": loss, "grad_rms": self.recipe.rms(gradients)}

    def evaluate(self, state: TrainState, batches: list[np.ndarray]) -> Tree:
        """As LanguageModel; weights that are only projected in the model are so here, to the density of the end."""
        if self.change.straight_through:
            keep = schedules.keep_counts(self.config, self.config.train.steps)
            params = jax.jit(step.projection(self.config))(state.params, keep)
            state = TrainState(params, state.optimizer)
        return super().evaluate(state, batches)


def adam_by_row(config: Config) -> optax.GradientTransformation:
    """Adam's direction with the mean of squared gradients over all axes of a tensor but one: that which counts neurons
    or attention channels, or, where the table names none, the first."""
    o, specs = config.optimizer, unflatten(dict(parameter_table(config.model)))
    inner = optimizer.adam(o)

    def squares(gradients: Params) -> Params:
        def mean(gradient: jax.Array, kept: int | None) -> jax.Array:
            others = tuple(axis for axis in range(gradient.ndim) if axis != (kept or 0))
            return jnp.mean(jnp.square(gradient), axis=others, keepdims=True)

        return jax.tree.map(lambda gradient, spec: mean(gradient, spec.neuron_axis), gradients, specs)

    def init(params: Params) -> optax.ScaleByAdamState:
        state = inner.init(params)
        return state._replace(nu=squares(state.mu))

    def update(
        gradients: Params, state: optax.ScaleByAdamState, params: Params | None = None
    ) -> tuple[Params, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(gradients, state.mu, o.beta1, 1)
        nu = optax.tree.update_moment(squares(gradients), state.nu, o.beta2, 1)
        first = optax.tree.bias_correction(mu, o.beta1, count)
        second = optax.tree.bias_correction(nu, o.beta2, count)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + o.eps), first, second)
        return direction, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)
