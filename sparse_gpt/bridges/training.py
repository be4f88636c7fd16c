"""What the training loop runs when a sparse model is trained with bridges to a frozen dense one.

Optimizer recipe, projection, batches, checkpoints and resuming are those of training. The encoders and decoders are
trained beside the sparse model's parameters, count in the one gradient RMS, and are decayed like other matrices. In a
checkpoint the item "params" is the sparse model alone, so that everything that reads a workdir reads it as any other;
the bridges are in the item "optimizer", with what else a resumed run needs.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from sparse_gpt.bridges import boundaries
from sparse_gpt.bridges.bridge import bridge_table, encoder_fraction, init_bridges
from sparse_gpt.bridges.dense import DenseModel
from sparse_gpt.bridges.objective import Bridged, Terms, objective
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import recorder
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params, PyTree, abstract_params, parameter_table
from sparse_gpt.training import optimizer, schedules, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints
from sparse_gpt.training.objective import Advance

BRIDGE_STREAM, CHOICE_STREAM = 2, 3  # random streams of config.train.seed, beside those of training/step.py
Start = Callable[[], Params]
Evaluation = Callable[[step.TrainState, list[np.ndarray]], Tree]
PER_GROUP = ("kl_to_sparse", "kl_to_dense", "loss_to_sparse", "loss_to_dense")


class BridgeState(NamedTuple):
    """What a bridged run keeps beside the sparse model's parameters: the bridges, and the optimizer's state of both,
    whose `count` of steps draws the hybrids."""

    bridges: Params
    moments: PyTree


class BridgeProgram:
    """The step and evaluation of a bridged run, from the configurations alone, so that it can be compiled without any
    parameters.

    `mesh` is None on a single device. On a mesh the dense model is placed as a model of its own would be, and the
    bridges are sharded like its matrices; each step gathers them before it uses them.
    """

    def __init__(self, config: Config, mesh: Mesh | None, dense: Config):
        self.config, self.mesh, self.dense = config, mesh, dense
        m, d = config.model, dense.model
        pairs = boundaries.boundary_map(config.bridge.boundaries, d.n_layer, m.n_layer)
        self.groups = boundaries.groups(len(pairs), config.bridge.sampled)
        self.all_groups = boundaries.groups(len(pairs), 0)
        self.table = bridge_table(d.d_model, m.d_model, len(pairs))
        self.trained_table = {**parameter_table(m), **self.table}
        computed_like = dataclasses.replace(dense, train=config.train)
        self.bridged = Bridged(build(computed_like), build(config), pairs, encoder_fraction(config))

    # -- The dense model

    def abstract_dense(self) -> Params:
        """Shapes and dtypes of the dense model's parameters, with their shardings on a mesh."""
        shapes = abstract_params(self.dense.model)
        if self.mesh is None:
            return shapes
        layout = sharding.param_shardings(self.dense, self.mesh)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)

    def place(self, dense_params: Params) -> Params:
        """The dense model on the devices; no device gets more than its part."""
        if self.mesh is None:
            return jax.device_put(dense_params)

        def put(x: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
            return jax.make_array_from_callback(x.shape, like.sharding, lambda index: x[index])

        return jax.tree.map(put, dense_params, self.abstract_dense())

    # -- State

    def init_bridges(self) -> Params:
        """Untrained bridges from config.train.seed."""
        return init_bridges(jax.random.fold_in(jax.random.key(self.config.train.seed), BRIDGE_STREAM), self.table)

    def _init_state(self) -> step.TrainState:
        params, bridges = step.init_state(self.config).params, self.init_bridges()
        moments = optimizer.make(self.config, self.trained_table).direction.init({**params, **bridges})
        return step.TrainState(params, BridgeState(bridges, moments))

    def _layout(self) -> PyTree:
        if self.mesh is None:
            return None
        return sharding.state_shardings(self.config, self.mesh, jax.eval_shape(self._init_state), self.trained_table)

    def abstract_state(self) -> step.TrainState:
        shapes: step.TrainState = jax.eval_shape(self._init_state)
        if self.mesh is None:
            return shapes
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self._layout())

    def make_state(self) -> step.TrainState:
        state: step.TrainState = jax.jit(self._init_state, out_shardings=self._layout())()
        return state

    def make_state_with(self, bridges: Params) -> step.TrainState:
        """A fresh state with the given bridges, numpy arrays that are whole on every process."""
        state = self.make_state()
        held: BridgeState = state.optimizer
        placed = jax.tree.map(
            lambda x, like: jax.make_array_from_callback(x.shape, like.sharding, lambda index: x[index]),
            bridges,
            held.bridges,
        )
        return step.TrainState(state.params, BridgeState(placed, held.moments))

    # -- Step

    def compile_step(self) -> step.Jitted:
        """``step(state, dense_params, tokens, lr, keep)``, jitted with the state donated; see step.compile_step.

        It can be lowered with `abstract_state()` and `abstract_dense()`.
        """
        mesh = self.mesh
        layout: dict[str, PyTree] = {}
        if mesh is not None:
            whole = sharding.replicated(mesh)
            dense_layout = sharding.param_shardings(self.dense, mesh)
            layout["in_shardings"] = (self._layout(), dense_layout, sharding.batch_sharding(mesh), whole, whole)
            layout["out_shardings"] = (self._layout(), whole)
        return jax.jit(self._step, donate_argnums=0, **layout)

    def _step(
        self, state: step.TrainState, dense: Params, tokens: jax.Array, lr: jax.Array, keep: jax.Array
    ) -> tuple[step.TrainState, dict[str, jax.Array]]:
        """As step.train_step, with the bridges' objective. Adam's count is the step number that draws the hybrids."""
        held: BridgeState = state.optimizer
        key = jax.random.fold_in(jax.random.key(self.config.train.seed), CHOICE_STREAM)
        chosen = boundaries.choose(jax.random.fold_in(key, held.moments.count), self.groups)
        trained = {**state.params, **held.bridges}

        def loss_fn(trained: Params, part: jax.Array) -> tuple[jax.Array, Terms]:
            params, bridges = self._split(trained)
            terms = self.bridged.terms(dense, params, self._whole(bridges), part, self.groups, chosen)
            return objective(self.config.bridge, terms, self.groups), terms

        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        with sharding.activations_on(self.mesh):
            (value, terms), gradients = step.over_microbatches(
                lambda part: value_and_grad(trained, part), tokens, self.config.train.microbatches
            )
        recipe = optimizer.make(self.config, self.trained_table)
        direction, moments = recipe.direction.update(gradients, held.moments)
        projection = step.projection(self.config, self.mesh)
        trained = recipe.apply(trained, direction, lr, lambda trained: projection(trained, keep))
        params, bridges = self._split(trained)
        metrics = {"objective": value, "grad_rms": recipe.rms(gradients), **self._by_bridge(terms, chosen)}
        return step.TrainState(params, BridgeState(bridges, moments)), metrics

    def _split(self, trained: Params) -> tuple[Params, Params]:
        """(parameters of the sparse model, bridges)."""
        names = {path[0] for path in self.table}
        return (
            {name: leaf for name, leaf in trained.items() if name not in names},
            {name: leaf for name, leaf in trained.items() if name in names},
        )

    def _whole(self, bridges: Params) -> Params:
        """The bridges, whole on every device: were they used in parts, so would be the rows that AbsTopK looks at."""
        if self.mesh is None:
            return bridges
        return jax.lax.with_sharding_constraint(bridges, sharding.replicated(self.mesh))

    def _by_bridge(self, terms: Terms, chosen: jax.Array) -> dict[str, jax.Array]:
        """Terms by name; hybrids that were not run this step are NaN."""
        found = {field.name: getattr(terms, field.name) for field in dataclasses.fields(terms)}
        unknown = jnp.full(len(self.all_groups), jnp.nan)
        return found | {name: unknown.at[chosen].set(found[name]) for name in PER_GROUP}

    # -- Evaluation

    def evaluation(self, held: Params) -> Evaluation:
        """Means over batches of every term, all hybrids included, as val_NAME; and dead_neurons of the sparse model.

        `held` is the dense model, see `place`.
        """
        every = np.arange(len(self.all_groups), dtype=np.int32)

        def evaluate(params: Params, bridges: Params, dense: Params, tokens: jax.Array) -> tuple[Terms, jax.Array]:
            seen: dict[tuple[str, int], jax.Array] = {}
            tap = recorder(seen, ("mlp_neuron",))
            with sharding.activations_on(self.mesh):
                terms = self.bridged.terms(
                    dense, params, self._whole(bridges), tokens, self.all_groups, jnp.asarray(every), tap
                )
            return terms, jnp.stack([jnp.any(x != 0, axis=(0, 1)) for x in seen.values()])

        whole = None if self.mesh is None else sharding.replicated(self.mesh)
        compiled, rows = jax.jit(evaluate, out_shardings=whole), self.config.train.batch_size

        def over_batches(state: step.TrainState, batches: list[np.ndarray]) -> Tree:
            placed = (sharding.put_batch(self.mesh, rows, batch) for batch in batches)
            results = [
                jax.device_get(compiled(state.params, state.optimizer.bridges, held, tokens)) for tokens in placed
            ]
            mean = jax.tree.map(lambda *values: np.mean(values, axis=0).tolist(), *(terms for terms, _ in results))
            alive = np.logical_or.reduce([alive for _, alive in results])
            entries = {f"val_{field.name}": getattr(mean, field.name) for field in dataclasses.fields(mean)}
            return entries | {"dead_neurons": int(np.sum(~alive))}

        return over_batches


