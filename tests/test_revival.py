"""Dead neurons that begin again: which, with what weights, when, and the same on every mesh and after a kill."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import Params, flatten, unflatten
from sparse_gpt.training import loop, manifest, optimizer, revival, run, sharding, step
from sparse_gpt.training.step import TrainState
from tests.broken_off import BrokenOffError, after

EVERY = 4


def small(**overrides: Any) -> Config:
    base = {
        "model.n_layer": 2, "model.d_model": 16, "model.d_mlp": 32, "model.vocab_size": 32, "model.context": 8,
        "sparsity.density": 0.5, "train.steps": 12, "train.checkpoint_every": EVERY, "train.log_every": 2,
        "sparsity.revive_every": EVERY,
    }  # fmt: skip
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return configs.validate(configs.replace(presets.tiny(), base | named))


def state_with(config: Config, dead: dict[int, list[int]], scale: float = 1.0) -> TrainState:
    """Random parameters, half of them zero, and moments; next to none of `dead` neurons, by layer.
    `scale` is that of second moments."""
    rng, fresh = np.random.default_rng(0), step.make_state(config)

    def noise(tree: Params) -> Params:
        return jax.tree.map(lambda x: (rng.normal(size=x.shape) * (rng.random(x.shape) < 0.5)).astype(np.float32), tree)

    nu = jax.tree.map(lambda x: np.float32(scale) * (np.square(x) + np.float32(1e-3)), noise(fresh.params))
    for layer, neurons in dead.items():
        nu[f"h_{layer}"]["mlp"]["c_fc"]["kernel"][:, neurons] = 1e-4 * scale * rng.random((16, len(neurons)))
    moments = fresh.optimizer._replace(mu=noise(fresh.params), nu=nu)
    return jax.tree.map(jnp.asarray, TrainState(noise(fresh.params), moments))


def host(state: TrainState) -> tuple[dict[Any, np.ndarray], ...]:
    """(parameters, first moments, second moments), each by path."""
    trees = (state.params, state.optimizer.mu, state.optimizer.nu)
    return tuple({path: np.array(leaf) for path, leaf in flatten(tree).items()} for tree in trees)


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e6])
def test_dead_neurons_begin_again_and_nothing_else_changes(scale: float) -> None:
    config, dead = small(), {0: [3, 4, 31], 1: [0]}
    state = state_with(config, dead, scale)
    before = host(state)
    after = host(revival.revive(config, state, EVERY))
    for old, new in zip(before, after, strict=True):
        for path, expected in old.items():
            expected, moment = expected.copy(), 0.0
            if old is before[2] and path[1:2] == ("mlp",):
                moment = 0.01 * np.mean(old[path[0], "mlp", "c_fc", "kernel"], dtype=np.float64)
            if path[1:] == ("mlp", "c_fc", "bias") or path[1:] == ("mlp", "c_proj", "kernel"):
                expected[dead[int(path[0][2:])]] = moment
            if path[1:] == ("mlp", "c_fc", "kernel"):
                neurons = dead[int(path[0][2:])]
                expected[:, neurons] = moment if old is not before[0] else new[path][:, neurons]
                if old is before[0]:
                    assert np.any(new[path][:, neurons] != old[path][:, neurons])
            np.testing.assert_allclose(new[path], expected, rtol=1e-5, err_msg=str(path))


def test_new_weights_are_as_dense_and_as_large_as_the_others() -> None:
    rng = np.random.default_rng(0)
    weights = 0.3 * rng.normal(size=(200, 300)) * (rng.random((200, 300)) < 0.1)
    drawn = np.asarray(revival.draw_like(jax.random.key(0), jnp.asarray(weights, jnp.float32)))
    kept, old = drawn[drawn != 0], weights[weights != 0]
    assert len(kept) / len(old) == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.mean(kept**2)) / np.sqrt(np.mean(old**2)) == pytest.approx(1, abs=0.05)
    assert not np.any(np.asarray(revival.draw_like(jax.random.key(0), jnp.zeros((8, 8)))))


def test_new_weights_differ_by_seed_step_and_layer() -> None:
    dead = list(range(16))

    def inputs(seed: int, s: int) -> list[np.ndarray]:
        config = small(train__seed=seed)
        params = host(revival.revive(config, state_with(config, {0: dead, 1: dead}), s))[0]
        return [params[f"h_{layer}", "mlp", "c_fc", "kernel"] for layer in (0, 1)]

    drawn = [array for at in ((0, 4), (0, 8), (1, 4)) for array in inputs(*at)]
    assert len({array.tobytes() for array in drawn}) == 6
    assert drawn[0].tobytes() == inputs(0, 4)[0].tobytes()


@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_a_neuron_is_dead_that_had_no_gradient_for_that_long(size: float) -> None:
    """Against Adam itself: one neuron has a tenth of the others' gradients for sixty steps, then none."""
    config = small()
    params, direction = state_with(config, {}).params, optimizer.adam(config.optimizer)
    heard, silent = (jax.tree.map(lambda x: np.full(x.shape, size, np.float32), params) for _ in range(2))
    heard["h_0"]["mlp"]["c_fc"]["kernel"][:, 7] = 0.1 * size
    silent["h_0"]["mlp"]["c_fc"]["kernel"][:, 7] = 0
    update, moments = jax.jit(direction.update), direction.init(params)
    for _ in range(60):
        _, moments = update(heard, moments)
    begun = []
    for _ in range(EVERY + 1):
        _, moments = update(silent, moments)
        given = jax.tree.map(jnp.array, TrainState(params, moments))  # copies, for they are donated
        after = revival.revive(config, given, EVERY).params["h_0"]["mlp"]["c_proj"]["kernel"]
        begun.append(not np.array_equal(after, params["h_0"]["mlp"]["c_proj"]["kernel"]))
    assert not any(begun[: EVERY - 1])
    assert begun[EVERY]


