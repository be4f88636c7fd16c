"""Tokens per second of the train step in PyTorch, to hold ours against (docs/results/speed.md).

    taskset -c 0 .venv-torch/bin/python -m tests.torch_check.train_speed small medium
    taskset -c 0 .venv/bin/python -m launch.benchmark --workdir=DIR --parts=train

The step of training.py (recipe `openai_reference`, float32, AbsTopK and projection by torch.topk, run eagerly) at the
sizes of `sparse_gpt.costs.sizes`, on random tokens and at the final density.
"""

import statistics
import sys
import time

import numpy as np
import torch

from sparse_gpt.costs.sizes import SIZES
from tests import reference_run
from tests.reference_model import complete
from tests.torch_check import training
from tests.torch_check.model import Model
from tests.torch_check.run import SPARSE

OPTIONS = SPARSE | {"afrac": 0.25, "sink": True, "enable_bigram_table": True, "d_head": 16}
ROUNDS = 7


def measure(size: str) -> float:
    """Prints a line; returns the median seconds of a step."""
    given = {name.partition(".")[2]: value for name, value in SIZES[size].items()}
    sequences, steps = given.pop("batch_size"), given.pop("context")
    config = OPTIONS | given | {"block_size": steps}
    rng, recipe = np.random.default_rng(0), reference_run.Recipe(steps=100)
    model = Model(complete(config))
    weights = reference_run.initial_weights(config, rng)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)
    tokens = torch.from_numpy(rng.integers(0, config["vocab_size"], (sequences, steps)))
    now, times = reference_run.settings(recipe, recipe.steps - 1), []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        training.step(model, optimizer, tokens, now, recipe)
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[1:])
    rate = sequences * steps / seconds
    print(f"{size}: {1000 * seconds:.0f} ms, {rate:,.0f} tokens/s, {torch.get_num_threads()} threads")
    return seconds


if __name__ == "__main__":
    for name in sys.argv[1:] or SIZES:
        measure(name)
