"""The `openai_reference` recipe step by step in plain numpy, and one small problem to run it on.

Written from the method's description, apart from `sparse_gpt`: tensors carry the reference's names and layout (out,
in), every tensor is sorted to find its largest entries, and the arithmetic of the schedules is the reference's,
operation by operation, so that counts of nonzeros agree exactly. Where gradients come from is left open:
tests/reference_training.py takes them from JAX, tests/torch_check/training.py does the whole run in PyTorch.

The golden file is what PyTorch gave. To make it anew after a change of the problem (never to silence a test):
    .venv-torch/bin/python tests/torch_check/run.py --write_golden
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference_model import complete, parameter_shapes

Array = np.ndarray
Weights = dict[str, Array]
Gradients = Callable[[Weights, Array], tuple[float, Weights]]

GOLDEN = Path(__file__).parent / "golden" / "openai_reference.json"
NEVER_TRAINED = ("final_logits_bias",)  # a buffer in the reference: neither trained nor counted in the gradient RMS
EXACT_STEPS = 10  # two float32 implementations agree closely for so long, then chaos at the threshold sets in


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The reference's training options. Densities are pfrac / (expansion * expansion_mlp) and pfrac / expansion."""

    steps: int
    learning_rate: float = 1.28e-2
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 0.1
    pfrac: float = 0.75
    expansion: float = 2.0
    expansion_mlp: float = 2.0
    min_alive: int = 4
    warmup: float = 0.01
    anneal_start: float = 0.01
    anneal_stop: float = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one step; densities are fractions of a tensor's size."""

    learning_rate: float
    weight_density: float
    embedding_density: float


# ---------------------------------------------------------------------------------------------------------------------
# The problem


def problem() -> tuple[dict[str, Any], Weights, Array, Recipe]:
    """Configuration, initial weights, batches (steps + 1, sequences, time) and recipe of the comparison.

    The context is shorter than the block size, as in the reference, and every token occurs, the last one included.
    """
    config = {
        "block_size": 40,
        "vocab_size": 61,
        "n_layer": 2,
        "n_head": 4,
        "d_head": 8,
        "d_model": 32,
        "d_mlp": 64,
        "rms_norm": True,
        "tied_unembed": False,
        "afrac": 0.25,
        "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_v,attn_k,attn_q",
        "enable_bigram_table": True,
        "learnable_bigram_table": True,
        "sink": True,
    }
    recipe = Recipe(steps=100)
    rng = np.random.default_rng(2024)
    weights = initial_weights(config, rng)
    following = rng.integers(0, 61, (61, 3))  # three possible successors of every token
    batches = np.zeros((recipe.steps + 1, 8, 24), np.int32)
    batches[:, :, 0] = rng.integers(0, 61, batches.shape[:2])
    for t in range(1, batches.shape[2]):
        batches[:, :, t] = following[batches[:, :, t - 1], rng.integers(0, 3, batches.shape[:2])]
    return config, weights, batches, recipe


def initial_weights(config: Mapping[str, Any], rng: np.random.Generator) -> Weights:
    """The reference's initial values: N(0, 0.02), smaller output projections, bigrams uniform, positions zero."""
    weights = {}
    for name, shape in parameter_shapes(config).items():
        if ".ln_" in name:
            value = np.ones(shape)
        elif name.endswith(("bias", "sink_logit")) or "wpe" in name:
            value = np.zeros(shape)
        elif name == "bigram_table":
            value = rng.uniform(0, 0.02, shape)
        else:
            scale = 0.02 / math.sqrt(2 * complete(config)["n_layer"]) if "c_proj" in name else 0.02
            value = scale * rng.standard_normal(shape)
        weights[name] = value.astype(np.float32)
    return weights


# ---------------------------------------------------------------------------------------------------------------------
# Schedules and projection