def test_what_has_begun_again_is_left_alone_for_as_long() -> None:
    """Even if nothing comes of it."""
    config = small()
    once = host(revival.revive(config, state_with(config, {0: [5]}), EVERY))
    twice = host(revival.revive(config, jax.tree.map(jnp.asarray, _again(config, once)), 2 * EVERY))
    np.testing.assert_array_equal(once[0]["h_0", "mlp", "c_fc", "kernel"], twice[0]["h_0", "mlp", "c_fc", "kernel"])


def _again(config: Config, parts: tuple[dict[Any, np.ndarray], ...]) -> TrainState:
    """A state from `host`'s parts."""
    params, mu, nu = (unflatten(part) for part in parts)
    return TrainState(params, step.make_state(config).optimizer._replace(mu=mu, nu=nu))


def test_not_before_the_first_steps_nor_in_the_last_ones() -> None:
    config = small(train__steps=40)
    due = [s for s in range(40) if revival.is_due(config, s)]
    assert due == [4, 8, 12, 16, 20, 24, 28, 32]
    assert not any(revival.is_due(small(sparsity__revive_every=0), s) for s in range(40))


def test_dead_neurons_cannot_be_told_without_second_moments() -> None:
    with pytest.raises(InputError, match=r"--config\.sparsity\.revive_every=4: .*beta2 must be above 0"):
        small(optimizer__beta2=0.0)


@pytest.mark.slow
def test_eight_devices_revive_as_one_does() -> None:
    config = small(train__mesh="data=2,fsdp=2,tensor=2")
    mesh = sharding.make_mesh(config)
    state = state_with(config, {0: [3, 4, 31], 1: [0]})
    layout = sharding.state_shardings(config, mesh, state)
    many = revival.revive(config, jax.device_put(state, layout), EVERY)
    one = revival.revive(config, state_with(config, {0: [3, 4, 31], 1: [0]}), EVERY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, many)
    assert jax.tree.all(jax.tree.map(lambda leaf, placed: leaf.sharding == placed, many, layout))


@pytest.mark.slow
def test_a_killed_run_revives_the_same(workdir: Path) -> None:
    """Neurons without weights have no gradient. The run goes on at a step before which they begin again."""
    config = small()
    shape = (config.train.steps, config.train.batch_size, config.model.context + 1)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, shape).astype(np.int32)
    mesh, start = sharding.make_mesh(presets.tiny(), jax.devices()[:1]), step.make_state(config).params
    for layer in ("h_0", "h_1"):
        fc = start[layer]["mlp"]["c_fc"]
        fc["kernel"] = fc["kernel"].at[:, [3, 9]].set(0)

    def train(folder: Path, **options: Any) -> str:
        given = run.given_batches(tokens, mesh)
        result = loop.train(config, folder, given, init_from=start, mesh=mesh, progress=False, **options)
        return manifest.params_sha256(result.params)

    straight = train(workdir / "straight")
    with pytest.raises(BrokenOffError):
        train(workdir / "killed", at_step=after(EVERY + 3))
    assert train(workdir / "killed") == straight
    config = small(sparsity__revive_every=0)
    assert train(workdir / "never") != straight