def exact_program(config: Config, dense: Config) -> BridgeProgram:
    """The program on one device and in float32, whatever it is trained in: as everything is computed that is said of
    trained models, see model.build_exact."""
    train = dataclasses.replace(config.train, dtype="float32", remat=False)
    return BridgeProgram(dataclasses.replace(config, train=train), None, dense)


class BridgeObjective:
    """An Objective: the bridged run of a dense model.

    Args:
      config, mesh: of the run; None for one device.
      dense: the dense model, whose parameters are numpy arrays, whole on every process.
      start: makes the bridges that a new run starts with; without it they are drawn from config.train.seed.
    """

    def __init__(self, config: Config, mesh: Mesh | None, dense: DenseModel, start: Start | None = None):
        self.program, self.dense, self.start = BridgeProgram(config, mesh, dense.config), dense, start

    @functools.cached_property
    def placed(self) -> Params:
        """The dense model on the devices."""
        return self.program.place(self.dense.params)

    def abstract_state(self) -> step.TrainState:
        state = self.program.abstract_state()
        return step.on_one_device(state) if self.program.mesh is None else state

    def make_state(self) -> step.TrainState:
        return self.program.make_state() if self.start is None else self.program.make_state_with(self.start())

    def settings(self, s: int) -> schedules.StepSettings:
        return schedules.settings(self.program.config, s)

    def compile_step(self) -> Advance:
        dense = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.placed)
        inputs = step.abstract_inputs(self.program.config)
        compiled = self.program.compile_step().lower(self.abstract_state(), dense, *inputs).compile()
        return lambda state, tokens, lr, keep: compiled(state, self.placed, tokens, lr, keep)

    def revive(self, state: step.TrainState, s: int) -> step.TrainState:
        """The state as it is: bridges lead to neurons, so that none may change its meaning."""
        return state

    def evaluate(self, state: step.TrainState, batches: list[np.ndarray]) -> Tree:
        return self._evaluation(state, batches)

    @functools.cached_property
    def _evaluation(self) -> Evaluation:
        return self.program.evaluation(self.placed)


def restore(workdir: Path, program: BridgeProgram) -> tuple[int, step.TrainState]:
    """(finished steps, state) of the newest checkpoint of a bridged run, on one device.

    Raises:
      InputError: none is there, or it is of another model.
    """
    with Checkpoints(workdir) as checkpoints:
        here = SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), program.abstract_state()
        )
        found = checkpoints.restore_newest(abstract.params, abstract.optimizer)
    if found is None:
        raise InputError(f"{workdir / 'checkpoints'}: no checkpoint of a bridged run; start it with launch.bridge")
    return found[0], step.TrainState(found[1], found[2])
