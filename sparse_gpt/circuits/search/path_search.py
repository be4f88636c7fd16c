"""The path search: one step of one search. The penalty of an open gate rises for as long as the task's loss allows it.

A fixed penalty closes most nodes within a few steps, at the gradient of the whole model, where the task loss is
saturated. Here it starts so low that next to nothing closes, and follows the running loss; scale and shift of the
logits are learned with the mask, because selection calibrates too; and the smallest mask that is at the target on
selection samples is kept.

Gates are Heaviside (as the paper's) or hard concrete, by search. One array tau serves both: a concrete gate's log-alpha
is LOG_ALPHA times its tau, so that one learning rate fits both, and either is open where tau is positive.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_gpt.circuits.nodes import LIMIT, GateArrays, Gates, finite, hard_concrete, heaviside, open_probability
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.objective import LARGEST, traced_losses
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.circuits.run.subcircuits import Subcircuits
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters
from sparse_gpt.circuits.search.integrated_gradients import Start
from sparse_gpt.config import NODE_SITES
from sparse_gpt.parameters import Leaf, PyTree

LOG_ALPHA = 10.0  # a concrete gate's log-alpha, per unit of its tau
CONCRETE_LIMIT = 0.6  # its tau stays within, either way: log-alpha within [-6, 6]
CONCRETE_START = 2.0  # of a flat start: times the start of a Heaviside gate
LOSS_DECAY, SLOPE_DECAY = 0.9, 0.95  # of running means
PENALTY_RATE, SLOWEST, FASTEST = 0.1, -0.2, 0.1  # log(penalty) per step: rate, and between which numbers it stays
OVERSHOOT = 4.0  # times the penalty at which the loss was half way to the target: no penalty is higher
CALIBRATION_RATE = 0.05  # learning rate of scale (its log) and shift
STRONGEST = 10.0  # times the penalty: a larger task gradient of a gate counts no more, or Adam would remember it long
LARGEST_LOSS = 3.0  # times the target: a batch with a larger loss counts no more in running means
LOSE, REGAIN, TRUST = 0.75, 1.1, (0.2, 1.5)  # of the target, see `checked`: factors, and limits
RIDGE = 0.05  # nats per squared log: how firmly the scale is held at the one that gives the model's own margin
CLOSED, CONCRETE_CLOSED = -0.1, -0.45  # tau below which a gate is closed for good, at a moment of compaction
FALLING = 0.3  # share of the steps, the last ones, in which the learning rate falls to 0


class Aim(NamedTuple):
    """What all searches of a problem share beside the model."""

    target: Leaf  # () nats
    margin: Leaf  # () mean of answer logit - foil logit in the whole model
    tokens: Leaf  # (K,) those that calibration may shift
    largest_scale: Leaf  # () of the calibration
    restored: Leaf  # () share of the steps in which some closed nodes are restored, see `drawn_gates`
    allowance: Leaf  # (G,) nats by which each task's loss may be above the target


class Best(NamedTuple):
    """The smallest mask so far that was at the target on selection samples when it was checked."""

    tau: Gates
    slope: Gates
    open_nodes: Leaf  # (), infinity: none yet


class PathState(NamedTuple):
    """What a search carries from step to step; leading axis S outside of vmap. G tasks."""

    tau: Gates
    log_scale: Leaf  # ()
    shift: Leaf  # (K,)
    optimizer: PyTree
    slope: Gates  # running mean of d(task loss) / d(gate); the more negative, the more the node helps
    penalty: Leaf  # () nats per open gate
    cap: Leaf  # () above which it does not rise; infinity until the loss is half way to the target
    half: Leaf  # () that loss
    running: Leaf  # (G,) running mean of each task's calibrated loss, less its allowance
    trust: Leaf  # () share of the target, or multiple, that the running loss is held at
    best: Best
    searched: Gates  # 1 where a node may still be open


def initial_states(h: Hyperparameters, searchable: Gates, start: Start | None, shifted: int, tasks: int) -> PathState:
    """States of S searches before the first step.

    Args:
        h: hyperparameters, arrays (S,).
        searchable: site -> (n_layer, width), 1 where a node may be open.
        start: of searches that start from a ranking, see `integrated_gradients.start`.
        shifted: K, tokens that calibration may shift.
        tasks: G.
    """
    size = len(h.seed)
    every = {site: np.asarray(value, np.float32) for site, value in searchable.items()}
    of_searches = [start.searched if start is not None and ranked else every for ranked in h.ranked]
    searched = {site: np.stack([each[site] for each in of_searches]).astype(np.float32) for site in NODE_SITES}
    taus = [_initial_tau(Hyperparameters(*(value[i] for value in h)), of_searches[i], start) for i in range(size)]
    tau = {site: np.stack([each[site] for each in taus]) for site in NODE_SITES}
    zeros = jax.tree.map(np.zeros_like, tau)
    scale, shift = np.zeros(size, np.float32), np.zeros((size, shifted), np.float32)
    moments = optax.ScaleByAdamState(np.zeros(size, np.int32), (zeros, scale, shift), (zeros, scale, shift))
    never = np.full(size, np.inf, np.float32)
    state = PathState(
        tau=tau,
        log_scale=scale,
        shift=shift,
        optimizer=moments,
        slope=zeros,
        penalty=np.asarray(h.k_coef, np.float32),
        cap=never,
        half=never,
        running=np.zeros((size, tasks), np.float32),
        trust=np.ones(size, np.float32),
        best=Best(tau, zeros, never),
        searched=searched,
    )
    return jax.tree.map(jnp.array, state)


def _initial_tau(h: Hyperparameters, searched: GateArrays, start: Start | None) -> GateArrays:
    rng, tau = np.random.default_rng(h.seed), {}
    flat, limit = h.init_noise_bias * (CONCRETE_START if h.concrete else 1), CONCRETE_LIMIT if h.concrete else LIMIT
    for site in NODE_SITES:
        middle = start.tau[site] if start is not None and h.ranked else flat
        value = middle + h.init_noise_scale * rng.standard_normal(searched[site].shape)
        tau[site] = np.where(searched[site] > 0, np.clip(value, -limit, limit), -limit)
    return {site: value.astype(np.float32) for site, value in tau.items()}


def not_closed(h: Hyperparameters, tau: GateArrays, tie_qk: bool) -> GateArrays:
    """(n_layer, width) per site: 1 where some of S searches may still open the node, from their taus (S, ...)."""
    limit = np.where(np.asarray(h.concrete) > 0, CONCRETE_CLOSED, CLOSED)[:, None, None]
    alive = {site: np.any(value > limit, axis=0).astype(np.float32) for site, value in tau.items()}
    return alive | {"attn_k": alive["attn_q"]} if tie_qk else alive


def next_penalty(penalty: jax.Array, least: jax.Array, cap: jax.Array, loss: jax.Array, target: jax.Array) -> jax.Array:
    """The penalty after a step, between `least`, with which the search began, and `cap`: it rises while the loss is
    below the target, more slowly the nearer it is, and falls above it. Without the lower bound a search that begins
    above the target would take long to come back to a penalty that closes anything."""
    change = jnp.clip(PENALTY_RATE * (target - loss) / target, SLOWEST, FASTEST)
    return jnp.minimum(jnp.maximum(penalty * jnp.exp(change), least), jnp.maximum(cap, least))


def learning_rate(step: jax.Array, steps: int) -> jax.Array:
    """1, then linear to 0 over the last steps."""
    return jnp.minimum(1.0, (steps - step.astype(jnp.float32)) / max(1.0, FALLING * steps))


def losses_by_task(each: jax.Array, task: jax.Array | None, before: jax.Array) -> jax.Array:
    """(G,) a batch's mean loss of each task, from those of its samples (B,); `before` (G,) where it has no sample."""
    if task is None:
        return jnp.mean(each)[None]
    own = (task[:, None] == jnp.arange(len(before))[None, :]).astype(each.dtype)
    count = jnp.sum(own, axis=0)
    return jnp.where(count > 0, each @ own / jnp.maximum(count, 1), before)


