"""Schedules and recipes, each against something slow and obvious."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.parameters import BIGRAM, MATRIX, flatten, parameter_table
from sparse_gpt.training import optimizer, schedules, step
from tests.test_training import small


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


@pytest.mark.parametrize("recipe", ["openai_reference", "fast", "muon"])
def test_divided_gradients_have_the_rms_that_is_asked_for(recipe: str) -> None:
    """Adam's direction of gradients three times as large, at an epsilon three times as large, is the same."""
    one = small(optimizer__recipe=recipe)
    three = small(optimizer__recipe=recipe, optimizer__grad_rms=3.0, optimizer__eps=3 * one.optimizer.eps)
    rng = np.random.default_rng(0)
    params = step.make_state(one).params
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params)
    made = [optimizer.make(config).direction for config in (one, three)]
    found, scaled = (each.update(gradients, each.init(params))[0] for each in made)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, scaled)
    without = optimizer.make(small(optimizer__recipe=recipe, optimizer__grad_rms=3.0)).direction
    changed, _ = without.update(gradients, without.init(params))
    biases = [tree["h_0"]["mlp"]["c_fc"]["bias"] for tree in (found, changed)]
    assert float(jnp.abs(biases[1] - biases[0]).max()) > 1e-3


@pytest.mark.parametrize("recipe", optimizer.RECIPES)
@pytest.mark.parametrize("steps", [1, 2, 10, 997])
@pytest.mark.parametrize("stop", [0.5, 0.95, 0.9999, 1.0])
def test_the_last_step_is_at_the_target_density(recipe: str, steps: int, stop: float) -> None:
    """However late annealing ends; where it ends in time, it is linear until then."""
    fields = {"optimizer.recipe": recipe, "train.steps": steps, "sparsity.anneal_stop": stop}
    c = configs.replace(presets.tiny(), fields)
    last, start = schedules.iterations(c) - 1, c.sparsity.anneal_start * steps
    assert schedules.annealing(c, last) == 1.0
    assert schedules.settings(c, last).density == c.sparsity.density
    if stop * steps <= last:
        linear = np.clip((np.arange(last + 1) - start) / (stop * steps - start), 0, 1)
        found = [schedules.annealing(c, s) for s in range(last + 1)]
        np.testing.assert_allclose(found, linear, atol=1e-12)
