"""The path search: its gates, its penalty, the mask it keeps, and a step of it, against slow references in float64."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, xlogy

from sparse_gpt import interruption
from sparse_gpt.circuits.nodes import GateArrays, from_vector, hard_concrete, open_probability, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run import evaluator as evaluation
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.samples import FamilySamples
from sparse_gpt.circuits.run.task_batch import TaskBatch, interleave, padded, rows
from sparse_gpt.circuits.search import (
    hyperparameters,
    integrated_gradients,
    mask_search,
    path_search,
    populations,
    ranking,
)
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters
from sparse_gpt.circuits.search.path_search import Aim, Best, PathState
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.circuits.summary import search_problems
from sparse_gpt.config import NODE_SITES
from sparse_gpt.interruption import Interrupted
from sparse_gpt.model.packing import NOWHERE
from sparse_gpt.records import Search
from sparse_gpt.records.search import Trial
from tests import circuits_model
from tests.path_problem import CONFIG, PRUNE, problem_of, searchable_nodes, start_of

TOKENS = np.array([3, 7], np.int32)


# Compiled once for all tests that take them with the same shapes.
_update = jax.jit(path_search.update, static_argnames="steps")
_answer_logits = jax.jit(GatedModel.answer_logits)


@jax.jit
def _jacobian(gated: GatedModel, gates: GateArrays, batch: TaskBatch) -> GateArrays:
    """Of the margins (B,) by the gates."""
    return jax.jacrev(lambda gates: _margins(gated.answer_logits(gates, batch)))(gates)


def _margins(logits: jax.Array) -> jax.Array:
    return logits[:, 0] - logits[:, 1]


def test_hard_concrete_gates_and_how_often_they_are_open() -> None:
    """Against the distribution in float64; the share of gates that are not 0 is the probability that is paid for."""
    rng = np.random.default_rng(0)
    log_alpha, uniform = rng.uniform(-6, 6, 2000), rng.uniform(1e-6, 1 - 1e-6, 2000)
    stretched = expit((np.log(uniform / (1 - uniform)) + log_alpha) * 1.5) * 1.2 - 0.1
    found = np.asarray(hard_concrete(jnp.float32(log_alpha), jnp.float32(uniform)))
    np.testing.assert_allclose(found, np.clip(stretched, 0, 1), atol=2e-5)
    many = rng.uniform(1e-6, 1 - 1e-6, 100_000)
    for value in (-3.0, 0.0, 2.0):
        drawn = hard_concrete(jnp.full(many.shape, value), jnp.float32(many))
        assert float(open_probability(jnp.float32(value))) == pytest.approx(np.mean(np.asarray(drawn) > 0), abs=0.01)


def _reference_penalties(losses: np.ndarray, target: float, first: float, trust: float) -> np.ndarray:
    """Penalty after each step (steps,), from losses (steps, tasks)."""
    penalty, cap, running, half, penalties = first, math.inf, losses[0], 0.0, []
    for step, loss in enumerate(np.minimum(losses, 3 * target)):
        running = loss if step == 0 else 0.9 * running + 0.1 * loss
        worst = max(running)
        if step == 0:
            half = (min(worst, target) + target) / 2
        cap = math.inf if worst < half else min(cap, 4 * penalty)
        change = min(0.1, max(-0.2, 0.1 * (1 - max(worst, *loss) / (trust * target))))
        penalty = min(max(cap, first), max(first, penalty * math.exp(change)))
        penalties.append(penalty)
    return np.array(penalties)


@pytest.mark.parametrize("trust", [1.0, 0.8, 1.5])
@pytest.mark.parametrize("allowed", [(0.0, 0.0), (0.04, 0.0), (0.02, 0.2)])
def test_the_penalty_follows_the_worst_task(allowed: tuple[float, float], trust: float) -> None:
    """Two tasks' losses rise to between half the target and the target, where the penalty reaches its cap, jump far
    above it and come back. What a task is allowed above the target does not count."""
    rng, steps, target = np.random.default_rng(2), 110, 0.09
    curve = np.where(np.arange(steps) < 80, np.minimum(0.0025 * np.arange(steps), 0.055), 0.3)
    curve = np.where(np.arange(steps) > 90, 0.02, curve)
    losses = np.stack([curve, 0.3 * curve], axis=1) * rng.uniform(0.8, 1.2, (steps, 2))
    losses = np.concatenate([np.full((12, 2), 0.3), losses])  # and they begin above the target
    steps = len(losses)
    penalties = _reference_penalties(losses, target, 1e-4, trust)
    assert (penalties[:12] == 1e-4).all()
    assert penalties.max() > 3 * penalties[0]
    numbers = jnp.float32(16), jnp.float32(0), jnp.float32(allowed)
    aim = Aim(jnp.float32(target), jnp.float32(1), jnp.zeros(0, jnp.int32), *numbers)
    gates = {site: jnp.zeros((1, 2)) for site in NODE_SITES}
    state = _state(gates, tasks=2)._replace(trust=jnp.float32(trust))
    for step in range(steps):
        raw = jnp.float32(losses[step] + allowed)
        state = path_search._follow(aim, jnp.float32(1e-4), state, jnp.int32(step), raw, gates)
        assert float(state.penalty) == pytest.approx(penalties[step], rel=1e-4), step


@pytest.mark.slow
def test_the_smallest_mask_that_selection_samples_accept_is_kept() -> None:
    """Three searches: one whose masks hold, one that its running loss deceives, one that knows it is above the target.
    Tied gates are counted twice; what is not searched does not count."""
    tau = {site: jnp.full((3, 1, 4), -0.5).at[:, :, 0].set(0.5) for site in NODE_SITES}
    tau["attn_q"] = tau["attn_q"].at[:, :, 1:3].set(0.5)
    searched = {site: jnp.ones((3, 1, 4)).at[:, :, 2].set(0) for site in NODE_SITES}
    one = _state(jax.tree.map(lambda x: x[0], tau), tasks=2)._replace(optimizer=jnp.zeros(()))
    states = jax.tree.map(lambda x: jnp.stack([x] * 3), one)
    slope = {site: jnp.full((3, 1, 4), 7.0) for site in NODE_SITES}
    running = jnp.float32([[0.2, 0.01], [0.08, 0.05], [0.01, 0.2]])
    states = states._replace(tau=tau, searched=searched, slope=slope, running=running)
    masks = path_search.open_masks(states, tie_qk=True)
    opened = to_vector({site: np.asarray(value[0]) for site, value in masks.items()}).sum()
    assert opened == len(NODE_SITES) + 2
    np.testing.assert_array_equal(masks["attn_k"], masks["attn_q"])
    assert path_search.open_masks(states, tie_qk=False)["attn_k"].sum() == 3
    after = path_search.checked(states, masks, np.array([True, False, False]), 0.09)
    np.testing.assert_array_equal(after.best.open_nodes, [opened, np.inf, np.inf])
    np.testing.assert_allclose(after.trust, [path_search.REGAIN, path_search.LOSE, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(after.best.tau["attn_q"][0], tau["attn_q"][0])
    np.testing.assert_array_equal(after.best.slope["mlp_in"][:, 0, 0], [7, 0, 0])
    # A larger mask that holds is not kept; a smaller one is; one without any node is none.
    for width, kept in ((4, opened), (1, len(NODE_SITES)), (0, len(NODE_SITES))):
        other = {site: jnp.broadcast_to(jnp.where(jnp.arange(4) < width, 0.5, -0.5), (3, 1, 4)) for site in tau}
        every = after._replace(tau=other, searched=jax.tree.map(jnp.ones_like, searched))
        after = path_search.checked(every, path_search.open_masks(every, tie_qk=False), np.array([True] * 3), 0.09)
        assert float(after.best.open_nodes[0]) == kept
    # Held at more than the target, it may be deceived there.
    above = states._replace(trust=jnp.float32([1.0, 1.2, 1.5]), running=running.at[:, 0].set(0.1).at[:, 1].set(0))
    above = path_search.checked(above, masks, np.array([False] * 3), 0.09)
    np.testing.assert_allclose(above.trust, [1, 1.2 * path_search.LOSE, 1.5 * path_search.LOSE], rtol=1e-6)
    after = after._replace(running=jnp.zeros((3, 2)))
    for _ in range(20):
        after = path_search.checked(after, masks, np.array([True, False, False]), 0.09)
    np.testing.assert_allclose(after.trust[:2], path_search.TRUST[::-1], rtol=1e-6)


def _state(tau: dict[str, jax.Array], tasks: int) -> PathState:
    zeros = jax.tree.map(jnp.zeros_like, tau)
    never = jnp.float32(jnp.inf)
    return PathState(
        tau=tau,
        log_scale=jnp.float32(0),
        shift=jnp.zeros(0),
        optimizer=None,
        slope=zeros,
        penalty=jnp.float32(1e-4),
        cap=never,
        half=never,
        running=jnp.zeros(tasks),
        trust=jnp.float32(1),
        best=Best(tau, zeros, never),
        searched=jax.tree.map(jnp.ones_like, tau),
    )


def _search(problem: Problem, h: Hyperparameters, paused: Path | None = None) -> mask_search.SearchResult:
    """On one device, as all tests here that need no more of them: one program."""
    one = jax.devices()[:1]
    return mask_search.search(problem, h, start=start_of(), progress=False, devices=one, paused=paused)


@pytest.mark.slow
def test_a_search_that_is_never_at_the_target_keeps_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    prune = dataclasses.replace(PRUNE, target_loss=1e-6)
    monkeypatch.setattr(mask_search, "CHUNK", PRUNE.steps // 2)
    found = _search(problem_of(prune), hyperparameters.population(prune))
    assert not found.feasible.any()
    assert (to_vector(found.tau) > 0).any(axis=1).all()


@pytest.mark.slow
def test_restored_nodes_are_as_in_the_model() -> None:
    """In no step, in every one; open nodes stay open, what is not searched stays closed; tied nodes agree."""
    searched = {site: jnp.asarray(value) for site, value in searchable_nodes().items()}
    tau = {site: jnp.where(value > 0, -0.5, -1.0).at[:, 0].set(0.5) for site, value in searched.items()}
    h = Hyperparameters(*(value[0] for value in hyperparameters.population(PRUNE)))
    drawn = jax.jit(path_search.drawn_gates, static_argnames="tie_qk")
    opened = to_vector({site: np.where(tau[site] > 0, value, 0) for site, value in searchable_nodes().items()})
    may_open = to_vector(searchable_nodes()) > 0
    shares = []
    for step in range(40):
        none = to_vector(jax.device_get(drawn(tau, searched, h, step, jnp.float32(0), tie_qk=False)))
        np.testing.assert_array_equal(none, opened)
        some = drawn(tau, searched, h, step, jnp.float32(1), tie_qk=True)
        np.testing.assert_array_equal(some["attn_q"], some["attn_k"])
        vector = to_vector(jax.device_get(drawn(tau, searched, h, step, jnp.float32(1), tie_qk=False)))
        assert set(np.unique(vector)) <= {0, 1}
        assert (vector >= opened).all()
        assert not vector[~may_open].any()
        shares.append(vector[may_open & (opened == 0)].mean())
    assert min(shares) < 0.2
    assert max(shares) > 0.8
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


@pytest.mark.slow
@pytest.mark.parametrize(("concrete", "matched", "allowed"), [(0.0, False, 0.0), (1.0, False, 0.5), (0.0, True, 0.0)])
def test_steps_are_those_of_a_slow_reference(concrete: float, matched: bool, allowed: float) -> None:
    """Three steps in float64, loop by loop; gradients of the logits with respect to gates are the model's own."""
    gated, train = circuits_model.gated(CONFIG), circuits_model.batch(8, seed=4)
    train = train._replace(answer=np.tile(TOKENS, 4), foil=np.tile(TOKENS[::-1], 4))
    if matched:
        train = train._replace(foil_share=np.random.default_rng(6).uniform(0.05, 0.6, 8).astype(np.float32))
    h = Hyperparameters(*(np.array([x], np.float32) for x in (3, 1e-3, 0.02, 0, 0.95, 0, 0.01, 0.1, 1, 1, concrete, 0)))
    h = h._replace(seed=np.array([3], np.uint32))
    states = path_search.initial_states(h, searchable_nodes(), None, 2, 1)
    one = Hyperparameters(*(value[0] for value in h))
    state = jax.tree.map(lambda x: x[0], states)
    numbers = jnp.float32(16), jnp.float32(0), jnp.full(1, allowed, jnp.float32)
    aim = Aim(jnp.float32(2.0), jnp.float32(1.5), jnp.asarray(TOKENS), *numbers)
    mine = _Reference(state, concrete, gated, train, allowed)
    for step in range(3):
        key = jax.random.fold_in(jax.random.key(3), step)
        noise = {
            site: np.asarray(jax.random.uniform(jax.random.fold_in(key, i), value.shape, minval=1e-6, maxval=1 - 1e-6))
            for i, (site, value) in enumerate(state.tau.items())
        }
        mine.step(step, noise)
        state, (loss, opened) = _update(gated, aim, one, state, jnp.int32(step), train, steps=5)
        assert float(loss) == pytest.approx(mine.loss, rel=1e-4)
        assert int(opened) == mine.opened
        np.testing.assert_allclose(to_vector(jax.device_get(state.tau)), mine.tau, atol=2e-4)
        np.testing.assert_allclose(to_vector(jax.device_get(state.slope)), mine.slope, atol=1e-5)
        np.testing.assert_allclose([float(state.log_scale), *np.asarray(state.shift)], mine.calibration, atol=2e-4)
        assert float(state.penalty) == pytest.approx(mine.penalty, rel=1e-4)


