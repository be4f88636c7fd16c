"""Path searches in a model restricted to what is not closed for good: the same steps, and when it is worth it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sparse_gpt import interruption
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.run.edge_ablation import weight_count
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.subcircuits import Subcircuits, build_subcircuits
from sparse_gpt.circuits.search import hyperparameters, mask_search, path_search
from sparse_gpt.circuits.search.path_search import Aim
from sparse_gpt.interruption import Interrupted
from tests import circuits_model
from tests.path_problem import CONFIG, PRUNE, problem_of, searchable_nodes, start_of


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The kinds of models that chunks of steps ran in."""
    found: list[type] = []
    advance = mask_search.advance

    def recorded(model: object, *args: object, **options: object) -> object:
        found.append(type(model))
        return advance(model, *args, **options)

    monkeypatch.setattr(mask_search, "advance", recorded)
    return found


def _interrupt() -> None:
    raise Interrupted


@pytest.mark.slow
@pytest.mark.parametrize("tie_qk", [False, True])
def test_a_compacted_search_steps_as_the_whole_one(tie_qk: bool) -> None:
    """What every search has closed for good is left out: losses, slopes of what is left and taus are those of the whole
    model, with those nodes closed."""
    gated = circuits_model.gated(CONFIG)
    h = hyperparameters.population(dataclasses.replace(PRUNE, starts=("integrated_gradients",)))
    train = circuits_model.batch(8, seed=4)
    states = path_search.initial_states(h, searchable_nodes(), start_of(), 0, 1)
    rng = np.random.default_rng(0)
    shut = {site: rng.random(value.shape[1:]) < 0.6 for site, value in states.tau.items()}
    tau = {site: np.where(shut[site], -0.5, np.asarray(value)) for site, value in states.tau.items()}
    alive = path_search.not_closed(h, tau, tie_qk)
    assert 0 < to_vector(alive).sum() < 0.6 * to_vector(searchable_nodes()).sum()
    if tie_qk:
        np.testing.assert_array_equal(alive["attn_q"], alive["attn_k"])
    whole = mask_search._drop_closed_nodes(h, states._replace(tau=jax.tree.map(jnp.asarray, tau)), tie_qk)
    part = jax.tree.map(jnp.asarray, build_subcircuits(gated, alive))
    batches = jax.tree.map(lambda x: np.stack([np.stack([x] * 2)] * 3), train)
    numbers = jnp.float32(16), jnp.float32(0), jnp.zeros(1)
    aim = Aim(jnp.float32(2.0), jnp.float32(1.5), jnp.zeros(0, jnp.int32), *numbers)

    def run(model: object) -> object:
        given = jax.tree.map(jnp.array, whole)  # donated
        return mask_search.advance(
            model, searchable_nodes(), h, given, jnp.int32(0), batches, 5, tie_qk=tie_qk, aim=aim
        )

    (one, (loss, opened)), (other, (other_loss, other_opened)) = run(gated), run(part)
    np.testing.assert_allclose(loss, other_loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(opened, other_opened)
    np.testing.assert_allclose(to_vector(one.tau), to_vector(other.tau), atol=1e-3)
    kept = to_vector(alive) > 0
    np.testing.assert_allclose(to_vector(one.slope)[:, kept], to_vector(other.slope)[:, kept], atol=1e-4)
    assert (to_vector(one.tau)[:, ~kept] < 0).all()


@pytest.mark.slow
def test_a_search_goes_over_to_a_restricted_model_where_enough_steps_are_left(
    monkeypatch: pytest.MonkeyPatch, models: list[type]
) -> None:
    """And ends as one in the whole model."""
    monkeypatch.setattr(mask_search, "CHUNK", 2)
    monkeypatch.setattr(mask_search, "WORTH_RESTRICTING", 1.0)
    monkeypatch.setattr(mask_search, "WORTH_AGAIN", 1)
    searched = {site: value * (np.arange(value.shape[1]) % 2) for site, value in searchable_nodes().items()}
    prune = dataclasses.replace(PRUNE, steps=8, starts=("integrated_gradients",), gates=("heaviside",), seeds=2)
    problem, h = problem_of(prune), hyperparameters.population(prune)
    found = []
    tokens = mask_search._room(problem, h) * 2  # of one step of both searches
    weights = 2 * weight_count(CONFIG.model) * tokens
    for worth in (np.inf, 0):
        monkeypatch.setattr(mask_search, "WORTH_COMPILING", worth)
        found.append(
            mask_search.search(problem, h, start=start_of(searched), progress=False, devices=jax.devices()[:1])
        )
    assert models == [GatedModel] * 4 + [Subcircuits] * 4
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[0].open_nodes, found[1].open_nodes)
    monkeypatch.setattr(mask_search, "WORTH_COMPILING", 6.5 * weights)
    states = path_search.initial_states(h, searchable_nodes(), start_of(searched), 0, 1)
    assert mask_search._model_for(problem, states, problem.gated, 6 * tokens) is problem.gated
    assert isinstance(mask_search._model_for(problem, states, problem.gated, 7 * tokens), Subcircuits)