def drawn_gates(
    tau: Gates, searched: Gates, h: Hyperparameters, step: jax.Array, restored: jax.Array, tie_qk: bool
) -> dict[str, jax.Array]:
    """Gates of one step: those of tau > 0, or drawn from hard concrete distributions with noise of the step.

    In a share `restored` of the steps, a random part of what is searched and closed is as in the model: a circuit has
    to work beside the rest of the model, not only without it (stochastic ablation).
    """
    key = jax.random.fold_in(jax.random.key(h.seed), step)
    gates = {}
    for i, (site, value) in enumerate(tau.items()):
        noise = jax.random.uniform(jax.random.fold_in(key, i), value.shape, minval=1e-6, maxval=1 - 1e-6)
        concrete = hard_concrete(LOG_ALPHA * value, noise)
        gates[site] = jnp.where(h.concrete > 0, concrete, heaviside(value, h.heaviside_temp)) * searched[site]
    at_all, share, which = jax.random.split(jax.random.fold_in(key, len(tau)), 3)
    part = jnp.where(jax.random.uniform(at_all) < restored, jax.random.uniform(share), 0.0)
    for i, (site, value) in enumerate(gates.items()):
        back = jax.random.uniform(jax.random.fold_in(which, i), value.shape) < part
        gates[site] = value + (1 - value) * jnp.where(back, searched[site], 0.0)
    return gates | {"attn_k": gates["attn_q"]} if tie_qk else gates


