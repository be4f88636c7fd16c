"""The train step: loss, gradients, optimizer recipe and projection in one compiled, donated program."""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from sparse_gpt.config import Config, TrainConfig
from sparse_gpt.model.transformer import Transformer, apply, build
from sparse_gpt.parameters import Params, PyTree, flatten
from sparse_gpt.sparsity.projection import Projection
from sparse_gpt.training import manifest, optimizer, schedules, sharding

Jitted = jax.stages.Wrapped  # a function under jit: it can be called, or lowered


@flax.struct.dataclass
class TrainState:
    """Parameters and the optimizer's state (Adam's moments), all float32.

    `optimizer` is whatever a run needs beside the model's parameters to go on.
    """

    params: Params
    optimizer: PyTree


def cross_entropy(logits_BxTxV: jax.Array, targets_BxT: jax.Array) -> jax.Array:
    """Mean next-token cross-entropy in nats, float32 scalar."""
    top = jnp.take_along_axis(logits_BxTxV, targets_BxT[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits_BxTxV, axis=-1) - top)


def init_state(config: Config) -> TrainState:
    """Fresh state from config.train.seed."""
    model = build(config)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = model.init(jax.random.key(config.train.seed), tokens)["params"]
    if config.optimizer.recipe in ("openai_reference", "fast"):
        params = _reference_init(config, params)
    return TrainState(params, optimizer.make(config).direction.init(params))


def _reference_init(config: Config, params: Params) -> Params:
    """The reference starts its bigram table uniform in [0, 0.02) and additive positions at zero."""
    if config.model.bigram:
        key = jax.random.fold_in(jax.random.key(config.train.seed), 1)
        params = {**params, "bigram": jax.random.uniform(key, params["bigram"].shape, maxval=0.02)}
    if config.model.position == "additive":
        params = {**params, "wpe": jnp.zeros_like(params["wpe"])}
    return params


def loss_fn(model: Transformer, params: Params, tokens_BxT1: jax.Array) -> jax.Array:
    """Loss on a batch whose rows hold at most context + 1 tokens."""
    logits = apply(model, params, tokens_BxT1[:, :-1])
    return cross_entropy(logits, tokens_BxT1[:, 1:])


def loss_and_gradients(model: Transformer, params: Params, tokens: jax.Array, parts: int) -> tuple[jax.Array, Params]:
    """Mean loss and its gradients; the batch is taken in `parts` equal microbatches to bound memory."""
    value_and_grad = jax.value_and_grad(lambda p, t: loss_fn(model, p, t))
    result: tuple[jax.Array, Params] = over_microbatches(lambda t: value_and_grad(params, t), tokens, parts)
    return result


def over_microbatches(function: Callable[[jax.Array], PyTree], tokens: jax.Array, parts: int) -> PyTree:
    """Mean of `function`, which gives a tree of float32 arrays, over `parts` equal microbatches of the rows."""
    if parts == 1:
        return function(tokens)

    def accumulate(total: PyTree, part: jax.Array) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    # Rows are dealt out so that every device keeps its own rows in every part.
    split = jnp.swapaxes(tokens.reshape(-1, parts, tokens.shape[1]), 0, 1)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, split[0]))
    total, _ = jax.lax.scan(accumulate, zero, split)
    return jax.tree.map(lambda x: x / parts, total)


