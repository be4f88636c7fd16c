"""Projection, schedules, recipes and the loop, each against something slow and obvious."""

import dataclasses
import functools
import json
import math
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
from sparse_gpt.parameters import BIGRAM, MATRIX, ParameterSpec, flatten, parameter_table, unflatten
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
# Schedules and recipes


def test_paper_schedule() -> None:
    config = small(train__steps=1000, optimizer__learning_rate=1.0)
    target = config.sparsity.density
    assert schedules.density(config, 10, target) == 1.0
    assert schedules.density(config, 255, target) == pytest.approx(1 - (1 - target) / 2)
    assert schedules.density(config, 500, target) == target
    assert schedules.iterations(config) == 1000
    fin = math.sqrt(target / schedules.density(config, 300, target))
    assert schedules.learning_rate(config, 300) == pytest.approx((1 - 290 / 990) * fin)
    assert schedules.learning_rate(config, 0) == pytest.approx(0.1 * math.sqrt(target))
    assert schedules.learning_rate(config, 999) == pytest.approx(1 / 990)


def test_reference_schedule_is_zero_at_both_ends_and_spares_biases() -> None:
    config = small(optimizer__recipe="openai_reference", train__steps=400, model__position="additive")
    assert schedules.iterations(config) == 401
    assert schedules.learning_rate(config, 0) == 0
    assert schedules.learning_rate(config, 400) == 0
    kinds = {path[-1] for path in schedules.projected_tensors(config)}
    assert kinds == {"wte", "wpe", "kernel", "lm_head"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "openai_reference", "fast", "muon"])
def test_one_update_against_numpy(recipe: str) -> None:
    config = small(optimizer__recipe=recipe, model__position="additive")
    params = step.make_state(config).params
    rng = np.random.default_rng(1)
    grads = jax.tree.map(lambda x: jnp.asarray(3 * rng.normal(size=x.shape), jnp.float32), params)
    made, lr, o = optimizer.make(config), 0.01, config.optimizer
    seen: dict[str, Any] = {}

    def project(tree: Any) -> Any:
        seen["before"] = tree
        return jax.tree.map(lambda x: 0.5 * x, tree)

    moved_along, _ = made.direction.update(grads, made.direction.init(params))
    new, rms = made.apply(params, moved_along, jnp.float32(lr), project), made.rms(grads)
    flat = {path: np.array(g, np.float64) for path, g in flatten(grads).items()}
    counted = {path: g.copy() for path, g in flat.items()}
    if recipe == "openai_reference":  # its final bias is a constant, and the last bigram row gets no gradient
        del counted["final_logits_bias",]
        counted["bigram",][-1] = 0
    if recipe in ("openai_reference", "fast"):
        flat["final_logits_bias",][:] = flat["bigram",][-1] = 0
    expected_rms = math.sqrt(sum((g**2).sum() for g in counted.values()) / sum(g.size for g in counted.values()))
    assert float(rms) == pytest.approx(expected_rms, rel=1e-5)
    scale = 1 / expected_rms if recipe == "paper" else 1 / (expected_rms + 1e-5)
    table = parameter_table(config.model)
    for path, g in flat.items():
        g = g / (math.sqrt((g**2).mean()) + 1e-7) if recipe == "fast" else g * scale
        direction = g / (np.sqrt(g * g) + o.eps)  # first step: both moments are exactly the gradient and its square
        if recipe == "muon" and table[path].kind == MATRIX:
            direction = _muon(o.beta1 * g * (1 - o.beta1) / (1 - o.beta1**2) + (1 - o.beta1) * g / (1 - o.beta1))
        w = np.asarray(flatten(params)[path], np.float64)
        shrink = 1 - lr * o.weight_decay if len(w.shape) > 1 and table[path].kind != BIGRAM else 1.0
        if recipe == "paper":
            expected = 0.5 * (w * shrink - lr * direction)
        else:
            expected = 0.5 * (w - lr * direction) * shrink
        np.testing.assert_allclose(flatten(new)[path], expected, atol=2e-6, err_msg=str(path))
    assert seen


