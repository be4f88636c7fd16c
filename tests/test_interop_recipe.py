"""The recipe `openai_reference`: training here follows a run of the same problem in PyTorch (tests/golden)."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt.config import Config, OptimizerConfig, validate
from sparse_gpt.interop import openai_config, openai_weights
from sparse_gpt.training import schedules, step
from tests import reference_run, reference_training

Golden = list[dict[str, Any]]


@pytest.fixture(scope="module")
def golden() -> Golden:
    """One object per step of PyTorch's run."""
    rows: Golden = json.loads(reference_run.GOLDEN.read_text())
    return rows


@functools.cache
def slow_run() -> tuple[list[reference_run.Record], reference_run.Weights]:
    """The slow reference, as far as two runs agree closely."""
    config, weights, batches, recipe = reference_run.problem()
    return reference_training.train(config, weights, batches, recipe, reference_run.EXACT_STEPS + 1)


def our_config() -> Config:
    """The problem in our words."""
    fields, _, batches, recipe = reference_run.problem()
    config, _ = openai_config.from_fields(fields)
    dense = recipe.expansion * recipe.expansion_mlp
    sparsity = dataclasses.replace(
        config.sparsity,
        density=recipe.pfrac / dense,
        embedding_density=recipe.pfrac / recipe.expansion,
        min_alive=recipe.min_alive,
    )
    optimizer = OptimizerConfig(recipe="openai_reference", learning_rate=recipe.learning_rate)
    train = dataclasses.replace(config.train, steps=recipe.steps, batch_size=batches.shape[1])
    return validate(dataclasses.replace(config, sparsity=sparsity, optimizer=optimizer, train=train))


@pytest.mark.slow
def test_the_slow_reference_follows_pytorch(golden: Golden) -> None:
    records, _ = slow_run()
    for record, expected in zip(records, golden, strict=False):
        found = dataclasses.asdict(record)
        assert found["nonzeros"] == expected["nonzeros"], record.step
        for field in ("learning_rate", "weight_density", "embedding_density"):
            assert found[field] == expected[field], (record.step, field)
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5), record.step
        assert found["grad_rms"] == pytest.approx(expected["grad_rms"], rel=1e-4), record.step


def test_schedules_are_the_references_to_the_last_bit(golden: Golden) -> None:
    config, recipe = our_config(), reference_run.problem()[3]
    assert schedules.iterations(config) == len(golden) == recipe.steps + 1
    tensors = schedules.projected_tensors(config)
    for i in range(recipe.steps + 1):
        reported, expected = schedules.settings(config, i), reference_run.settings(recipe, i)
        assert reported.learning_rate == expected.learning_rate, i
        assert reported.density == expected.weight_density, i
        counts = {openai_weights.reference_name(p): int(k) for p, k in zip(tensors, reported.keep, strict=True)}
        for path, spec in tensors.items():
            name = openai_weights.reference_name(path)
            assert counts[name] == reference_run.keep_count(name, spec.size, expected), (i, name)


@pytest.mark.slow
def test_training_follows_pytorch(golden: Golden) -> None:
    """Losses to 1e-5, counts exactly, parameters to 1e-4 of each tensor's scale apart from a few threshold flips."""
    config = our_config()
    _, weights, batches, _ = reference_run.problem()
    params = jax.tree.map(jnp.asarray, openai_weights.to_params(config.model, weights, "problem"))
    state = dataclasses.replace(step.make_state(config), params=params)
    advance = step.compile_step(config)
    names = [openai_weights.reference_name(path) for path in step.flatten(params)]
    for i in range(reference_run.EXACT_STEPS + 1):
        reported = schedules.settings(config, i)
        state, metrics = advance(state, batches[i], np.float32(reported.learning_rate), reported.keep)
        assert float(metrics["loss"]) == pytest.approx(golden[i]["loss"], abs=1e-5), i
        assert float(metrics["grad_rms"]) == pytest.approx(golden[i]["grad_rms"], rel=1e-4), i
        counts = dict(zip(names, step.nonzeros(state.params).values(), strict=True))
        assert {name: counts[name] for name in golden[i]["nonzeros"]} == golden[i]["nonzeros"], i
    _, expected = slow_run()
    found = openai_weights.to_tensors(config.model, jax.device_get(state.params))
    for name, value in expected.items():
        scale = np.abs(value).max()
        wrong = np.abs(found[name] - value) > 1e-4 * scale
        assert wrong.sum() <= 2, f"{name}: {wrong.sum()} of {value.size} entries differ"
