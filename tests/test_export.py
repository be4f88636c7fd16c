"""The train step lowers for CPUs, NVIDIA GPUs and TPUs alike: nothing in it is of one platform."""

import jax
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.training import schedules, step


@pytest.mark.slow
def test_one_train_step_for_cpu_and_cuda() -> None:
    sizes = {"n_layer": 1, "d_model": 16, "d_mlp": 32, "vocab_size": 32, "context": 8}
    overrides = {f"model.{name}": size for name, size in sizes.items()} | {"train.dtype": "bfloat16"}
    config = configs.validate(configs.replace(presets.tiny(), overrides))
    state, reported = step.abstract_state(config), schedules.settings(config, 3)
    tokens = jax.ShapeDtypeStruct((config.train.batch_size, config.model.context + 1), np.int32)

    compiled = step.compile_step(config)
    leaves, tree = jax.tree.flatten(state)
    flat = jax.jit(lambda leaves, *rest: compiled(jax.tree.unflatten(tree, leaves), *rest)[1])
    exported = jax.export.export(flat, platforms=("cpu", "cuda"))(leaves, tokens, np.float32(0.01), reported.keep)
    assert exported.platforms == ("cpu", "cuda")

    real = jax.tree.leaves(step.make_state(config))
    batch = np.zeros(tokens.shape, np.int32)
    metrics = exported.call(real, batch, np.float32(0.01), reported.keep)  # on the CPU here
    assert np.isfinite(metrics["loss"])
