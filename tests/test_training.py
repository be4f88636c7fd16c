"""Projection, step and loop, each against something slow and obvious (schedules: test_training_recipes.py)."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.bridges.dense import dense_config
from sparse_gpt.bridges.training import BridgeProgram
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import MATRIX, ParameterSpec, flatten, parameter_table, unflatten
from sparse_gpt.sparsity.projection import Projection
from sparse_gpt.training import claim, loop, manifest, optimizer, schedules, sharding, step
from sparse_gpt.training.checkpoint import load_params
from tests.broken_off import BrokenOffError, after


def small(**overrides: Any) -> Config:
    """A configuration that trains in about a second once compiled."""
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    base = {
        "model.vocab_size": 32, "model.context": 16, "model.d_model": 16, "model.d_mlp": 32, "model.n_head": 2,
        "model.n_layer": 1, "train.steps": 12, "train.batch_size": 4, "train.log_every": 3, "train.eval_every": 6,
        "train.checkpoint_every": 4, "sparsity.density": 0.5,
    }  # fmt: skip
    return configs.validate(configs.replace(presets.tiny(), base | names))


def train(config: Config, workdir: Path, batches: loop.Batches, **options: Any) -> loop.Result:
    """The loop on one device, without a bar. tests/test_sharding.py and tests/test_distributed.py take more of them."""
    return loop.train(config, workdir, batches, mesh=one_device(), progress=False, **options)


def one_device() -> Mesh:
    return sharding.make_mesh(presets.tiny(), jax.devices()[:1])


def batches(config: Config, length: int | None = None) -> loop.Batches:
    """Random token batches, a pure function of the step."""
    shape = (config.train.batch_size, (length or config.model.context) + 1)

    def one(s: int) -> np.ndarray:
        return np.random.default_rng(s).integers(0, config.model.vocab_size, shape).astype(np.int32)

    def stream(start: int) -> Any:
        s = start
        while True:
            yield one(s)
            s += 1

    return loop.Batches(stream, [one(10_000)])


# ---------------------------------------------------------------------------------------------------------------------
# Projection


def slow_projection(weight: np.ndarray, k: int, neuron_axis: int | None, min_alive: int) -> np.ndarray:
    """Sort and keep: min-alive entries first, then magnitude, then flat index."""
    magnitude = np.where(np.isnan(weight), np.inf, np.abs(weight.astype(np.float64)))
    nan_first = np.isnan(weight)
    alive = np.zeros(weight.shape, bool)
    if neuron_axis is not None:
        lines = np.moveaxis(np.arange(weight.size).reshape(weight.shape), neuron_axis, 0)
        for line in lines:
            order = sorted(line, key=lambda i: (not nan_first.flat[i], -magnitude.flat[i], i))
            alive.flat[order[:min_alive]] = True
    order = sorted(range(weight.size), key=lambda i: (not alive.flat[i], not nan_first.flat[i], -magnitude.flat[i], i))
    kept = np.zeros(weight.shape, bool)
    kept.flat[order[:k]] = True
    return np.where(kept, weight, 0)


def nasty_tensors() -> tuple[dict[Any, ParameterSpec], dict[Any, np.ndarray]]:
    """Random weights, ties everywhere, zeros, NaN and infinity, both neuron axes, one without protection."""
    rng = np.random.default_rng(0)
    arrays = {
        ("a", "kernel"): rng.normal(size=(16, 24)),
        ("b", "kernel"): rng.integers(-2, 3, size=(24, 16)),  # heavy ties, many zeros
        ("c",): np.where(rng.random((32, 8)) < 0.9, 0.0, rng.normal(size=(32, 8))),
        ("d",): np.ones((8, 8)),
        ("e",): rng.normal(size=(40,)),
    }
    arrays["a", "kernel"][3, 5], arrays["a", "kernel"][4, 5] = np.inf, -1e-30
    arrays["c",][2, 2] = np.nan
    axes = {("a", "kernel"): 1, ("b", "kernel"): 0}
    specs = {
        path: ParameterSpec(array.shape, ("x",) * array.ndim, MATRIX, "zeros", neuron_axis=axes.get(path))
        for path, array in arrays.items()
    }
    return specs, {path: array.astype(np.float32) for path, array in arrays.items()}


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize("keep", [(96, 110, 30, 10, 7), (384, 384, 256, 64, 40), (97, 96, 3, 0, 0)], ids=str)
@pytest.mark.parametrize("devices", [1, 8])
def test_projection_keeps_exactly_what_sorting_keeps(keep: tuple[int, ...], devices: int) -> None:
    specs, arrays = nasty_tensors()
    mesh, partition = None, {}
    if devices == 8:
        mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
        layouts = [("fsdp", "tensor"), ("tensor", "fsdp"), (("fsdp", "tensor"), None), (None, "fsdp"), ("fsdp",)]
        partition = {path: PartitionSpec(*layout) for path, layout in zip(specs, layouts, strict=True)}
    projection = Projection(specs, 4, mesh, partition)
    placed = {
        path: jax.device_put(a, NamedSharding(mesh, partition[path])) if mesh else jnp.asarray(a)
        for path, a in arrays.items()
    }
    result = flatten(jax.jit(projection)(unflatten(placed), jnp.array(keep, jnp.int32)))
    for (path, spec), k in zip(specs.items(), keep, strict=True):
        expected = slow_projection(arrays[path], k, spec.neuron_axis, 4)
        np.testing.assert_array_equal(np.asarray(result[path]), expected, err_msg=str(path))


@pytest.mark.slow
def test_projection_leaves_other_tensors_alone() -> None:
    config = small()
    state = step.make_state(config)
    params = jax.tree.map(lambda x: x + 1, state.params)
    projected = schedules.projected_tensors(config)
    result = jax.jit(Projection(projected, 4))(params, jnp.asarray(schedules.keep_counts(config, 11)))
    for path, spec in parameter_table(config.model).items():
        count = np.count_nonzero(flatten(result)[path])
        assert count == (int(0.5 * spec.size) if path in projected else spec.size), path


# ---------------------------------------------------------------------------------------------------------------------
# The step


@pytest.mark.slow
def test_a_run_starts_from_the_state_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lion has one moment where Adam has two."""

    def move(params: Any, direction: Any, lr: Any, project: Any) -> Any:
        return project(optimizer.move(params, direction, lr))

    lion = optimizer.Recipe(optimizer.gradient_rms, optax.scale_by_lion(), move)
    monkeypatch.setitem(optimizer.RECIPES, "lion", lambda *_: lion)
    config = dataclasses.replace(small(), optimizer=dataclasses.replace(small().optimizer, recipe="lion"))
    state = step.abstract_state(config)
    assert jax.tree.structure(state.optimizer) == jax.tree.structure(optax.scale_by_lion().init(state.params))
    one_step = functools.partial(step.train_step, config=config)
    after, _ = jax.eval_shape(one_step, state, *step.abstract_inputs(config))
    assert after == state

    program = BridgeProgram(config, None, dense_config(small()))
    state = program.abstract_state()
    assert isinstance(state.optimizer.moments, optax.ScaleByLionState)
    after, _ = jax.eval_shape(program.compile_step(), state, program.abstract_dense(), *step.abstract_inputs(config))
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_projections_with_the_same_rows_are_equal() -> None:
    one, other = (step.projection(small()) for _ in range(2))
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert one != dataclasses.replace(one, min_alive=one.min_alive + 1)
    assert one != dataclasses.replace(one, tensors=dict(reversed(one.tensors.items()))), "keep counts go by order"