@pytest.mark.slow
def test_a_task_without_samples_in_a_batch_keeps_its_running_loss() -> None:
    gated, train = circuits_model.gated(CONFIG), circuits_model.batch(8, seed=4)
    h = Hyperparameters(*(value[:1] for value in hyperparameters.population(PRUNE)))
    state = jax.tree.map(lambda x: x[0], path_search.initial_states(h, searchable_nodes(), None, 0, 2))
    state = state._replace(running=jnp.array([0.1, 0.2]))
    numbers = jnp.float32(16), jnp.float32(0), jnp.array([0.05, 0.3])
    aim = Aim(jnp.float32(2.0), jnp.float32(1.5), jnp.zeros(0, jnp.int32), *numbers)
    one = Hyperparameters(*(value[0] for value in h))
    batch = train._replace(task=np.zeros(8, np.int32))
    after, (loss, _) = _update(gated, aim, one, state, jnp.int32(1), batch, steps=5)
    assert float(after.running[1]) == pytest.approx(0.2)
    assert float(after.running[0]) == pytest.approx(0.9 * 0.1 + 0.1 * (float(loss) - 0.05), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_overflows_spoils_nothing_that_lasts(value: float) -> None:
    """Its loss counts as a large one, its slopes as none, and the search goes on."""
    gated, train = circuits_model.gated(CONFIG), circuits_model.batch(8, seed=4)
    h = Hyperparameters(*(value[:1] for value in hyperparameters.population(PRUNE)))
    state = jax.tree.map(lambda x: x[0], path_search.initial_states(h, searchable_nodes(), None, 2, 1))
    numbers = jnp.float32(16), jnp.float32(0), jnp.zeros(1)
    aim = Aim(jnp.float32(2.0), jnp.float32(1.5), jnp.asarray(TOKENS), *numbers)
    one = Hyperparameters(*(value[0] for value in h))
    head = gated.params["lm_head"] * jnp.float32(value)
    broken = dataclasses.replace(gated, params={**gated.params, "lm_head": head})
    after, (loss, _) = _update(broken, aim, one, state, jnp.int32(0), train, steps=5)
    assert float(loss) > 1e6
    assert float(after.running[0]) > float(aim.target)
    for model in (broken, gated):
        after, _ = _update(model, aim, one, after, jnp.int32(1), train, steps=5)
        jax.tree.map(lambda x: np.testing.assert_array_equal(np.isfinite(x), True), after._replace(cap=0.0, best=0.0))
    assert np.any(to_vector(jax.device_get(after.slope)))


class _Reference:
    """One search in float64, written out step by step."""

    def __init__(self, state: PathState, concrete: float, gated: GatedModel, batch: TaskBatch, allowed: float):
        self.tau = to_vector(jax.device_get(state.tau)).astype(np.float64)
        self.may_open = to_vector(searchable_nodes()) > 0
        self.concrete, self.gated, self.batch, self.allowed = concrete > 0, gated, batch, allowed
        self.calibration, self.penalty = np.zeros(3), 1e-3
        self.slope, self.loss, self.opened = np.zeros_like(self.tau), 0.0, 0
        self.running = 0.0
        self.moments = np.zeros((2, len(self.tau) + 3))
        self.prompts = batch._replace(foil_share=None)  # which no logit depends on

    def step(self, step: int, noise: GateArrays) -> None:
        tau, allowed = self.tau, self.may_open
        if self.concrete:
            x = (np.log(to_vector(noise)) - np.log1p(-to_vector(noise)).astype(np.float64) + 10 * tau) / (2 / 3)
            stretched = 1.2 * expit(x) - 0.1
            gates, rise = np.clip(stretched, 0, 1), 1.2 * expit(x) * expit(-x) * 15
            rise[(stretched <= 0) | (stretched >= 1)] = 0  # clipped
            shifted = 10 * tau - 2 / 3 * np.log(0.1 / 1.1)
            price = 10 * expit(shifted) * expit(-shifted)
        else:
            gates, rise = (tau > 0).astype(float), expit(tau) * expit(-tau)
            price = rise
        given = from_vector((gates * allowed).astype(np.float32), CONFIG.model)
        margin = np.asarray(_margins(_answer_logits(self.gated, given, self.prompts)), np.float64)
        slopes = _jacobian(self.gated, given, self.prompts)
        by_gate = to_vector({site: np.asarray(x, np.float64) for site, x in slopes.items()})
        side = np.where(self.batch.answer == TOKENS[0], 1.0, -1.0)
        scale, shift = np.exp(self.calibration[0]), self.calibration[1:]
        calibrated = scale * margin + side * (shift[0] - shift[1])
        asked = np.float64(0) if self.batch.foil_share is None else self.batch.foil_share.astype(np.float64)
        wrong = (expit(-calibrated) - asked) / len(margin)
        slope = -(wrong * scale) @ by_gate
        limited = np.clip(slope, -10 * self.penalty, 10 * self.penalty)
        gradient = (limited * rise + self.penalty * price) * allowed
        wanted = np.log(np.clip(1.5 / max(margin.mean(), 1e-6), 1, 16))
        by_scale = -(wrong * scale) @ margin + 2 * 0.05 * (self.calibration[0] - wanted)
        by_shift = -np.sum(wrong * side)
        whole = np.concatenate([gradient, [by_scale, by_shift, -by_shift]])
        self.moments[0] = 0.9 * self.moments[0] + 0.1 * whole
        self.moments[1] = 0.95 * self.moments[1] + 0.05 * whole**2
        unbiased = self.moments / (1 - np.array([[0.9], [0.95]]) ** (step + 1))
        direction = unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        share = min(1, (5 - step) / 1.5)
        entropy = -(xlogy(asked, asked) + xlogy(1 - asked, 1 - asked))
        self.loss = np.mean(_softplus(-calibrated) + asked * calibrated - entropy)
        self.opened = int(np.sum((tau > 0) & allowed))
        counted = self.loss - self.allowed
        self.running = counted if step == 0 else 0.9 * self.running + 0.1 * counted
        change = np.exp(np.clip(0.1 * (2.0 - max(self.running, counted)) / 2.0, -0.2, 0.1))
        self.penalty = max(1e-3, self.penalty * change)
        self.slope = 0.95 * self.slope + 0.05 * slope
        limit = 0.6 if self.concrete else 1.0
        self.tau = np.where(allowed, np.clip(tau - share * 0.02 * direction[:-3], -limit, limit), -limit)
        self.calibration = self.calibration - share * 0.05 * direction[-3:]
        self.calibration[0] = np.clip(self.calibration[0], 0, np.log(16))


@pytest.mark.slow
def test_a_stopped_path_search_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h, paused, problem = hyperparameters.population(PRUNE), tmp_path / "paused.npz", problem_of()
    monkeypatch.setattr(mask_search, "CHUNK", PRUNE.steps // 2)
    straight = _search(problem, h)
    with monkeypatch.context() as reported:
        reported.setattr(interruption, "requested", lambda: True)
        reported.setattr(interruption, "check", _interrupt)
        with pytest.raises(Interrupted):
            _search(problem, h, paused)
    jax.tree.map(np.testing.assert_array_equal, _search(problem, h, paused), straight)
    assert straight.feasible.all()


def _interrupt() -> None:
    raise Interrupted


def test_population_of_starts_and_gates() -> None:
    h = hyperparameters.population(dataclasses.replace(PRUNE, seeds=2))
    np.testing.assert_array_equal(h.seed, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(h.ranked[:4], [1, 1, 0, 0])
    np.testing.assert_array_equal(h.concrete[:4], [0, 1, 0, 1])
    np.testing.assert_allclose(h.k_coef[:4], [1e-4, 1e-3, 1e-5, 1e-3])
    np.testing.assert_allclose(h.learning_rate, 0.02)


def test_every_search_has_its_own_batches_with_as_many_pairs_of_each_task() -> None:
    parts = [circuits_model.batch(12, seed=seed) for seed in (1, 2)]
    train = interleave(parts)
    found = [mask_search._own_pairs(seed, train, 0, 30, 2) for seed in (0, 1)]
    np.testing.assert_array_equal(found[0][7:19], mask_search._own_pairs(0, train, 7, 12, 2))
    assert (found[0] != found[1]).any()
    for pairs in found:
        np.testing.assert_array_equal(np.sort(pairs[:12]), np.arange(12))  # every pair once, then all again
        np.testing.assert_array_equal(rows(train, 2 * pairs).task, np.arange(30) % 2)
        assert (pairs[:12] != pairs[12:24]).any()


def test_batches_are_filled_up_to_the_largest_of_the_whole_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_search, "TOKENS", 1)
    problem, h = problem_of(dataclasses.replace(PRUNE, steps=12, batch_pairs=5)), hyperparameters.population(PRUNE)
    room = mask_search._room(problem, h)
    batches = [mask_search._batches_of(problem, h, first, 4, room) for first in (0, 4, 8)]
    tokens = np.concatenate([np.sum(np.asarray(each.packing.place) != NOWHERE, axis=2) for each in batches])
    assert tokens.shape == (12, len(h.seed))
    assert np.max(tokens) == room
    assert np.max(tokens[0]) < room, "the first batches are not the largest, or this shows nothing"
    for step, (first, search) in enumerate([(0, 0), (4, 1)]):
        own = mask_search._rows_of(problem, h, first, 1)[0, search]
        one = jax.tree.map(lambda leaf, s=search: leaf[0, s], batches[step])
        np.testing.assert_array_equal(one.answer, problem.train.answer[own])
        np.testing.assert_array_equal(one.positions, problem.train.positions[own])


@pytest.mark.slow
def test_a_search_on_families_follows_the_worst_of_them() -> None:
    """Whichever comes first: a batch of all pairs has the same largest loss in either order of the families."""
    one = circuits_model.batch(12, seed=1)
    families = {"a": one, "b": one._replace(answer=one.foil, foil=one.answer)}
    prune = dataclasses.replace(PRUNE, steps=1, batch_pairs=12, gates=("heaviside",), starts=("flat",))
    worst = []
    for names in (("a", "b"), ("b", "a")):
        train = interleave([families[name] for name in names])
        made = circuits_model.search_problem(dataclasses.replace(CONFIG, prune=prune), searchable_nodes(), train)
        chosen = {name: FamilySamples(*[families[name]] * 3) for name in names}
        made = dataclasses.replace(made, samples=dataclasses.replace(made.samples, families=chosen))
        h = hyperparameters.population(prune)
        assert mask_search._initial_states(made, h, None).running.shape == (1, 2)
        worst.append(float(mask_search.search(made, h, progress=False).loss[0, 0]))
        gates = {site: jnp.asarray(value) for site, value in searchable_nodes().items()}
        logits = {name: np.asarray(made.gated.answer_logits(gates, batch)) for name, batch in families.items()}
        own = {name: np.mean(_softplus(each[:, 1] - each[:, 0])) for name, each in logits.items()}
        assert worst[-1] == pytest.approx(max(own.values()), rel=1e-4)
        assert max(own.values()) > 1.2 * min(own.values())


def test_open_nodes_are_ranked_by_slope_and_stand_first() -> None:
    tau, slope = np.array([0.5, 0.1, -0.1, -0.9, 0.3]), np.array([-1.0, -3.0, -9.0, -9.0, -2.0])
    np.testing.assert_array_equal(ranking.rank_open(tau, slope, np.ones(5), np.arange(5)), [1, 4, 0, 2, 3])


def test_a_start_has_as_many_nodes_as_the_target_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """More nodes of a ranking can do worse. Those after them are neither open nor searched, in ranked searches only."""
    problem, may_open = problem_of(), to_vector(searchable_nodes())
    scores = np.random.default_rng(7).permutation(len(may_open)).astype(float)
    monkeypatch.setattr(integrated_gradients, "stored_scores", lambda problem, stages: scores)
    monkeypatch.setattr(integrated_gradients, "LARGEST_SHARE", 0.5)
    tried: list[int] = []

    def losses_up_to(self: Evaluator, masks: Masks, bound: float) -> np.ndarray:
        tried.extend(masks.gates.sum(axis=1).astype(int).tolist())
        return np.where(masks.gates.sum(axis=1) < 80, 0.5, 3.0) * bound

    monkeypatch.setattr(Evaluator, "losses_up_to", losses_up_to)
    start = integrated_gradients.start(problem, Stages())
    size = max(n for n in tried if n < 80)
    assert min(tried) == 32 < size < max(tried) == len(may_open) // 2
    order = [node for node in np.argsort(-scores, kind="stable") if may_open[node]]
    first = np.isin(np.arange(len(may_open)), order[:size])
    np.testing.assert_array_equal(to_vector(start.searched) > 0, first)
    np.testing.assert_array_equal(to_vector(start.tau) > 0, first)
    assert (np.diff(to_vector(start.tau)[order]) <= 0).all()
    h = hyperparameters.population(PRUNE)
    states = path_search.initial_states(h, searchable_nodes(), start, 0, 1)
    for i, ranked in enumerate(h.ranked):
        searched = {site: np.asarray(value[i]) for site, value in states.searched.items()}
        np.testing.assert_array_equal(to_vector(searched), first if ranked else may_open)
    assert set(h.ranked) == {0, 1}


def test_losses_are_those_of_a_model_restricted_to_what_searches_start_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "WORTH_COMPILING", 0)
    monkeypatch.setattr(evaluation, "FEW", 1.0)
    searched = {site: value * (np.arange(value.shape[1]) % 2) for site, value in searchable_nodes().items()}
    monkeypatch.setattr(integrated_gradients, "start", lambda *_: start_of(searched))
    longer = padded(circuits_model.batch(evaluation.ROWS, seed=2), 16)
    longer = longer._replace(positions=np.full(evaluation.ROWS, 15, np.int32))
    problem = dataclasses.replace(problem_of(), heldout=problem_of().heldout.on(longer))
    within = populations.within_start(problem, Stages())
    for evaluator in (within.selection, within.heldout):
        assert evaluator.subcircuits is not None
        np.testing.assert_array_equal(evaluator.subcircuits.support, to_vector(searched))
    assert within.selection.room == within.heldout.room, "one program serves both"
    assert within.selection.room == evaluation.room_of(longer) > evaluation.room_of(problem.selection.batch)
    for prune in (
        dataclasses.replace(PRUNE, search="paper"),
        dataclasses.replace(PRUNE, starts=("flat",)),
    ):
        other = problem_of(prune)
        assert populations.within_start(other, Stages()) is other


def test_penalties_that_close_everything_and_searches_that_find_nothing_are_said() -> None:
    fine = Trial(open_nodes=5, feasible=True, reached=True)
    assert search_problems(Search(trials=(fine, fine), refined_from="trial 0")) == []
    closed = Trial(open_nodes=0, feasible=True, reached=False)
    above = Trial(open_nodes=5, feasible=False, reached=False)
    reported = search_problems(Search(trials=(closed, above), refined_from="integrated_gradients"))
    assert len(reported) == 3
    assert reported[0].startswith("1 of 2 searches closed every node")
    assert "integrated_gradients" in reported[2]
