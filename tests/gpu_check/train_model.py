"""Trains a preset until a deadline with its whole schedule, evaluates and writes it. A part of train.py.

The number of steps follows from the time that is left and from measured steps, so that density and learning rate end
where they should. Should the run be slower than measured all the same, it is stopped in time and saved as it is.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.interop import openai_weights
from sparse_gpt.sparsity import accelerators
from sparse_gpt.training import loop, manifest, schedules, sharding
from sparse_gpt.training.objective import Advance, LanguageModel
from sparse_gpt.training.run import corpus_batches, train_on_corpus
from tests.gpu_check.kit import tell

FOR_THE_REST = 0.16  # of all time: evaluation, files, and what was measured wrongly
SLOWER = 1.08  # steps with logs, evaluations and checkpoints, against steps alone


def measured_step(config: Config, model: LanguageModel, advance: Advance, rounds: int = 40) -> float:
    """Seconds of a step with its data, one after the other as the loop takes them; compiled and warm."""
    state, told = model.make_state(), schedules.settings(config, config.train.steps - 1)
    stream = corpus_batches(config, Corpus.open(config.data.corpus), sharding.make_mesh(config)).train(0)
    for index in range(rounds + 5):
        if index == 5:
            jax.block_until_ready(state)
            started = time.perf_counter()
        state, _ = advance(state, next(stream), np.float32(told.learning_rate), told.keep)
    jax.block_until_ready(state)
    return (time.perf_counter() - started) / rounds


def scheduled(config: Config, step_seconds: float, seconds: float) -> Config:
    """The configuration with as many steps as fit, and a few logs, evaluations and checkpoints among them."""
    steps = max(20, int(seconds / (SLOWER * step_seconds)))
    every = {
        "log_every": max(1, steps // 100),
        "eval_every": max(1, steps // 8),
        "checkpoint_every": max(1, steps // 4),
    }
    return configs.replace(config, {"train.steps": steps, **{f"train.{name}": value for name, value in every.items()}})


def wait_for(corpus: Path, until: float) -> None:
    """Until the corpus is whole; it is made by another process."""
    while not (corpus / "manifest.json").is_file():
        if time.monotonic() > until:
            sys.exit(f"{corpus}: not there in time")
        time.sleep(0.2)


def write_params(config: Config, params: Any, path: Path) -> None:
    """Every tensor under the reference's name, as --init_from reads them, compressed."""
    np.savez_compressed(path, **openai_weights.to_tensors(config.model, params))


def main(argv: Sequence[str] | None = None) -> int:
    """One run. Exit code 1 when it had to be stopped before its last step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline", type=float, required=True, help="on this machine's monotonic clock")
    args = parser.parse_args(argv)
    started = time.monotonic()
    stop = args.deadline - FOR_THE_REST * (args.deadline - started)
    config = configs.replace(presets.preset(args.preset), {"data.corpus": str(args.corpus)})
    model = LanguageModel(config)
    advance = model.compile_step()
    compiled = time.monotonic()
    wait_for(args.corpus, stop)
    there = time.monotonic()
    step_seconds = measured_step(config, model, advance)
    begun = time.monotonic()
    config = configs.validate(scheduled(config, step_seconds, stop - begun))
    tokens = config.train.batch_size * config.model.context
    plan = {
        "device": jax.devices()[0].device_kind,
        "kernels": accelerators.target() or "plain",
        "step_ms": 1e3 * step_seconds,
        "tokens_per_second": tokens / step_seconds,
        "steps": config.train.steps,
        "tokens": tokens * config.train.steps,
        "seconds_to_compile": compiled - started,
        "seconds_for_corpus_then": there - compiled,
        "seconds_to_measure": begun - there,
    }
    tell(**plan)

    # The loop saves and returns at a signal; half of what is kept for the rest may be used up by then.
    timer = threading.Timer(max(1.0, (stop + args.deadline) / 2 - begun), os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        result = train_on_corpus(config, args.workdir, progress=False)
    except loop.NonFiniteLossError as error:
        sys.exit(f"{error}")
    timer.cancel()
    trained = time.monotonic()
    write_params(config, result.params, args.out / "params.npz")
    for name in ("config.json", "manifest.json", "metrics.jsonl"):
        shutil.copy(args.workdir / name, args.out / name)
    logged = [json.loads(each) for each in (args.workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [each["val_loss"] for each in logged if "val_loss" in each]
    sha256 = manifest.params_sha256(result.params)
    tell(
        finished=result.step,
        stopped_early=result.interrupted,
        seconds_to_train=trained - begun,
        validation_loss=losses[-1] if losses else None,
        params_sha256=sha256,
    )
    line = tasks_solved.write(args.workdir, config, result.params, sha256)
    shutil.copy(args.workdir / "evaluation.json", args.out / "evaluation.json")
    tell(seconds_to_evaluate=time.monotonic() - trained, solved=line)
    return int(result.interrupted)


if __name__ == "__main__":
    sys.exit(main())
