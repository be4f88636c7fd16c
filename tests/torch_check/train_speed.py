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

from tests import reference_run
from tests.reference_model import complete
from tests.torch_check import training
from tests.torch_check.model import Model

NODE_SITES = "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out"
OPTIONS = {"rms_norm": True, "tied_unembed": False, "afrac": 0.25, "afrac_loctypes": NODE_SITES, "sink": True,
           "enable_bigram_table": True, "d_head": 16}  # fmt: skip
SIZES = {
    "small": ({"d_model": 128, "n_layer": 2, "n_head": 8, "d_mlp": 512, "vocab_size": 512, "block_size": 128}, 32),
    "medium": ({"d_model": 256, "n_layer": 4, "n_head": 16, "d_mlp": 1024, "vocab_size": 2048, "block_size": 256}, 16),
}  # and sequences in a batch
ROUNDS = 7


def measure(size: str) -> float:
    """Prints a line; returns the median seconds of a step."""
    shape, sequences = SIZES[size]
    config = OPTIONS | shape
    rng, recipe = np.random.default_rng(0), reference_run.Recipe(steps=100)
    model = Model(complete(config))
    weights = reference_run.initial_weights(config, rng)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)
    tokens = torch.from_numpy(rng.integers(0, config["vocab_size"], (sequences, config["block_size"])))
    now, times = reference_run.settings(recipe, recipe.steps - 1), []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        training.step(model, optimizer, tokens, now, recipe)
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[1:])
    predicted = sequences * config["block_size"]
    print(f"{size}: {1000 * seconds:.0f} ms, {predicted / seconds:,.0f} tokens/s, {torch.get_num_threads()} threads")
    return seconds


if __name__ == "__main__":
    for name in sys.argv[1:] or SIZES:
        measure(name)
