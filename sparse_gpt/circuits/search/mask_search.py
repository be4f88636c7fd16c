"""The mask search: S parallel searches, each with its own seed and hyperparameters, in one compiled program.

Objective per search (paper, appendix on pruning): task loss + k_coef * (number of open gates), minimised over tau with
AdamW. All searches see the same batches, and the weights are shared: under `vmap` every matrix product stays one
(S * B * T, in) x (in, out) product, and what comes before the first gate is computed once for all. Several devices
share the searches out among themselves and need not communicate.
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sparse_gpt import interruption
from sparse_gpt.circuits.nodes import LIMIT, Gates, clamp, heaviside
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.gated_model import GatedModel, binary_loss
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.search import pause
from sparse_gpt.config import NODE_SITES, PruneConfig
from sparse_gpt.progress import ProgressBar

CHUNK = 25  # steps per call of the compiled program; the progress bar moves once per call
ATTRIBUTION_DECAY = 0.95  # of the running mean of the task loss's gradient with respect to a gate


class Hyperparameters(NamedTuple):
    """One value per search: arrays (S,) outside of vmap, scalars inside."""

    seed: Any
    k_coef: Any
    learning_rate: Any
    weight_decay: Any
    beta2: Any
    warmup: Any  # fraction of the steps
    init_noise_scale: Any
    init_noise_bias: Any
    heaviside_temp: Any
    grad_clip: Any  # largest global norm of a search's gradient


class SearchState(NamedTuple):
    """What a search carries from step to step; leading axis S outside of vmap."""

    tau: Gates
    optimizer: Any
    attribution: Gates  # running mean of d(task loss) / d(gate); the more negative, the more the node helps


class SearchResult(NamedTuple):
    """What S mask searches end with, on the host; every array has the leading axis S."""

    tau: dict[str, np.ndarray]
    attribution: dict[str, np.ndarray]
    loss: np.ndarray  # (S, steps) task loss of each step's batch
    open_nodes: np.ndarray  # (S, steps)


def population(prune: PruneConfig) -> Hyperparameters:
    """Every seed with every k_coef: S = seeds x k_coefs, k_coef varying fastest."""
    penalties = prune.k_coefs
    size = prune.seeds * len(penalties)
    seeds = np.repeat(prune.seed + np.arange(prune.seeds), len(penalties)).astype(np.uint32)
    shared = {
        field: np.full(size, getattr(prune, field), np.float32)
        for field in Hyperparameters._fields
        if field not in ("seed", "k_coef")
    }
    return Hyperparameters(seeds, np.tile(np.array(penalties, np.float32), prune.seeds), **shared)


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


def update(
    gated: GatedModel,
    searchable: Gates,
    h: Hyperparameters,
    state: SearchState,
    step: jax.Array,
    batch: TaskBatch,
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


@functools.partial(jax.jit, static_argnames=("steps", "mesh", "tie_qk"), donate_argnames="states")
def advance(
    gated: GatedModel,
    searchable: Gates,
    h: Hyperparameters,
    states: SearchState,
    first: jax.Array,
    batches: TaskBatch,
    steps: int,
    mesh: Mesh | None = None,
    tie_qk: bool = False,
) -> tuple[SearchState, tuple[jax.Array, jax.Array]]:
    """All searches over a chunk of batches (leading axis: steps). Metrics come as two arrays (chunk, S).

    With a mesh of one axis, S must be a multiple of its size; every device runs its own part of the searches.
    """
    if mesh is not None:
        part, shared = PartitionSpec(mesh.axis_names), PartitionSpec()
        local = jax.shard_map(
            functools.partial(_advance, steps=steps, tie_qk=tie_qk),
            mesh=mesh,
            in_specs=(shared, shared, part, part, shared, shared),
            out_specs=(part, PartitionSpec(None, mesh.axis_names)),
            check_vma=False,  # loops inside start from constants
        )
        return local(gated, searchable, h, states, first, batches)
    return _advance(gated, searchable, h, states, first, batches, steps, tie_qk)


def _advance(
    gated: GatedModel,
    searchable: Gates,
    h: Hyperparameters,
    states: SearchState,
    first: jax.Array,
    batches: TaskBatch,
    steps: int,
    tie_qk: bool,
) -> tuple[SearchState, tuple[jax.Array, jax.Array]]:
    """What one device does."""
    one = functools.partial(update, steps=steps, tie_qk=tie_qk)
    together = jax.vmap(one, in_axes=(None, None, 0, 0, None, None))

    def body(states: SearchState, at: tuple[jax.Array, TaskBatch]) -> tuple[SearchState, Any]:
        return together(gated, searchable, h, states, *at)

    length = batches.positions.shape[0]
    return jax.lax.scan(body, states, (first + jnp.arange(length), batches))


def search(
    problem: Problem,
    h: Hyperparameters,
    *,
    progress: bool = True,
    devices: Sequence[jax.Device] | None = None,
    paused: Path | None = None,
) -> SearchResult:
    """Runs S searches side by side, shared out over the devices.

    A signal (see interruption.py) stops them after the chunk of steps that is running.

    Args:
        problem: its settings say how many steps, and how many pairs of training samples each step takes, cyclically.
        h: hyperparameters, arrays (S,).
        progress: whether to show a bar.
        devices: default: all of this process. When S is no multiple of their number, some searches are done twice.
        paused: a file for what a stopped search has done; a call that finds it there, for the same searches, goes on.
    """
    size, settings = len(h.seed), problem.settings
    mesh = _mesh(size, jax.local_devices() if devices is None else devices)
    if mesh is not None:
        repeated = np.arange(-(-size // mesh.size) * mesh.size) % size
        h = Hyperparameters(*(np.asarray(value)[repeated] for value in h))
    mask = {site: jnp.asarray(value, jnp.float32) for site, value in problem.searchable.items()}
    done, states, history = pause.read(paused, h, initial_states(h, problem.searchable))
    if mesh is not None:  # placed as `advance` returns them, or the second chunk would compile it anew
        states = jax.device_put(states, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    fixed = problem.gated, mask, h
    static = {"steps": settings.steps, "mesh": mesh, "tie_qk": settings.tie_qk}
    chunk = next(size for size in range(min(CHUNK, settings.steps), 0, -1) if settings.steps % size == 0)
    worked_since: float | None = None  # time.monotonic() after the first chunk, which compiles
    with (
        interruption.deferred(lambda at: at - worked_since if worked_since else 0.0),
        ProgressBar(
            total=settings.steps, initial=done, desc=f"search x{size}", unit="step", disable=not progress
        ) as bar,
    ):
        for first in range(done, settings.steps, chunk):
            batches = _batches(problem.train, first, chunk, settings.batch_pairs)
            with bar.compiling(worked_since is None):
                states, metrics = advance(*fixed, states, jnp.int32(first), batches, **static)
                history.append(jax.device_get(metrics))
            worked_since = worked_since or time.monotonic()
            if interruption.requested():
                if paused is not None:
                    pause.write(paused, first + chunk, h, states, history)
                interruption.check()
            bar.update(chunk)
            bar.set_postfix_str(f"loss {np.median(history[-1][0][-1]):.3f}, {np.median(history[-1][1][-1]):.0f} nodes")
    return _on_host(states, history, size, settings.tie_qk)


def _on_host(states: SearchState, history: list[Any], size: int, tie_qk: bool) -> SearchResult:
    """The first `size` searches; with tied gates, both nodes of a pair have the same values."""
    loss, opened = (np.concatenate(values).T[:size] for values in zip(*history, strict=True))
    tau, attribution = (
        {site: np.asarray(value)[:size] for site, value in gates.items()} for gates in (states.tau, states.attribution)
    )
    if tie_qk:
        tau["attn_k"] = tau["attn_q"]
        attribution["attn_q"] = attribution["attn_k"] = attribution["attn_q"] + attribution["attn_k"]
    return SearchResult(tau, attribution, loss, opened)


def _mesh(searches: int, devices: Sequence[jax.Device]) -> Mesh | None:
    """One axis over as many devices as can have a search; None for one."""
    count = min(searches, len(devices))
    if count == 1:
        return None
    return jax.make_mesh((count,), ("searches",), axis_types=(AxisType.Auto,), devices=devices[:count])


def _batches(train: TaskBatch, first: int, count: int, batch_pairs: int) -> TaskBatch:
    """Batches first .. first + count - 1, stacked on a leading axis."""
    pairs = len(train.positions) // 2
    pair = (np.arange(first * batch_pairs, (first + count) * batch_pairs) % pairs).reshape(count, batch_pairs)
    return rows(train, np.stack([2 * pair, 2 * pair + 1], axis=2).reshape(count, 2 * batch_pairs))