@pytest.mark.slow
def test_a_stopped_search_goes_on_in_the_model_that_it_was_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: list[type]
) -> None:
    """Even where no other search would go over to it with so few steps left."""
    monkeypatch.setattr(mask_search, "CHUNK", 2)
    monkeypatch.setattr(mask_search, "WORTH_RESTRICTING", 1.0)
    searched = {site: value * (np.arange(value.shape[1]) % 2) for site, value in searchable_nodes().items()}
    prune = dataclasses.replace(PRUNE, steps=8, starts=("integrated_gradients",), gates=("heaviside",), seeds=2)
    problem, h = problem_of(prune), hyperparameters.population(prune)
    per_step = 2 * weight_count(CONFIG.model) * mask_search._room(problem, h) * 2
    monkeypatch.setattr(mask_search, "WORTH_COMPILING", 6.5 * per_step)

    def find(paused: Path | None = None) -> mask_search.SearchResult:
        one, start = jax.devices()[:1], start_of(searched)
        return mask_search.search(problem, h, start=start, progress=False, devices=one, paused=paused)

    straight = find()
    with monkeypatch.context() as reported:
        reported.setattr(interruption, "requested", lambda: True)
        reported.setattr(interruption, "check", _interrupt)
        with pytest.raises(Interrupted):
            find(tmp_path / "paused.npz")
    again = find(tmp_path / "paused.npz")
    assert models == [Subcircuits] * (4 + 1 + 3)
    jax.tree.map(np.testing.assert_array_equal, again, straight)


@pytest.mark.parametrize("devices", [1, 2])
def test_compacted_states_are_where_the_others_are(devices: int) -> None:
    """Else the next chunk of steps would be another program."""
    h = hyperparameters.population(dataclasses.replace(PRUNE, gates=("heaviside",)))
    states = path_search.initial_states(h, searchable_nodes(), start_of(), 0, 1)
    mesh = mask_search._mesh(2, jax.devices()[:devices])
    if mesh is not None:
        states = jax.device_put(states, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    after = mask_search._drop_closed_nodes(h, states, tie_qk=False)
    for site, value in states.searched.items():
        assert (after.searched[site].sharding, after.searched[site].committed) == (value.sharding, devices > 1)


@pytest.mark.parametrize(("norm", "compacts"), [("live", True), ("frozen", False)])
def test_only_models_that_can_be_restricted_are_compacted(norm: str, compacts: bool) -> None:
    """Elsewhere it would close nodes for good and save nothing."""
    config = dataclasses.replace(CONFIG, prune=dataclasses.replace(PRUNE, norm=norm, steps=8))
    made = circuits_model.search_problem(config, searchable_nodes(), circuits_model.batch(8, seed=1))
    assert [mask_search._compacts_before(made, first, 2) for first in (0, 2, 4, 6)] == [
        False,
        compacts,
        compacts,
        False,
    ]
