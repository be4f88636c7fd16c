"""The mask search, and what ranks and cuts nodes."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import interruption
from sparse_gpt.circuits.evidence import controls
from sparse_gpt.circuits.evidence.curves import area
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.nodes import from_vector, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.task_batch import rows
from sparse_gpt.circuits.search import hyperparameters, mask_search, paper_search, pause, ranking
from sparse_gpt.config import PruneConfig
from sparse_gpt.costs.collectives import find_collectives
from sparse_gpt.interruption import Interrupted
from sparse_gpt.records.search import TargetPoint
from tests import circuits_model

CONFIG = circuits_model.config()
PRUNE = PruneConfig(steps=12, seeds=2, k_coefs=(0.0, 1e-2), batch_pairs=4, learning_rate=2e-2, init_noise_scale=0.1)


def _may_open() -> dict[str, np.ndarray]:
    may_open = searchable(CONFIG.model, circuits_model.params(CONFIG))
    return {site: value & (np.arange(value.shape[1]) % 5 > 0)[None, :] for site, value in may_open.items()}


def _find(
    hyperparameters: hyperparameters.Hyperparameters, steps: int = PRUNE.steps, paused: Path | None = None
) -> mask_search.SearchResult:
    one = jax.devices()[:1]
    return mask_search.search(_problem(steps), hyperparameters, progress=False, devices=one, paused=paused)


def _problem(steps: int) -> Problem:
    config = dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, steps=steps))
    return circuits_model.search_problem(config, _may_open(), circuits_model.batch(24, seed=1))


@pytest.mark.slow
def test_devices_share_the_searches_out_and_do_not_communicate() -> None:
    """Three searches over two devices: one is done twice, and left out of the result."""
    h = hyperparameters.Hyperparameters(*(value[:3] for value in hyperparameters.population(PRUNE)))
    model = circuits_model.gated(CONFIG)

    def find(devices: int) -> mask_search.SearchResult:
        return mask_search.search(_problem(4), h, progress=False, devices=jax.devices()[:devices])

    alone, shared = find(1), find(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), shared, alone)
    np.testing.assert_array_equal(shared.open_nodes, alone.open_nodes)

    mesh = mask_search._mesh(4, jax.devices()[:2])
    states = paper_search.initial_states(hyperparameters.population(PRUNE), _may_open())
    problem, h = _problem(4), hyperparameters.population(PRUNE)
    batches = mask_search._batches_of(problem, h, 0, 2, mask_search._room(problem, h))
    mask = {site: value.astype(np.float32) for site, value in _may_open().items()}
    given = (model, mask, hyperparameters.population(PRUNE), states, jnp.int32(0), batches)
    text = mask_search.advance.lower(*given, steps=4, mesh=mesh).compile().as_text()
    assert "num_partitions=2" in text
    assert find_collectives(text) == []


@pytest.mark.slow
def test_searches_side_by_side_are_the_searches_alone() -> None:
    h = hyperparameters.population(PRUNE)._replace(
        learning_rate=np.array([1e-2, 2e-2, 3e-2, 4e-2], np.float32), beta2=np.array([0.9, 0.95, 0.99, 0.5], np.float32)
    )
    together = _find(h)
    for trial in range(4):
        alone = _find(hyperparameters.Hyperparameters(*(values[trial : trial + 1] for values in h)))
        np.testing.assert_allclose(together.loss[trial], alone.loss[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(together.open_nodes[trial], alone.open_nodes[0])
        np.testing.assert_allclose(to_vector(together.tau)[trial], to_vector(alone.tau)[0], atol=1e-3)


@pytest.mark.slow
def test_a_step_that_overflows_moves_no_tau_beyond_the_clamp_and_leaves_no_trace() -> None:
    gated, batch = circuits_model.gated(CONFIG), circuits_model.batch(8, seed=4)
    broken = dataclasses.replace(gated, params={**gated.params, "lm_head": gated.params["lm_head"] * np.inf})
    h = hyperparameters.population(PRUNE)
    states = paper_search.initial_states(h, _may_open())
    one, state = (jax.tree.map(lambda x: jnp.asarray(x[0]), each) for each in (h, states))
    mask = {site: jnp.asarray(value, jnp.float32) for site, value in _may_open().items()}
    update = jax.jit(paper_search.update, static_argnames="steps")
    for step, model in enumerate((broken, gated)):
        state, _ = update(model, mask, one, state, jnp.int32(step), batch, steps=4)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert np.any(to_vector(jax.device_get(state.attribution)))


@pytest.mark.slow
def test_taus_stay_within_the_clamp_and_unsearched_nodes_closed() -> None:
    h = hyperparameters.population(dataclasses.replace(PRUNE, learning_rate=0.5))
    found = to_vector(_find(h).tau)
    may_open = to_vector(_may_open()) > 0
    assert found[:, may_open].max() == 1
    assert found.min() == -1
    np.testing.assert_array_equal(found[:, ~may_open], -1)


@pytest.mark.slow
def test_a_stopped_search_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each of two chunks; what is there for other searches, or is torn, is not gone on with."""
    h, paused = hyperparameters.population(PRUNE), tmp_path / "paused.npz"
    monkeypatch.setattr(mask_search, "CHUNK", PRUNE.steps // 2)
    straight = _find(h)
    for done in (PRUNE.steps // 2, PRUNE.steps):
        with monkeypatch.context() as reported:
            reported.setattr(interruption, "requested", lambda: True)
            reported.setattr(interruption, "check", _interrupt)
            with pytest.raises(Interrupted):
                _find(h, paused=paused)
        assert pause.read(paused, h, _begun(h))[0] == done
    jax.tree.map(np.testing.assert_array_equal, _find(h, paused=paused), straight)
    whole = tmp_path / "whole.npz"
    _find(h, paused=whole)
    with monkeypatch.context() as finished:  # what follows a search may be stopped too: nothing is searched again
        finished.setattr(mask_search, "advance", None)
        jax.tree.map(np.testing.assert_array_equal, _find(h, paused=whole), straight)
    other = h._replace(k_coef=2 * h.k_coef)
    assert pause.read(paused, other, _begun(other))[0] == 0
    paused.write_bytes(paused.read_bytes()[:100])
    jax.tree.map(np.testing.assert_array_equal, _find(h, paused=paused), straight)


@pytest.mark.parametrize(
    ("steps", "chunks"), [(401, [25] * 16 + [1]), (422, [25] * 16 + [22]), (60, [20] * 3), (7, [7])]
)
def test_steps_come_in_chunks_of_a_useful_size(steps: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are checked after each, so a number of steps that nothing divides is not checked after every one."""
    taken: list[int] = []

    def advance(*given: Any, **static: Any) -> Any:
        taken.append(len(given[-1].answer))
        return given[3], (np.zeros((taken[-1], 4)),) * 2

    monkeypatch.setattr(mask_search, "advance", advance)
    assert _find(hyperparameters.population(PRUNE), steps).loss.shape == (4, steps)
    assert taken == chunks


def _begun(h: hyperparameters.Hyperparameters) -> tuple[paper_search.SearchState, np.ndarray]:
    return paper_search.initial_states(h, _may_open()), np.zeros(to_vector(_may_open()).size, np.float32)


def _interrupt() -> None:
    raise Interrupted


@pytest.mark.slow
def test_a_price_on_nodes_closes_them() -> None:
    h = hyperparameters.population(dataclasses.replace(PRUNE, seeds=1, k_coefs=(0.0, 1.0)))
    free, costly = _find(h, steps=24).open_nodes[:, -1]
    assert costly < free / 2


def test_population_has_every_seed_with_every_price() -> None:
    h = hyperparameters.population(PRUNE)
    np.testing.assert_array_equal(h.seed, [0, 0, 1, 1])
    np.testing.assert_allclose(h.k_coef, [0, 1e-2, 0, 1e-2])
    assert {len(values) for values in h} == {4}


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    h = hyperparameters.Hyperparameters(*(np.float32(0.5) for _ in hyperparameters.Hyperparameters._fields))._replace(
        warmup=np.float32(0.2)
    )
    rates = np.array([paper_search.learning_rate(h, jnp.int32(step), 100) for step in range(100)])
    np.testing.assert_allclose(rates[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(rates[20:], 0.5 * np.arange(80, 0, -1) / 80, rtol=1e-5)


def test_batches_go_around_the_pairs_and_lie_side_by_side() -> None:
    problem, h = _problem(40), hyperparameters.population(PRUNE)
    train, pairs = problem.train, PRUNE.batch_pairs
    room = mask_search._room(problem, h)
    stacked = mask_search._batches_of(problem, h, 3, 2, room)
    for step, tokens, answer in zip((3, 4), stacked.tokens, stacked.answer, strict=True):
        own = [
            2 * (pair % (len(train.answer) // 2)) + i
            for pair in range(step * pairs, (step + 1) * pairs)
            for i in (0, 1)
        ]
        prompts = np.concatenate([train.tokens[row, : train.positions[row] + 1] for row in own])
        assert tokens.shape == (1, room)
        assert len(prompts) <= room
        np.testing.assert_array_equal(tokens[0, : len(prompts)], prompts)
        np.testing.assert_array_equal(answer, train.answer[own])


def test_prompts_side_by_side_give_the_gradients_of_padded_ones() -> None:
    problem, h = _problem(4), hyperparameters.population(PRUNE)
    states = paper_search.initial_states(h, _may_open())
    one, state = (jax.tree.map(lambda x: jnp.asarray(x[0]), each) for each in (h, states))
    mask = {site: jnp.asarray(value, jnp.float32) for site, value in _may_open().items()}
    side_by_side = jax.tree.map(
        lambda x: x[0], mask_search._batches_of(problem, h, 0, 1, mask_search._room(problem, h))
    )
    padded = rows(problem.train, np.arange(2 * PRUNE.batch_pairs))
    update = jax.jit(paper_search.update, static_argnames="steps")
    (found, metrics), (wanted, wanted_metrics) = (
        update(problem.gated, mask, one, state, jnp.int32(0), batch, steps=4) for batch in (side_by_side, padded)
    )
    np.testing.assert_allclose(metrics, wanted_metrics, rtol=1e-5)
    # Of the gradients alone: what Adam makes of a tiny one is its sign, which rounding may turn.
    np.testing.assert_allclose(to_vector(found.attribution), to_vector(wanted.attribution), rtol=1e-4, atol=1e-7)


def test_ranking_breaks_ties_by_attribution_then_by_order() -> None:
    tau = np.array([1.0, 1.0, -1.0, 1.0, 0.5, 1.0])
    attribution = np.array([-0.1, -0.3, -9.0, -0.1, -9.0, -9.0])
    may_open = np.array([1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(ranking.rank(tau, attribution, may_open, np.arange(6)), [1, 0, 3, 4, 2])


@pytest.mark.parametrize("seed", range(5))
def test_bisection_finds_what_a_linear_scan_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = np.sort(rng.random((6, 41)))[:, ::-1]  # falling losses of sizes 0 .. 40
    curves[0] = 0.9  # never reaches
    tried: list[tuple[int, int]] = []

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        tried.extend(zip(which.tolist(), sizes.tolist(), strict=True))
        found = curves[which, sizes]
        return np.where(found > bounds, np.nextafter(bounds, 9), found)  # all that is promised above a bound

    limit = np.full(6, 40)
    sizes, reached = ranking.smallest_sizes(losses, rng.integers(1, 41, 6), limit, 0.3)
    assert not reached[0]
    assert reached[1:].all()
    np.testing.assert_array_equal(sizes[1:], [1 + np.flatnonzero(curve[1:] <= 0.3)[0] for curve in curves[1:]])
    assert len(set(tried)) == len(tried) < 6 * 10  # none twice, and none after it is settled


def test_sizes_that_do_not_reach_the_target_are_the_closest() -> None:
    curve = np.array([9, 5, 4, 3, 2, 6, 6, 6, 7.0])
    sizes, reached = ranking.smallest_sizes(lambda _, k, bounds: curve[k], np.array([2]), np.array([8]), 1.0)
    assert not reached[0]
    assert sizes[0] == 4


def test_sizes_found_on_few_samples_grow_until_they_are_enough() -> None:
    wanted, asked = np.array([10, 30, 50, 1]), []

    def enough(which: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        asked.append(sizes.tolist())
        return sizes >= wanted[which]

    start, may = np.array([10, 26, 38, 5]), np.array([True, True, True, False])
    sizes, reached = ranking.grown(enough, start, may, np.full(4, 40))
    np.testing.assert_array_equal(sizes, [10, 32, 40, 5])  # 26, 29, 32; 38, 40
    np.testing.assert_array_equal(reached, [True, True, False, False])
    assert asked == [[10, 26, 38], [29, 40], [32]]
    np.testing.assert_array_equal(start, [10, 26, 38, 5])


@pytest.mark.parametrize("seed", range(3))
def test_bisection_at_several_targets_between_known_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = np.sort(rng.random(41))[::-1]
    targets, tried = np.array([0.8, 0.5, 0.2, -1.0]), set()
    expected = np.array([1 + np.flatnonzero(curve[1:] <= t)[0] if t > 0 else 40 for t in targets])
    low = np.maximum(0, expected - 4)

    def losses(which: np.ndarray, sizes: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        del bounds
        tried.update((sizes - low[which]).tolist())
        return curve[sizes]

    sizes, reached = ranking.smallest_sizes(losses, np.minimum(expected + 2, 40), np.full(4, 40), targets, low)
    np.testing.assert_array_equal(sizes, expected)
    np.testing.assert_array_equal(reached, [True, True, True, False])
    assert min(tried) > 0 or low.min() == 0


def test_area_under_sizes_and_targets() -> None:
    def points(*edges: int) -> list[TargetPoint]:
        targets = zip((0.5, 0.05, 0.005), edges, strict=True)
        return [TargetPoint(target_loss=t, nodes=1, edges=e, task_loss=t, reached=e < 999) for t, e in targets]

    flat = area(points(100, 100, 100))
    assert flat.area == pytest.approx(4)
    assert flat.mean_edges == pytest.approx(100)
    rising = area(points(10, 100, 999))
    assert rising.area == pytest.approx(1.5)
    assert rising.lowest_target == 0.05
    once = area(points(10, 999, 999))
    assert (once.area, once.mean_edges, once.lowest_target) == (None, None, 0.5)


def test_size_grid() -> None:
    np.testing.assert_array_equal(ranking.size_grid(1), [1])
    grid = ranking.size_grid(500)
    assert (grid[0], grid[-1]) == (1, 500)
    assert (np.diff(grid) > 0).all()


def test_random_circuits_have_the_same_counts() -> None:
    gates = circuits_model.random_gates(CONFIG, seed=5, share=0.2)
    drawn = from_vector(controls.random_gates(to_vector(gates), CONFIG.model, 7, seed=0), CONFIG.model)
    for site, value in gates.items():
        np.testing.assert_array_equal(drawn[site].sum(axis=2), np.repeat(value.sum(axis=1)[None], 7, axis=0))
    assert len({vector.tobytes() for vector in to_vector(drawn)}) == 7
    gates["attn_k"] = gates["attn_q"]
    tied = from_vector(controls.random_gates(to_vector(gates), CONFIG.model, 7, seed=0, tie_qk=True), CONFIG.model)
    np.testing.assert_array_equal(tied["attn_k"], tied["attn_q"])
    np.testing.assert_array_equal(tied["attn_k"].sum(axis=2), np.repeat(gates["attn_k"].sum(axis=1)[None], 7, axis=0))


@pytest.mark.parametrize(
    ("by_few", "by_all", "expected"),
    [(20, 9, 12), (7, 9, 9), (20, 15, 20), (13, 13, 13), (99, 12, 12), (1, 1, 1)],
    ids=["few refuse it", "few are content with less", "all refuse it", "one more", "few refuse all", "one node"],
)
def test_a_ranking_is_not_cut_behind_open_nodes_that_all_samples_accept(
    by_few: int, by_all: int, expected: int
) -> None:
    """40 nodes, 12 of them open; of which size on a few samples accept, and all of them."""

    class Selection:
        def __init__(self, count: int, needed: int):
            self.batch, self.needed = SimpleNamespace(positions=np.zeros(count)), needed

        def on_few(self) -> "Selection":
            return Selection(10, by_few)

        def losses_up_to(self, masks: Masks, bound: float) -> np.ndarray:
            assert (masks.gates[:, :12].sum(axis=1) == masks.gates.sum(axis=1).clip(max=12)).all()
            return np.where(masks.gates.sum(axis=1) >= self.needed, 0.0, 1.0)

        def __call__(self, masks: Masks) -> np.ndarray:
            return self.losses_up_to(masks, 0)

    graph = SimpleNamespace(tied=np.arange(40), count_edges=np.sum)
    problem: Any = SimpleNamespace(
        searchable_nodes=np.ones(40), selection=Selection(100, by_all), graph=graph, selection_target=0.5
    )
    taus = np.linspace(1, -1, 40)[None] - 0.4
    assert (taus > 0).sum() == 12
    found = ranking._truncated(problem, [np.arange(40)], taus)
    assert found.sizes.tolist() == [expected]
    assert found.reached.all()