def _muon(moment: np.ndarray) -> np.ndarray:
    """Muon's direction in float64."""
    x = moment if moment.shape[0] <= moment.shape[1] else moment.T
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return optimizer.MUON_RMS * math.sqrt(max(moment.shape)) * (x if moment.shape[0] <= moment.shape[1] else x.T)


@pytest.mark.slow
def test_the_moments_of_muon_over_several_steps_against_numpy() -> None:
    config = small(optimizer__recipe="muon")
    params, o = step.make_state(config).params, config.optimizer
    made, state, path = optimizer.make(config), step.make_state(config).optimizer, ("h_0", "mlp", "c_fc", "kernel")
    rng, moment = np.random.default_rng(2), 0.0
    for count in range(1, 5):
        gradients = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
        direction, state = made.direction.update(gradients, state)
        gradient = np.asarray(flatten(gradients)[path], np.float64) / (float(made.rms(gradients)) + 1e-5)
        moment = o.beta1 * moment + (1 - o.beta1) * gradient
        ahead = o.beta1 * moment / (1 - o.beta1 ** (count + 1)) + (1 - o.beta1) * gradient / (1 - o.beta1**count)
        found = np.asarray(flatten(direction)[path])
        np.testing.assert_allclose(found, _muon(ahead), atol=2e-4)
    assert math.sqrt(np.mean(found**2)) == pytest.approx(optimizer.MUON_RMS, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fast", "muon"])
def test_a_gradient_of_zeros_moves_nothing(recipe: str) -> None:
    config = small(optimizer__recipe=recipe)
    params, made = step.make_state(config).params, optimizer.make(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    direction, _ = made.direction.update(zeros, made.direction.init(zeros))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(direction))


def test_fast_spares_biases_and_wastes_no_step() -> None:
    config = small(optimizer__recipe="fast", train__steps=400, model__position="additive")
    assert schedules.iterations(config) == 400
    assert schedules.learning_rate(config, 0) > 0
    assert {path[-1] for path in schedules.projected_tensors(config)} == {"wte", "kernel", "lm_head"}


@pytest.mark.slow
def test_fast_starts_as_the_reference_does() -> None:
    reference, fast = (
        step.make_state(small(optimizer__recipe=recipe, model__position="additive")).params
        for recipe in ("openai_reference", "fast")
    )
    jax.tree.map(np.testing.assert_array_equal, reference, fast)
    assert fast["bigram"].min() >= 0 < fast["bigram"].max() <= 0.02


@pytest.mark.slow
def test_small_gradients_are_left_alone_by_the_paper_recipe() -> None:
    config = small()
    params = step.make_state(config).params
    grads = jax.tree.map(lambda x: jnp.full_like(x, 1e-3), params)
    recipe = optimizer.make(config)
    direction, _ = recipe.direction.update(grads, recipe.direction.init(params))
    new = recipe.apply(params, direction, jnp.float32(1.0), lambda p: p)
    moved = params["ln_f"]["scale"] - new["ln_f"]["scale"]
    np.testing.assert_allclose(moved, 1e-3 / (1e-3 + 0.1), rtol=1e-5)


@pytest.mark.slow
def test_clipping_by_rms_is_clipping_by_the_norm_of_all_entries() -> None:
    gradients = {"a": jnp.arange(12.0).reshape(3, 4), "b": -jnp.ones(8)}
    for limit in (0.5, 100.0):
        ours, theirs = optimizer.clip_by_rms(limit), optax.clip_by_global_norm(limit * math.sqrt(20))
        found, wanted = (each.update(gradients, each.init(gradients))[0] for each in (ours, theirs))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "openai_reference", "fast", "muon"])
def test_checkpoints_hold_the_state_of_adam_and_nothing_else(recipe: str) -> None:
    """The layout of every checkpoint so far; another one would need a conversion."""
    config = small(optimizer__recipe=recipe)
    state, made = step.abstract_state(config), optimizer.make(config)
    assert jax.tree.structure(state.optimizer) == jax.tree.structure(optax.scale_by_adam().init(state.params))
    gradients = jax.tree.map(jnp.ones_like, step.make_state(config).params)
    _, after = made.direction.update(gradients, made.direction.init(gradients))
    assert jax.tree.structure(after) == jax.tree.structure(state.optimizer)
    assert int(after.count) == 1


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