@pytest.mark.slow
def test_a_step_without_projection_differs_by_the_projection_alone() -> None:
    config = small()
    tokens, reported = next(batches(config).train(0)), schedules.settings(config, 11)
    with_it, without = (
        step.compile_step(config, project=project)(step.make_state(config), tokens, np.float32(0.01), reported.keep)[0]
        for project in (True, False)
    )
    projected = jax.jit(step.projection(config))(without.params, reported.keep)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), with_it.params, projected)
    assert step.nonzeros(without.params) != step.nonzeros(projected)


@pytest.mark.slow
def test_microbatches_give_the_gradients_of_the_whole_batch() -> None:
    config = small()
    model, params = step.build(config), step.make_state(config).params
    tokens = next(batches(config).train(0))
    whole, parts = (jax.jit(lambda n=n: step.loss_and_gradients(model, params, tokens, n))() for n in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4), whole, parts)


# ---------------------------------------------------------------------------------------------------------------------
# The loop


@pytest.mark.optimized
@pytest.mark.slow
def test_loop_logs_evaluates_and_leaves_a_manifest(workdir: Path) -> None:
    config = small()
    result = train(config, workdir, batches(config))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6, 9, 11]
    assert [("val_loss" in line) for line in lines] == [False, False, True, False, True]
    assert lines[-1]["tokens"] == 12 * 4 * 16
    table = parameter_table(config.model)
    for path in schedules.projected_tensors(config):
        assert lines[-1]["nonzeros"]["/".join(path)] == int(0.5 * table[path].size)
    held = json.loads((workdir / "manifest.json").read_text())
    params, finished = load_params(workdir, config.model)
    assert finished == held["step"] == result.step == 12
    assert held["params_sha256"] == manifest.params_sha256(params) == manifest.params_sha256(result.params)
    assert configs.load(workdir) == config