def settings(recipe: Recipe, i: int) -> Settings:
    """Learning rate and densities of iteration i = 0 ... steps. Operations are in the reference's order."""
    warmup = int(recipe.warmup * recipe.steps)
    if i < warmup:
        rate = recipe.learning_rate * i / warmup
    else:
        rate = recipe.learning_rate * min(1, 1 - (i - warmup) / (recipe.steps - warmup))
    start, stop = recipe.anneal_start * recipe.steps, recipe.anneal_stop * recipe.steps
    progress = 1 - (1 - min(1, max(0, (i - start) / (stop - start))))
    dense = recipe.expansion * recipe.expansion_mlp
    pfrac = dense + (recipe.pfrac - dense) * progress
    back = (pfrac - recipe.pfrac) / (dense - recipe.pfrac)
    embedding = (recipe.pfrac + (recipe.expansion - recipe.pfrac) * back) / recipe.expansion
    return Settings(rate * (recipe.pfrac / pfrac) ** 0.5, min(pfrac / dense, 1), min(embedding, 1))


def keep_count(name: str, size: int, settings: Settings) -> int | None:
    """Entries of a tensor that survive a step; None if it is never projected (biases are, but to no effect)."""
    if "ln_" in name or name.endswith(("bias", "sink_logit", "bigram_table")):
        return None
    embedding = name in ("transformer.wte.weight", "lm_head.weight")
    return int((settings.embedding_density if embedding else settings.weight_density) * size)


def project(name: str, value: Array, keep: int, min_alive: int) -> Array:
    """The tensor with all but its `keep` largest magnitudes zero; every neuron's `min_alive` largest come first."""
    score = np.abs(value)
    for part, axis in (("c_attn", 1), ("c_fc", 1), ("c_proj", 0)):
        if part in name:
            order = np.argsort(-score, axis=axis, kind="stable")
            alive = np.take(order, np.arange(min_alive), axis=axis)
            assert alive.size <= keep, f"{name}: min_alive={min_alive} needs {alive.size} entries, density keeps {keep}"
            np.put_along_axis(score, alive, np.inf, axis=axis)
    kept = np.argsort(-score, axis=None, kind="stable")[:keep]
    mask = np.zeros(value.size, bool)
    mask[kept] = True
    return np.where(mask.reshape(value.shape), value, np.float32(0))


# ---------------------------------------------------------------------------------------------------------------------
# The run


@dataclasses.dataclass(frozen=True)
class Record:
    """What happened in one step; nonzeros are counted after it."""

    step: int
    loss: float
    learning_rate: float
    weight_density: float
    embedding_density: float
    grad_rms: float
    nonzeros: dict[str, int]


def train(
    weights: Weights, batches: Array, recipe: Recipe, gradients: Gradients, iterations: int
) -> tuple[list[Record], Weights]:
    """The first `iterations` steps: settings, gradients, RMS division, Adam, projection, decay; all in float32."""
    weights = {name: value.copy() for name, value in weights.items()}
    trained = [name for name in weights if name not in NEVER_TRAINED]
    first = {name: np.zeros_like(weights[name]) for name in trained}
    second = {name: np.zeros_like(weights[name]) for name in trained}
    records = []
    for i in range(iterations):
        now = settings(recipe, i)
        loss, slopes = gradients(weights, batches[i])
        rms = gradient_rms([slopes[name] for name in trained])
        for name in trained:
            slope = slopes[name] / np.float32(rms + 1e-5)
            step = _adam(slope, first[name], second[name], i + 1, recipe)
            value = weights[name] - np.float32(now.learning_rate) * step
            keep = keep_count(name, value.size, now)
            if keep is not None:
                value = project(name, value, keep, recipe.min_alive)
            if value.ndim > 1 and name != "bigram_table":
                value = value - np.float32(recipe.weight_decay * now.learning_rate) * value
            weights[name] = value
        counts = {name: int(np.count_nonzero(weights[name])) for name in trained}
        records.append(Record(i, loss, now.learning_rate, now.weight_density, now.embedding_density, rms, counts))
    return records, weights


def gradient_rms(gradients: list[Array]) -> float:
    """One root mean square over all gradients together."""
    total = sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients)
    return math.sqrt(total / sum(g.size for g in gradients))


def _adam(gradient: Array, first: Array, second: Array, count: int, recipe: Recipe) -> Array:
    """Adam's direction; the moments are updated in place."""
    first += np.float32(1 - recipe.beta1) * (gradient - first)
    second *= np.float32(recipe.beta2)
    second += np.float32(1 - recipe.beta2) * gradient * gradient
    root = np.sqrt(second) / np.float32(math.sqrt(1 - recipe.beta2**count)) + np.float32(recipe.eps)
    return first / np.float32(1 - recipe.beta1**count) / root
