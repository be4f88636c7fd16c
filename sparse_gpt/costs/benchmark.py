"""What launch/benchmark measures: each function returns rows of plain numbers, timed side by side in rounds."""

import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs.sizes import SIZES
from sparse_gpt.io import Tree
from sparse_gpt.parameters import Params, PyTree
from sparse_gpt.sparsity.topk import joint_thresholds, keep_mask, magnitude_keys
from sparse_gpt.training import loop, schedules, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints
from sparse_gpt.training.run import corpus_batches, prepared_corpus


def side_by_side(runs: Mapping[str, Callable[[], PyTree]], rounds: int) -> dict[str, float]:
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


def train_step(size: str, dtype: str, rounds: int) -> Tree:
    """Tokens per second of the train step at final density, and what the projection and AbsTopK take of it."""
    base = configs.replace(configs.Config(), {**SIZES[size], "train.dtype": dtype})
    runs = {
        "step": compiled_step(base, project=True),
        "without projection": compiled_step(base, project=False),
        "without AbsTopK": compiled_step(configs.replace(base, {"sparsity.activation_fraction": 0.0}), project=True),
    }
    seconds = side_by_side(runs, rounds)
    tokens = base.train.batch_size * base.model.context
    whole = seconds["step"]
    return {
        "size": size,
        "dtype": dtype,
        "step_ms": 1e3 * whole,
        "tokens_per_second": tokens / whole,
        "projection_share": max(0.0, 1 - seconds["without projection"] / whole),
        "abs_topk_share": max(0.0, 1 - seconds["without AbsTopK"] / whole),
        "peak_memory_gb": peak_memory_gb(),
    }


def compiled_step(config: Config, project: bool) -> Callable[[], PyTree]:
    """The compiled step with its state, fed the same random batch again and again."""
    state = jax.jit(lambda: step.init_state(config))()
    rng = np.random.default_rng(0)
    shape = (config.train.batch_size, config.model.context + 1)
    tokens = rng.integers(0, config.model.vocab_size, shape).astype(np.int32)
    settings = schedules.settings(config, config.train.steps - 1)
    step_fn = step.compile_step(config, project=project)
    held = [state]

    def run() -> PyTree:
        held[0], metrics = step_fn(held[0], tokens, np.float32(settings.learning_rate), settings.keep)
        return held[0].params, metrics

    return run


def checkpoints(rounds: int) -> Tree:
    """What saving the state of preset quickstart takes of its training, at its own frequency.

    The share counts a checkpoint until all of it is on disk, although the loop waits only for the first part of that.
    """
    config = presets.quickstart()
    advance, state = compiled_step(config, project=True), step.make_state(config)
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


def data_wait(rounds: int, config: Config | None = None) -> Tree:
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
        if step and step % 20 == 0:
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


def selection(rounds: int, fraction: int, width: int = 2048) -> Tree:
    """Keeping 1 / fraction of width x width floats: our counting search against lax.top_k and a full sort.

    The time of lax.top_k depends on k, so a ratio means nothing without it.
    """
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(width, width)), jnp.float32)
    k = weights.size // fraction

    @jax.jit
    def counting(w: jax.Array) -> jax.Array:
        keys = magnitude_keys(w)
        threshold = joint_thresholds([keys], jnp.array([k], jnp.int32))
        return jnp.where(keep_mask(keys, threshold.key[0], threshold.bound[0]), w, 0)

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