# More than six parameters: what changes with every step is traced, what does not is static, and a record of both would
# hide which is which.
def train_step(
    state: TrainState,
    tokens: jax.Array,
    lr: jax.Array,
    keep: jax.Array,
    *,
    config: Config,
    mesh: Mesh | None = None,
    project: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step: loss and gradients, the recipe's direction, and the weights moved against it and projected.

    Args:
      state: parameters and moments before the step.
      tokens: (B, T + 1) integers.
      lr: learning rate, float32 scalar.
      keep: (projected tensors,) int32, entries that stay nonzero, in the order of `schedules.projected_tensors`.
      config: static; what a step computes.
      mesh: static; where the state is placed, or None for one device.
      project: static; False leaves the projection out, to tell what it costs.

    Returns:
      The new state, and metrics: loss, grad_rms.
    """
    recipe = optimizer.make(config)
    with sharding.activations_on(mesh):
        loss, gradients = loss_and_gradients(build(config), state.params, tokens, config.train.microbatches)
    direction, moments = recipe.direction.update(gradients, state.optimizer)
    projected = projection(config, mesh) if project else lambda params, keep: params
    params = recipe.apply(state.params, direction, lr, lambda params: projected(params, keep))
    return TrainState(params, moments), {"loss": loss, "grad_rms": recipe.rms(gradients)}


def projection(config: Config, mesh: Mesh | None = None) -> Projection:
    """The projection of the configured model's tensors, where they are placed on the mesh."""
    tensors = schedules.projected_tensors(config)
    specs = {} if mesh is None else sharding.partition_specs(config.model, mesh)
    return Projection(tensors, config.sparsity.min_alive, mesh, {path: specs[path] for path in tensors if specs})


def nonzeros(params: Params, mesh: Mesh | None = None) -> dict[str, int]:
    """As `manifest.nonzeros`, of parameters where they are placed.

    Not part of the step: it is asked for at logged steps only, and on a CPU NumPy counts at once what would take a
    second to compile.
    """
    if mesh is None and jax.default_backend() == "cpu":
        return manifest.nonzeros(params)
    leaves = flatten(params)
    counts = jax.device_get(_counter(mesh)(list(leaves.values())))
    return {"/".join(path): int(count) for path, count in zip(leaves, counts, strict=True)}


@functools.cache
def _counter(mesh: Mesh | None) -> Callable[[list[jax.Array]], list[jax.Array]]:
    layout = None if mesh is None else sharding.replicated(mesh)
    return jax.jit(lambda leaves: [jnp.count_nonzero(leaf) for leaf in leaves], out_shardings=layout)


def abstract_state(config: Config, mesh: Mesh | None = None) -> TrainState:
    """Shapes and dtypes of the state, with its shardings when there is a mesh; nothing is computed."""
    shapes: TrainState = jax.eval_shape(lambda: init_state(config))
    if mesh is None:
        return shapes
    layout = sharding.state_shardings(config, mesh, shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)


def on_one_device(shapes: PyTree) -> PyTree:
    """A tree of shapes as arrays have them that are on this process's first device."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def abstract_inputs(config: Config, row: int | None = None) -> tuple[jax.ShapeDtypeStruct, ...]:
    """What a step takes beside the state: tokens, learning rate and entries to keep. A row of the batch has context + 1
    tokens, or `row` of them."""
    return (
        jax.ShapeDtypeStruct((config.train.batch_size, row or config.model.context + 1), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.ShapeDtypeStruct((len(schedules.projected_tensors(config)),), jnp.int32),
    )


def make_state(config: Config, mesh: Mesh | None = None) -> TrainState:
    """Fresh state from config.train.seed, made where it will be: no device ever holds more than its part."""
    seed = dataclasses.replace(TrainConfig(), seed=config.train.seed)
    state: TrainState = _maker(dataclasses.replace(_only_what_a_step_reads(config), train=seed), mesh)()
    return state


@functools.cache
def _maker(config: Config, mesh: Mesh | None) -> Callable[[], TrainState]:
    layout = None if mesh is None else sharding.state_shardings(config, mesh, abstract_state(config))
    return jax.jit(lambda: init_state(config), out_shardings=layout)


def compile_step(config: Config, mesh: Mesh | None = None, project: bool = True) -> Jitted:
    """``step(state, tokens, lr, keep)``: `train_step`, jitted with the state donated; the same function for
    configurations that differ in nothing that a step computes.

    With a mesh the state is placed as `sharding.state_shardings` says, tokens as `sharding.batch_sharding`, and lr,
    keep and the metrics are replicated. It can be lowered without devices: `compile_step(config, mesh).lower(
    abstract_state(config, mesh), *abstract_inputs(config))`.
    """
    return _compiled(_only_what_a_step_reads(config), mesh, project)


def _only_what_a_step_reads(config: Config) -> Config:
    """`config` with everything at its default that decides nothing within one step: schedules, data, searches.

    A new field of TrainConfig that a step reads must be listed here, or the step gets its default.
    """
    t, o, s, default = config.train, config.optimizer, config.sparsity, Config()
    return dataclasses.replace(
        default,
        model=config.model,
        sparsity=dataclasses.replace(
            s,
            revive_every=0,
            density=1.0,
            embedding_density=0.0,
            anneal_start=default.sparsity.anneal_start,
            anneal_stop=1.0,
        ),
        optimizer=dataclasses.replace(o, learning_rate=1.0, warmup=0.0, sharkfin=False),
        train=dataclasses.replace(default.train, microbatches=t.microbatches, dtype=t.dtype, remat=t.remat),
    )


@functools.cache
def _compiled(config: Config, mesh: Mesh | None, project: bool) -> Jitted:
    step = functools.partial(train_step, config=config, mesh=mesh, project=project)
    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    whole = sharding.replicated(mesh)
    state = sharding.state_shardings(config, mesh, abstract_state(config))
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state, sharding.batch_sharding(mesh), whole, whole),
        out_shardings=(state, whole),
    )
