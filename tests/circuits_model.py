"""A small random sparse model and a task it can do by construction, for the circuit tests.

The task: after TIME random tokens, which of two tokens does the model itself prefer? Samples on which it is undecided
are left out, so the full model's task loss is small.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits import TaskBatch, TaskSamples
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, from_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.config import Config, ModelConfig, PruneConfig, SparsityConfig, TrainConfig
from sparse_gpt.interop.openai_config import to_fields
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.model.taps import site_widths
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params, parameter_table, unflatten
from tests import reference_model

VOCABULARY, TIME = 24, 8
ANSWERS = (3, 7)
SEARCH = PruneConfig(
    steps=30,
    seeds=2,
    k_coefs=(1e-3,),
    batch_pairs=8,
    learning_rate=2e-2,
    random_draws=4,
    target_loss=0.3,
    selection_margin=0.5,
)
"""Long enough to find something in this model."""


def config(activation_fraction: float = 0.0, prune: PruneConfig | None = None, **model: Any) -> Config:
    """A model with 2 layers of 16 channels, without AbsTopK; keywords override fields of its ModelConfig."""
    sizes = {
        "n_layer": 2,
        "d_model": 16,
        "n_head": 2,
        "d_head": 4,
        "d_mlp": 24,
        "vocab_size": VOCABULARY,
        "context": 16,
    }
    return Config(
        model=ModelConfig(**{**sizes, **model}),
        sparsity=SparsityConfig(density=0.3, activation_fraction=activation_fraction, min_alive=0),
        train=TrainConfig(steps=1),
        prune=prune
        or PruneConfig(steps=20, seeds=2, k_coefs=(1e-3,), batch_pairs=8, learning_rate=1e-2, random_draws=4),
    )


def params(config: Config, seed: int = 0, density: float = 0.3) -> Params:
    """Random weights; matrices are sparse, and nothing that could be forgotten is zero."""
    rng = np.random.default_rng(seed)

    def make(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        value = rng.standard_normal(shape)
        if kind == "norm":
            value = 1 + 0.2 * value
        elif kind in ("matrix", "embedding"):
            value *= (rng.random(shape) < density) / np.sqrt(density * shape[0]) * 2
        else:
            value *= 0.3
        return value.astype(np.float32)

    return unflatten({path: make(spec.kind, spec.shape) for path, spec in parameter_table(config.model).items()})


def random_vectors(config: Config, seed: int = 0) -> GateArrays:
    """Random numbers for every node, to serve as ablation values."""
    rng = np.random.default_rng(seed)
    layers = config.model.n_layer
    return {
        site: rng.standard_normal((layers, width)).astype(np.float32) / 2
        for site, width in site_widths(config.model).items()
    }


def random_gates(config: Config, seed: int, share: float = 0.5) -> GateArrays:
    """About `share` of all gates open."""
    nodes = config.model.n_layer * sum(site_widths(config.model).values())
    return from_vector((np.random.default_rng(seed).random(nodes) < share).astype(np.float32), config.model)


def gated(config: Config, seed: int = 0) -> GatedModel:
    """The random model with random ablation values."""
    return gated_model(config, params(config, seed), random_vectors(config, seed + 1))


def search_problem(config: Config, searchable: GateArrays, train: TaskBatch) -> Problem:
    """What a mask search alone needs: the random model, which of its nodes may be opened, and training samples."""
    model, one = gated(config), LoadedModel(config, params(config))
    evaluator = Evaluator(model, train, NO_TOKENS)
    graph = ModelGraph(config.model, one.params, config.prune.tie_qk)
    return Problem(one, TaskSamples(train, train, train), model, train, evaluator, evaluator, graph, searchable)


def batch(size: int, seed: int) -> TaskBatch:
    """Random prompts of different lengths with random answers."""
    rng = np.random.default_rng(seed)
    answer = rng.integers(0, VOCABULARY, size).astype(np.int32)
    return TaskBatch(
        rng.integers(0, VOCABULARY, (size, TIME)).astype(np.int32),
        rng.integers(2, TIME, size).astype(np.int32),
        answer,
        ((answer + 1) % VOCABULARY).astype(np.int32),
    )


def samples(
    config: Config, params: Params, pairs: int = 24, answers: tuple[int, int] = ANSWERS, shifted: bool = True
) -> TaskSamples:
    """Samples of the task described above, for two answers."""
    seeds = (1, 2, 3, 4) if shifted else (1, 2, 3)
    parts = [_decided(config, params, pairs, seed, answers) for seed in seeds]
    return TaskSamples(*parts[:3], parts[3] if shifted else None, ("toy",))


def _decided(config: Config, params: Params, pairs: int, seed: int, answers: tuple[int, int]) -> TaskBatch:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCABULARY, (2048, TIME)).astype(np.int32)
    last = np.full(len(tokens), TIME - 1, np.int32)
    logits = np.asarray(_logits(build(config), params, tokens, last))[:, list(answers)]
    margin = logits[:, 0] - logits[:, 1]
    margin -= np.median(margin)  # whichever token it leans to, both answers occur
    order = np.argsort(margin)
    chosen = np.stack([order[-pairs:], order[:pairs]], axis=1).reshape(-1)
    answer = np.tile(np.array(answers, np.int32), pairs)
    return TaskBatch(tokens[chosen], last[chosen], answer, answer.reshape(-1, 2)[:, ::-1].reshape(-1))


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Any, params: Params, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    return jnp.asarray(model.apply({"params": params}, tokens, positions=positions))[:, 0]


def reference_answer_logits(
    config: Config, params: Params, batch: TaskBatch, circuit: dict[str, Any], ablation: GateArrays
) -> np.ndarray:
    """(B, 2) calibrated answer and foil logits by tests/reference_model.py, float64, from the files' contents alone."""
    fields, weights = to_fields(config), to_tensors(config.model, params)
    support = reference_model.circuit_support(fields, circuit, ablation)
    if support.edges is not None:  # only weights between two nodes of the circuit can be pruned; the others stay
        edges = {
            site: np.where(
                support.keep[site][:, :, None] & support.keep[reference_model.EDGE_SOURCE[site]][:, None, :], kept, 1.0
            )
            for site, kept in support.edges.items()
        }
        support = dataclasses.replace(support, edges=edges)
    logits, _ = reference_model.forward(fields, weights, batch.tokens, support)
    at_end = circuit["calibration"]["scale"] * logits[np.arange(len(batch.positions)), batch.positions]
    for token, value in circuit["calibration"]["shift"]:
        at_end[:, token] += value
    return np.take_along_axis(at_end, np.stack([batch.answer, batch.foil], axis=1), axis=1)
