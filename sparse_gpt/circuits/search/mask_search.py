"""The mask search: S parallel searches, each with its own seed and hyperparameters, in one compiled program.

What a step of a search does is in paper_search.py and path_search.py; this is the loop around it. The weights are
shared: under `vmap` every matrix product stays one (S * B * T, in) x (in, out) product. In the paper's search all
searches see the same batches, and what comes before the first gate is computed once for all; in the path search each
has its own, so that what they agree on is more than one run repeated. Several devices share the searches out among
themselves and need not communicate.
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sparse_gpt import interruption
from sparse_gpt.circuits.nodes import Gates, from_vector, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.edge_ablation import weight_count
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.packed_batch import PackedBatch, packed
from sparse_gpt.circuits.run.subcircuits import Subcircuits, build_subcircuits
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.circuits.search import paper_search, path_search, pause
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters
from sparse_gpt.circuits.search.integrated_gradients import Start
from sparse_gpt.circuits.search.path_search import Aim, PathState
from sparse_gpt.parameters import Leaf
from sparse_gpt.progress import ProgressBar

CHUNK = 25  # steps per call of the compiled program; the progress bar moves once per call
FEWEST = 10  # of them: masks are judged after each call
COMPACT_AT = (0.25, 0.5)  # of the steps: after these, what all searches have closed for good is not computed any more
WORTH_RESTRICTING = 0.15  # share of all nodes up to which a model restricted to them is faster
TOKENS = 64  # of a search's batch, a multiple
WORTH_AGAIN = 4  # times fewer nodes than a restricted model has, for which another is worth compiling
WORTH_COMPILING = 1.5e12  # multiplications that the remaining steps take in the whole model; half a minute of two cores
States = paper_search.SearchState | PathState


class SearchResult(NamedTuple):
    """What S mask searches end with, on the host; every array has the leading axis S."""

    tau: dict[str, np.ndarray]
    attribution: dict[str, np.ndarray]
    loss: np.ndarray  # (S, steps) task loss of each step's batch; in a path search calibrated, and of the worst task
    open_nodes: np.ndarray  # (S, steps)
    feasible: np.ndarray  # (S,) whether tau is a mask at the target on selection samples; the paper's: any node open


# More than six parameters here and in what it calls: what is compiled has each array, and each static value, by name.
@functools.partial(jax.jit, static_argnames=("steps", "mesh", "tie_qk"), donate_argnames="states")
def advance(
    gated: GatedModel | Subcircuits,
    searchable: Gates,
    h: Hyperparameters,
    states: States,
    first: jax.Array,
    batches: PackedBatch,
    steps: int,
    mesh: Mesh | None = None,
    tie_qk: bool = False,
    aim: Aim | None = None,
) -> tuple[States, tuple[jax.Array, jax.Array]]:
    """All searches over a chunk of batches (leading axis: steps). Metrics come as two arrays (chunk, S).

    With a mesh of one axis, S must be a multiple of its size; every device runs its own part of the searches. With an
    aim these are path searches, and batches have the axes (steps, S).
    """
    run = functools.partial(_advance, steps=steps, tie_qk=tie_qk)
    if mesh is not None:
        part, shared, columns = (PartitionSpec(*axes) for axes in ((mesh.axis_names,), (), (None, mesh.axis_names)))
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(shared, shared, part, part, shared, shared if aim is None else columns, shared),
            out_specs=(part, columns),
            check_vma=False,  # loops inside start from constants
        )
    return run(gated, searchable, h, states, first, batches, aim)


# More than six parameters: as of `advance`.
def _advance(
    gated: GatedModel | Subcircuits,
    searchable: Gates,
    h: Hyperparameters,
    states: States,
    first: jax.Array,
    batches: PackedBatch,
    aim: Aim | None,
    steps: int,
    tie_qk: bool,
) -> tuple[States, tuple[jax.Array, jax.Array]]:
    """What one device does."""
    one: Any  # either update takes its own states only
    if aim is not None:
        one = functools.partial(path_search.update, gated, aim, steps=steps, tie_qk=tie_qk)
    elif isinstance(gated, GatedModel):
        one = functools.partial(paper_search.update, gated, searchable, steps=steps, tie_qk=tie_qk)
    else:
        raise TypeError("the paper's search runs in the whole model")
    together = jax.vmap(one, in_axes=(0, 0, None, None if aim is None else 0))

    def body(states: States, at: tuple[jax.Array, PackedBatch]) -> tuple[States, tuple[jax.Array, jax.Array]]:
        return together(h, states, *at)

    length = len(batches.answer)
    return jax.lax.scan(body, states, (first + jnp.arange(length), batches))


def search(
    problem: Problem,
    h: Hyperparameters,
    *,
    start: Start | None = None,
    progress: bool = True,
    devices: Sequence[jax.Device] | None = None,
    paused: Path | None = None,
) -> SearchResult:
    """Runs S searches side by side, shared out over the devices.

    A signal (see interruption.py) stops them after the chunk of steps that is running.

    Args:
        problem: its settings say how many steps, and how many pairs of training samples each step takes, cyclically.
        h: hyperparameters, arrays (S,).
        start: of path searches that start from a ranking, see `integrated_gradients.start`.
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
    aim = _aim(problem) if settings.search == "path" else None
    nowhere = np.zeros(to_vector(problem.searchable).size, np.float32)
    done, (states, within), history = pause.read(paused, h, (_initial_states(problem, h, start), nowhere))
    if mesh is not None:  # placed as `advance` returns them, or the second chunk would compile it anew
        states = jax.device_put(states, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    static = {"steps": settings.steps, "mesh": mesh, "tie_qk": settings.tie_qk, "aim": aim}
    chunk = _chunk(settings.steps)
    room, model = _room(problem, h), _restricted_to(problem.gated, np.asarray(within))
    if isinstance(states, PathState) and not done:
        model = _model_for(problem, states, model, settings.steps * size * room)
    worked_since: float | None = None  # time.monotonic() after the first chunk, which compiles
    with (
        interruption.deferred(lambda at: at - worked_since if worked_since else 0.0),
        ProgressBar(
            total=settings.steps, initial=done, desc=f"search x{size}", unit="step", disable=not progress
        ) as bar,
    ):
        for first in range(done, settings.steps, chunk):
            if isinstance(states, PathState) and _compacts_before(problem, first, chunk):
                states = _drop_closed_nodes(h, states, settings.tie_qk)
                model = _model_for(problem, states, model, (settings.steps - first) * size * room)
            count = min(chunk, settings.steps - first)
            batches = _batches_of(problem, h, first, count, room)
            with bar.compiling(worked_since is None or count < chunk):
                states, metrics = advance(model, mask, h, states, jnp.int32(first), batches, **static)
                history.append(jax.device_get(metrics))
                if isinstance(states, PathState):
                    states = _keep_best(problem, states)
            worked_since = worked_since or time.monotonic()
            if interruption.requested():
                if paused is not None:
                    pause.write(paused, first + count, h, (states, _support_of(model, nowhere)), history)
                interruption.check()
            bar.update(count)
            bar.set_postfix_str(f"loss {np.median(history[-1][0][-1]):.3f}, {np.median(history[-1][1][-1]):.0f} nodes")
    if paused is not None:  # what follows the search takes long too
        pause.write(paused, settings.steps, h, (states, _support_of(model, nowhere)), history)
    return _on_host(jax.device_get(states), history, size, settings.tie_qk)


def _chunk(steps: int) -> int:
    """Steps per call: the most that divide all, so that one program serves; where these are few, CHUNK, and the last
    call has a program of its own."""
    most = next(size for size in range(min(CHUNK, steps), 0, -1) if steps % size == 0)
    return most if most >= min(FEWEST, steps) else CHUNK


def _keep_best(problem: Problem, states: PathState) -> PathState:
    """States of searches whose masks selection samples have judged, see `path_search.checked`."""
    masks = path_search.open_masks(states, problem.settings.tie_qk)
    count = len(states.trust)
    gates = np.stack([to_vector({site: np.asarray(value)[i] for site, value in masks.items()}) for i in range(count)])
    target = problem.selection_target
    at_target = problem.selection.losses_up_to(Masks(gates), target) <= target
    after = path_search.checked(states, masks, at_target, target)
    # Placed as they were, or `advance` would be compiled anew.
    return states._replace(
        best=jax.tree.map(_in_place_of, states.best, after.best), trust=_in_place_of(states.trust, after.trust)
    )


def _compacts_before(problem: Problem, first: int, chunk: int) -> bool:
    """Whether a path search is compacted before the chunk that begins at step `first`."""
    return _may_restrict(problem.gated) and any(
        first - chunk < share * problem.settings.steps <= first for share in COMPACT_AT
    )


def _may_restrict(gated: GatedModel) -> bool:
    """Whether `build_subcircuits` takes the model: norms are live, and there is one set of ablation values."""
    return not gated.frozen and gated.draws is None


def _drop_closed_nodes(h: Hyperparameters, states: PathState, tie_qk: bool) -> PathState:
    """States of searches that go on with the nodes that are not closed for good in all of them."""
    tau = {site: np.asarray(value) for site, value in jax.device_get(states.tau).items()}
    alive = path_search.not_closed(h, tau, tie_qk)
    searched = {site: _in_place_of(value, np.asarray(value) * alive[site]) for site, value in states.searched.items()}
    return states._replace(searched=searched)


def _in_place_of(before: jax.Array, value: np.ndarray) -> jax.Array:
    """`value` on the devices of `before`, and bound to them only if that is, or `advance` would be compiled anew."""
    return jax.device_put(value, before.sharding) if before.committed else jnp.asarray(value)


def _model_for(
    problem: Problem, states: PathState, model: GatedModel | Subcircuits, tokens: int
) -> GatedModel | Subcircuits:
    """The model for the nodes that some search still searches: restricted to them where that is worth compiling another
    program, else `model`, which has them all.

    Args:
        problem: that is searched.
        states: of all searches.
        model: that has run until now.
        tokens: of all searches in all steps that are left.
    """
    gated = problem.gated
    if 2 * weight_count(gated.model.config) * tokens < WORTH_COMPILING:  # once forward, once for the gates' gradients
        return model
    alive = {site: np.any(np.asarray(value), axis=0) for site, value in jax.device_get(states.searched).items()}
    count, nodes = to_vector(alive).sum(), to_vector(problem.searchable).size
    present = model.nodes / WORTH_AGAIN if isinstance(model, Subcircuits) else WORTH_RESTRICTING * nodes
    if not _may_restrict(gated) or not 0 < count <= present:
        return model
    return _restricted_to(gated, to_vector(alive))


def _restricted_to(gated: GatedModel, support: np.ndarray) -> GatedModel | Subcircuits:
    """The model for the nodes of `support` (nodes,), see `_support_of`."""
    if not support.any():
        return gated
    within: Subcircuits = jax.tree.map(jnp.asarray, build_subcircuits(gated, from_vector(support, gated.model.config)))
    return within


def _support_of(model: GatedModel | Subcircuits, nowhere: np.ndarray) -> np.ndarray:
    """(nodes,) 1 at the nodes that a model is restricted to, `nowhere` for the whole one: a search that is stopped has
    to go on in the same model, or it would round in another way."""
    return np.asarray(model.support) if isinstance(model, Subcircuits) else nowhere


def _aim(problem: Problem) -> Aim:
    """What path searches of a problem aim at."""
    logits, settings = problem.selection.full_logits(), problem.settings
    numbers = problem.selection_target, np.mean(logits[:, 0] - logits[:, 1]), settings.largest_scale, settings.restored
    target, margin, scale, restored = map(jnp.float32, numbers)
    allowance = jnp.asarray(problem.selection.allowance or np.zeros(len(problem.samples.parts)), jnp.float32)
    return Aim(target, margin, jnp.asarray(problem.selection.shift_tokens), scale, restored, allowance)


def _initial_states(problem: Problem, h: Hyperparameters, start: Start | None) -> States:
    if problem.settings.search == "paper":
        return paper_search.initial_states(h, problem.searchable)
    shifted, tasks = len(problem.selection.shift_tokens), len(problem.samples.parts)
    return path_search.initial_states(h, problem.searchable, start, shifted, tasks)


def _on_host(states: States, history: list[tuple[Leaf, ...]], size: int, tie_qk: bool) -> SearchResult:
    """The first `size` searches; with tied gates, both nodes of a pair have the same values."""
    loss, opened = (np.concatenate(values).T[:size] for values in zip(*history, strict=True))
    taus: Gates
    slopes: Gates
    if isinstance(states, PathState):
        found = np.isfinite(states.best.open_nodes)
        pairs = ((states.best.tau, states.tau), (states.best.slope, states.slope))
        taus, slopes = (
            {site: np.where(found[:, None, None], best[site], last[site]) for site in last} for best, last in pairs
        )
    else:
        taus, slopes = states.tau, states.attribution
        found = np.any(to_vector({site: np.asarray(value) for site, value in taus.items()}) > 0, axis=1)
    tau, attribution = ({site: np.asarray(value)[:size] for site, value in gates.items()} for gates in (taus, slopes))
    if tie_qk:
        tau["attn_k"] = tau["attn_q"]
        attribution["attn_q"] = attribution["attn_k"] = attribution["attn_q"] + attribution["attn_k"]
    return SearchResult(tau, attribution, loss, opened, found[:size])


def _mesh(searches: int, devices: Sequence[jax.Device]) -> Mesh | None:
    """One axis over as many devices as can have a search; None for one."""
    count = min(searches, len(devices))
    if count == 1:
        return None
    return jax.make_mesh((count,), ("searches",), axis_types=(AxisType.Auto,), devices=devices[:count])


def _batches_of(problem: Problem, h: Hyperparameters, first: int, count: int, room: int) -> PackedBatch:
    """Batches first .. first + count - 1 of all searches: leading axes (count,), or (count, S) where each has its own,
    whose prompts lie side by side, filled up to `room` tokens."""
    wanted = _rows_of(problem, h, first, count)
    each = [packed(rows(problem.train, one), room) for one in wanted.reshape(-1, wanted.shape[-1])]
    stacked: PackedBatch = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    return jax.tree.map(lambda leaf: leaf.reshape(*wanted.shape[:-1], *leaf.shape[1:]), stacked)


def _room(problem: Problem, h: Hyperparameters) -> int:
    """Tokens of the largest batch of all searches, a multiple of TOKENS."""
    lengths = problem.train.positions[_rows_of(problem, h, 0, problem.settings.steps)] + 1
    return int(-(-np.max(np.sum(lengths, axis=-1)) // TOKENS) * TOKENS)


def _rows_of(problem: Problem, h: Hyperparameters, first: int, count: int) -> np.ndarray:
    """(count, B) training samples of batches first .. first + count - 1; (count, S, B) where each search has its own.

    In the paper's search all take the pairs in turn. A path search's order of the pairs is drawn anew for every time
    around them; pairs of several tasks alternate.
    """
    train, pairs = problem.train, problem.settings.batch_pairs
    begin, number = first * pairs, count * pairs
    pair: np.ndarray
    if problem.settings.search == "paper":
        pair = np.arange(begin, begin + number).reshape(count, pairs) % (len(train.positions) // 2)
    else:
        orders = [_own_pairs(int(seed), train, begin, number, len(problem.samples.parts)) for seed in h.seed]
        pair = np.stack(orders).reshape(len(orders), count, pairs).swapaxes(0, 1)
    both = np.stack([2 * pair, 2 * pair + 1], axis=-1)
    return both.reshape(*pair.shape[:-1], 2 * pairs)


def _own_pairs(seed: int, train: TaskBatch, first: int, count: int, tasks: int) -> np.ndarray:
    """(count,) pairs first .. first + count - 1 of one search's endless sequence of training pairs."""
    length = len(train.positions) // 2 // tasks * tasks
    found = []
    for epoch in range(first // length, (first + count - 1) // length + 1):
        rng = np.random.default_rng([seed, epoch])
        order = [tasks * rng.permutation(length // tasks) + task for task in range(tasks)]
        found.append(np.stack(order, axis=1).reshape(-1))
    return np.concatenate(found)[first % length :][:count]