def expected_open(tau: Gates, searched: Gates, h: Hyperparameters, tie_qk: bool) -> jax.Array:
    """Number of open gates, expected where gates are drawn. Tied nodes are both paid for."""
    count = {
        site: jnp.sum(
            jnp.where(h.concrete > 0, open_probability(LOG_ALPHA * value), heaviside(value, h.heaviside_temp))
            * searched[site]
        )
        for site, value in tau.items()
    }
    count = count | {"attn_k": count["attn_q"]} if tie_qk else count
    return jnp.sum(jnp.stack(list(count.values())))


# More than six parameters: as of `mask_search.advance`.
def update(
    model: GatedModel | Subcircuits,
    aim: Aim,
    h: Hyperparameters,
    state: PathState,
    step: jax.Array,
    batch: AnyBatch,
    steps: int,
    tie_qk: bool = False,
) -> tuple[PathState, tuple[jax.Array, jax.Array]]:
    """One step of one search.

    Args:
        model: as it is, or restricted to nodes that contain all searched ones.
        aim: of all searches.
        h: scalars.
        state: before the step.
        step: from 0.
        batch: B samples.
        steps: of the whole search.
        tie_qk: tau of a q channel is also that of the k channel of the same index.

    Returns:
        The new state, and (largest calibrated task loss of the batch, number of open nodes) before the step.
    """
    model = model.with_ablation_set(step)
    answer, foil = (_one_hot(ids, aim.tokens) for ids in (batch.answer, batch.foil))

    def mean_loss(
        gates: Gates, log_scale: jax.Array, shift: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = model.answer_logits(gates, batch)
        margin = logits[:, 0] - logits[:, 1]
        each = traced_losses(jnp.exp(log_scale) * margin + (answer - foil) @ shift, batch.foil_share)
        known = jnp.where(jnp.isfinite(each), each, LARGEST)
        return jnp.mean(each), (known, jnp.nan_to_num(jnp.mean(margin)))

    gates, through = jax.vjp(lambda tau: drawn_gates(tau, state.searched, h, step, aim.restored, tie_qk), state.tau)
    (_, (each, margin)), slopes = jax.value_and_grad(mean_loss, argnums=(0, 1, 2), has_aux=True)(
        gates, state.log_scale, state.shift
    )
    slope, by_scale, by_shift = finite(slopes)
    price = jax.grad(expected_open)(state.tau, state.searched, h, tie_qk)
    most = STRONGEST * state.penalty
    limited = jax.tree.map(lambda d: jnp.clip(d, -most, most), slope)
    gradient = jax.tree.map(lambda d, p: d + state.penalty * p, through(limited)[0], price)
    wanted = jnp.log(jnp.clip(aim.margin / jnp.maximum(margin, 1e-6), 1.0, aim.largest_scale))
    by_scale = by_scale + 2 * RIDGE * (state.log_scale - wanted)
    directions, optimizer = optax.scale_by_adam(b2=h.beta2).update((gradient, by_scale, by_shift), state.optimizer)
    opened = jnp.sum(jnp.stack([jnp.sum(mask) for mask in open_masks(state, tie_qk).values()]))
    losses = losses_by_task(each, batch.task, state.running + aim.allowance)
    followed = _follow(aim, h.k_coef, state, step, losses, slope)
    after = _moved(h, aim, followed, directions, learning_rate(step, steps))
    return after._replace(optimizer=optimizer), (jnp.max(losses), opened)


def _moved(h: Hyperparameters, aim: Aim, state: PathState, directions: PyTree, share: jax.Array) -> PathState:
    """Taus, scale and shift moved against their directions, by a share of their learning rates."""
    by_tau, by_scale, by_shift = directions
    limit = jnp.where(h.concrete > 0, CONCRETE_LIMIT, LIMIT)
    tau = {
        site: jnp.where(
            state.searched[site] > 0, jnp.clip(value - share * h.learning_rate * by_tau[site], -limit, limit), -limit
        )
        for site, value in state.tau.items()
    }
    log_scale = jnp.clip(state.log_scale - share * CALIBRATION_RATE * by_scale, 0.0, jnp.log(aim.largest_scale))
    return state._replace(tau=tau, log_scale=log_scale, shift=state.shift - share * CALIBRATION_RATE * by_shift)


def _follow(
    aim: Aim,
    first_penalty: jax.Array,
    state: PathState,
    step: jax.Array,
    losses: jax.Array,
    slope: Gates,
) -> PathState:
    """What follows the losses of a step: running means, and the penalty with its cap."""
    is_first, losses = step == 0, jnp.minimum(losses - aim.allowance, LARGEST_LOSS * aim.target)
    running = jnp.where(is_first, losses, LOSS_DECAY * state.running + (1 - LOSS_DECAY) * losses)
    worst = jnp.max(running)
    averaged = jax.tree.map(lambda a, d: SLOPE_DECAY * a + (1 - SLOPE_DECAY) * d, state.slope, slope)
    # Half way from nothing, or from where the whole model is already: or a task that it hardly does would never begin.
    half = jnp.where(is_first, (jnp.minimum(worst, aim.target) + aim.target) / 2, state.half)
    cap = jnp.where(worst < half, jnp.inf, jnp.minimum(state.cap, OVERSHOOT * state.penalty))
    loss = jnp.maximum(worst, jnp.max(losses))
    return state._replace(
        slope=averaged,
        penalty=next_penalty(state.penalty, first_penalty, cap, loss, state.trust * aim.target),
        cap=cap,
        half=half,
        running=running,
    )


def open_masks(state: PathState, tie_qk: bool) -> dict[str, jax.Array]:
    """(n_layer, width) per site, or (S, n_layer, width) of S searches: 1 where a node is open in the mask."""
    masks = {site: jnp.where(value > 0, state.searched[site], 0.0) for site, value in state.tau.items()}
    return masks | {"attn_k": masks["attn_q"]} if tie_qk else masks


def checked(state: PathState, masks: Gates, at_target: np.ndarray, target: float) -> PathState:
    """States of S searches after their masks were evaluated on selection samples.

    The batches of a search are small, and of several tasks the largest loss counts: its running mean says little of
    what selection will find. So the search is held at a share of the target, or a multiple, which falls as long as its
    masks fail there though its running loss is where it should be, and rises while they hold.

    Args:
        state: of S searches.
        masks: `open_masks` of it.
        at_target: (S,) whether the loss of each mask is at most the selection target.
        target: that one, in nats.
    """
    opened = sum(jnp.sum(value, axis=(1, 2)) for value in masks.values())
    better = jnp.asarray(at_target) & (opened > 0) & (opened <= state.best.open_nodes)

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    best = jax.tree.map(choose, Best(state.tau, state.slope, opened), Best(*state.best))
    deceived = jnp.where(jnp.max(state.running, axis=1) <= state.trust * target, LOSE, 1.0)
    trust = state.trust * jnp.where(jnp.asarray(at_target), REGAIN, deceived)
    return state._replace(best=best, trust=jnp.clip(trust, *TRUST))


def _one_hot(ids: jax.Array, tokens: jax.Array) -> jax.Array:
    """(B, K) 1 where an id is the token."""
    return (ids[:, None] == tokens[None, :]).astype(jnp.float32)
