"""What launch/benchmark measures: each function returns rows of plain numbers, timed side by side in rounds."""

import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.circuits import TaskBatch
from sparse_gpt.circuits.circuit import Circuit, nodes_of
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.candidates import CANDIDATES, Candidates
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.standalone.build import extract
from sparse_gpt.circuits.run.standalone.model import StandaloneCircuit
from sparse_gpt.circuits.run.subcircuits import build_subcircuits
from sparse_gpt.circuits.search import hyperparameters, mask_search, paper_search
from sparse_gpt.config import Config
from sparse_gpt.costs.sizes import SIZES
from sparse_gpt.model.taps import site_widths
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params, parameter_table, unflatten
from sparse_gpt.sparsity.topk import joint_cut, keep_mask, magnitude_keys
from sparse_gpt.training import loop, optimizer, schedules, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints
from sparse_gpt.training.run import corpus_batches, prepared_corpus

PYTORCH = {"small": 19_000, "medium": 2_600}  # tokens/s of a PyTorch implementation on two cores of such a machine


def side_by_side(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, after one warm-up, taken in turn so that a drifting machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            if index:
                times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def train_step(size: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Tokens per second of the train step at final density, and what the projection and AbsTopK take of it."""
    base = configs.replace(configs.Config(), {**SIZES[size], "train.dtype": dtype})
    runs = {
        "step": _step(base, project=True),
        "without projection": _step(base, project=False),
        "without AbsTopK": _step(configs.replace(base, {"sparsity.activation_fraction": 0.0}), project=True),
    }
    seconds = side_by_side(runs, rounds)
    tokens = base.train.batch_size * base.model.context
    whole = seconds["step"]
    return {
        "size": size,
        "dtype": dtype,
        "step_ms": 1e3 * whole,
        "tokens_per_second": tokens / whole,
        "ratio_to_pytorch_float32": tokens / whole / PYTORCH[size],
        "projection_share": max(0.0, 1 - seconds["without projection"] / whole),
        "abs_topk_share": max(0.0, 1 - seconds["without AbsTopK"] / whole),
        "peak_memory_gb": peak_memory_gb(),
    }


def _step(config: Config, project: bool) -> Callable[[], Any]:
    """The compiled step with its state, fed the same random batch again and again."""
    state = jax.jit(lambda: step.init_state(config))()
    rng = np.random.default_rng(0)
    shape = (config.train.batch_size, config.model.context + 1)
    tokens = rng.integers(0, config.model.vocab_size, shape).astype(np.int32)
    told = schedules.settings(config, config.train.steps - 1)
    if project:
        step_fn = step.compile_step(config)
    else:
        model = build(config)

        def unprojected(state: step.TrainState, tokens: jax.Array, lr: jax.Array, keep: jax.Array) -> Any:
            del keep
            loss, gradients = step.loss_and_gradients(model, state.params, tokens, 1)
            params, moments, rms = optimizer.update(
                config, state.params, state.optimizer, gradients, lr, lambda params: params
            )
            return step.TrainState(params, moments), {"loss": loss, "grad_rms": rms}

        step_fn = jax.jit(unprojected, donate_argnums=0)
    held = [state]

    def run() -> Any:
        held[0], metrics = step_fn(held[0], tokens, np.float32(told.learning_rate), told.keep)
        return held[0].params, metrics

    return run


def checkpoints(rounds: int) -> dict[str, Any]:
    """What saving the state of preset quickstart takes of its training, at its own frequency.

    The share counts a checkpoint until all of it is on disk, although the loop waits only for the first part of that.
    """
    config = presets.quickstart()
    advance, state = _step(config, project=True), step.make_state(config)
    step_seconds = side_by_side({"step": advance}, rounds)["step"]
    held, written = [], []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as kept:
        for index in range(rounds + 1):  # the first makes folders and starts threads
            started = time.perf_counter()
            kept.save(index, state.params, state.optimizer)
            held.append(time.perf_counter() - started)
            kept.wait()
            written.append(time.perf_counter() - started)
    every = config.train.checkpoint_every
    return {
        "step_ms": 1e3 * step_seconds,
        "loop_waits_ms": 1e3 * float(np.median(held[1:])),
        "on_disk_after_ms": 1e3 * float(np.median(written[1:])),
        "every_steps": every,
        "share_of_training": float(np.median(written[1:])) / (every * step_seconds),
    }


def data_wait(rounds: int, config: Config | None = None) -> dict[str, Any]:
    """What the training loop waits for its batches, over 20 steps a round after the first 20; default: quickstart.

    The corpus is of generated programs, with enough tokens for every step, and is read back as in any run.
    `making_ms` is the processor time of one batch, which a thread spends beside the step.
    """
    config = presets.quickstart() if config is None else config
    steps = 20 * (rounds + 1)
    tokens = steps * config.train.batch_size * config.model.context
    few = {"train.steps": steps, "train.log_every": 20, "train.eval_every": steps, "train.eval_batches": 1}
    config = configs.replace(config, {**few, "data.sources": "idioms:1", "data.tokens": 2 * tokens})
    waited, finished = [], []

    def timed(stream: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        while True:
            started = time.perf_counter()
            batch = next(stream)
            waited.append(time.perf_counter() - started)
            yield batch

    def at_step(step: int, params: Params) -> None:
        if step % 20 == 0:
            jax.block_until_ready(params)
            finished.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        folder, mesh = Path(scratch), sharding.make_mesh(config)
        corpus = prepared_corpus(config, folder, progress=False)
        batches = corpus_batches(config, corpus, mesh)
        watched = dataclasses.replace(batches, train=lambda start: timed(batches.train(start)))
        loop.train(config, folder, watched, at_step=at_step, progress=False, mesh=mesh)
        started = time.process_time()
        for index in range(20):
            corpus.batch("train", 1, index, config.train.batch_size, config.model.context)
        making = (time.process_time() - started) / 20
    whole, waits = finished[-1] - finished[0], sum(waited[20:steps])
    return {
        "steps": steps - 20,
        "step_ms": 1e3 * whole / (steps - 20),
        "waits_ms": 1e3 * waits / (steps - 20),
        "share_of_step": waits / whole,
        "making_ms": 1e3 * making,
    }


def selection(rounds: int, fraction: int, width: int = 2048) -> dict[str, Any]:
    """Keeping 1 / fraction of width x width floats: our counting search against lax.top_k and a full sort.

    The time of lax.top_k depends on k, so a ratio means nothing without it.
    """
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(width, width)), jnp.float32)
    k = weights.size // fraction

    @jax.jit
    def counting(w: jax.Array) -> jax.Array:
        keys = magnitude_keys(w)
        cut = joint_cut([keys], jnp.array([k], jnp.int32))
        return jnp.where(keep_mask(keys, cut.key[0], cut.bound[0]), w, 0)

    def by_threshold(threshold: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        return jax.jit(lambda w: jnp.where(jnp.abs(w) >= threshold(jnp.abs(w).reshape(-1)), w, 0))

    top_k = by_threshold(lambda flat: jax.lax.top_k(flat, k)[0][-1])
    by_sort = by_threshold(lambda flat: jnp.sort(flat)[-k])
    if not all(bool(jnp.array_equal(counting(weights), other(weights))) for other in (top_k, by_sort)):
        raise AssertionError("the three selections disagree")
    seconds = side_by_side(
        {"counting": lambda: counting(weights), "top_k": lambda: top_k(weights), "sort": lambda: by_sort(weights)},
        rounds,
    )
    return {
        "entries": weights.size,
        "k": k,
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        "speedup_over_top_k": seconds["top_k"] / seconds["counting"],
        "speedup_over_sort": seconds["sort"] / seconds["counting"],
    }


def search_steps(populations: tuple[int, ...], time_steps: int, rounds: int, pairs: int = 64) -> list[dict[str, Any]]:
    """Mask-optimisation steps per second with 1, 4, 8, ... parallel searches on a random sparse model."""
    config = configs.replace(configs.Config(), dict(SIZES["small"]))
    rng = np.random.default_rng(0)
    params = _random_sparse(config, rng)
    ablation = {
        site: np.zeros((config.model.n_layer, width), np.float32) for site, width in site_widths(config.model).items()
    }
    gated = gated_model(config, params, ablation)
    mask = {site: jnp.asarray(value, jnp.float32) for site, value in searchable(config.model, params).items()}
    count, steps = 2 * pairs, 4

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(0, config.model.vocab_size, shape).astype(np.int32)

    positions = np.full((steps, count), time_steps - 1, np.int32)
    batches = TaskBatch(ids(steps, count, time_steps), positions, ids(steps, count), ids(steps, count))

    def runner(size: int) -> Callable[[], Any]:
        h = hyperparameters.population(dataclasses.replace(config.prune, seeds=size, k_coefs="1e-4"))
        held = [paper_search.initial_states(h, mask)]

        def run() -> Any:
            held[0], metrics = mask_search.advance(gated, mask, h, held[0], jnp.int32(0), batches, 400)
            return metrics

        return run

    seconds = side_by_side({str(size): runner(size) for size in populations}, rounds)
    alone = seconds[str(populations[0])]
    return [
        {
            "searches": size,
            "sequences": count,
            "tokens": time_steps,
            "step_ms": 1e3 * seconds[str(size)] / steps,
            "ms_per_search": 1e3 * seconds[str(size)] / steps / size,
            "steps_per_second": steps / seconds[str(size)],
            "cost_against_one": seconds[str(size)] / alone,
        }
        for size in populations
    ]


def first_chunk(time_steps: int = 32) -> None:
    """The first chunk of the search of preset quickstart, on a random sparse model and random prompts."""
    config, rng = presets.quickstart(), np.random.default_rng(0)
    params = _random_sparse(config, rng)
    count, chunk = 2 * config.prune.batch_pairs, {"prune.ablation": "zero", "prune.steps": mask_search.CHUNK}

    def ids(*shape: int) -> np.ndarray:
        return rng.integers(0, config.model.vocab_size, shape).astype(np.int32)

    prompts = TaskBatch(ids(count, time_steps), np.full(count, time_steps - 1, np.int32), ids(count), ids(count))
    model = LoadedModel(configs.replace(config, chunk), params)
    problem = Problem.build(model, TaskSamples(prompts, prompts, prompts))
    mask_search.search(problem, hyperparameters.population(config.prune), progress=False)


def circuit_alone(rounds: int, nodes_per_site: int, pairs: int = 64, time_steps: int = 32) -> dict[str, Any]:
    """Answer logits of a random circuit: the gated model against the circuit on its own. And of candidates that are
    parts of it, as refinement tries them: in the whole model against within the circuit's nodes."""
    config = configs.replace(configs.Config(), dict(SIZES["small"]))
    rng = np.random.default_rng(0)
    widths, layers = site_widths(config.model), config.model.n_layer
    gates = {site: np.zeros((layers, width), np.float32) for site, width in widths.items()}
    for site, width in widths.items():
        for layer in range(layers):
            gates[site][layer, rng.choice(width, nodes_per_site, replace=False)] = 1
    values = {site: 0.1 * rng.normal(size=gate.shape).astype(np.float32) for site, gate in gates.items()}
    gated, nodes = gated_model(config, _random_sparse(config, rng), values), nodes_of(gates)
    circuit = Circuit("random", "", "mean", "live", 0.15, 1.0, (), False, nodes, (), {}, values)
    count, vocabulary = 2 * pairs, config.model.vocab_size
    tokens, answer, foil = (
        rng.integers(0, vocabulary, shape).astype(np.int32) for shape in ((count, time_steps), count, count)
    )
    batch = TaskBatch(tokens, np.full(count, time_steps - 1, np.int32), answer, foil)
    whole = jax.jit(lambda gated, gates, batch: gated.answer_logits(gates, batch))
    own, alone = extract(gated, circuit), jax.jit(StandaloneCircuit.answer_logits)
    expected, found = whole(gated, gates, batch), alone(own, batch)
    anywhere = Evaluator(gated, batch, NO_TOKENS)
    within = dataclasses.replace(anywhere, subcircuits=build_subcircuits(gated, gates))
    parts = Candidates(to_vector(gates) * (rng.random((CANDIDATES, anywhere.nodes)) < 0.9).astype(np.float32))
    runs = {
        "gated": lambda: whole(gated, gates, batch),
        "alone": lambda: alone(own, batch),
        "candidates": lambda: anywhere.logits(parts),
        "candidates_within": lambda: within.logits(parts),
    }
    seconds = side_by_side(runs, rounds)
    return {
        "nodes": len(nodes),
        "sequences": count,
        "tokens": time_steps,
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        "speedup": seconds["gated"] / seconds["alone"],
        "speedup_within": seconds["candidates"] / seconds["candidates_within"],
        "largest_difference": float(jnp.max(jnp.abs(expected - found)) / jnp.std(expected)),
    }


def _random_sparse(config: Config, rng: np.random.Generator) -> Params:
    """Parameters at the configured density; values do not matter for speed, the zeros do."""
    leaves = {}
    for path, spec in parameter_table(config.model).items():
        value = rng.normal(size=spec.shape) * (rng.random(spec.shape) < config.sparsity.density)
        leaves[path] = (np.ones(spec.shape) if spec.init == "ones" else value).astype(np.float32)
    return unflatten(leaves)