@pytest.mark.optimized
@pytest.mark.slow
def test_stopping_and_resuming_gives_the_same_bits(workdir: Path) -> None:
    config = small()
    straight = train(config, workdir / "straight", batches(config))

    with pytest.raises(BrokenOffError):
        train(config, workdir / "killed", batches(config), at_step=after(7))
    resumed = train(config, workdir / "killed", batches(config))
    assert manifest.params_sha256(resumed.params) == manifest.params_sha256(straight.params)

    def comparable(folder: Path) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in entries]

    assert comparable(workdir / "straight") == comparable(workdir / "killed")


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over(workdir: Path) -> None:
    config = small()
    straight = train(config, workdir, batches(config))
    newest = workdir / "checkpoints" / "12"
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 0:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = train(config, workdir, batches(config))
    assert manifest.params_sha256(again.params) == manifest.params_sha256(straight.params)


def test_another_configuration_is_refused(workdir: Path) -> None:
    config = small()
    claim.claim_workdir(config, workdir)
    other = dataclasses.replace(config, sparsity=dataclasses.replace(config.sparsity, density=0.75))
    with pytest.raises(InputError, match=r"sparsity\.density is 0\.5 there, 0\.75 here"):
        claim.claim_workdir(other, workdir)
    claim.claim_workdir(configs.replace(config, {"prune.steps": 3}), workdir)


@pytest.mark.slow
def test_a_non_finite_loss_stops_the_run_and_names_the_steps(workdir: Path) -> None:
    config = small(train__log_every=2)
    params = step.make_state(config).params
    bad = {**params, "ln_f": {"scale": params["ln_f"]["scale"].at[0].set(jnp.nan)}}
    with pytest.raises(loop.NonFiniteLossError, match="at step 0"):
        train(config, workdir, batches(config), init_from=bad)
    assert not any((workdir / "checkpoints").glob("[0-9]*"))


def test_initial_parameters_must_fit(workdir: Path) -> None:
    config = small()
    params = step.make_state(config).params
    with pytest.raises(InputError, match="bigram is missing"):
        loop.check_params(config, {k: v for k, v in params.items() if k != "bigram"})
    with pytest.raises(InputError, match=r"wte has shape \(3, 3\), expected \(32, 16\)"):
        loop.check_params(config, {**params, "wte": jnp.zeros((3, 3))})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"sparsity.density": 0.0}, r"sparsity\.density=0\.0: must be in \(0, 1\]"),
        ({"sparsity.density": 1.5}, r"sparsity\.density=1\.5"),
        ({"sparsity.min_alive": 20}, "lower min_alive to"),
        ({"model.d_head": 0}, r"model\.d_head=0"),
        ({"model.norm_bias": True}, "RMSNorm has no bias"),
        ({"train.microbatches": 3}, "must divide batch_size"),
        ({"prune.k_coefs": "a"}, r"prune\.k_coefs"),
        ({"model.depth": 3}, r"model\.depth: no such field"),
        ({"model.n_layer": 1.5}, "expected int"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_configurations_are_named(override: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configs.validate(configs.replace(presets.tiny(), override))
