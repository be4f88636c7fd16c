"""How long starting takes: fresh processes, from their start to the first result, with an empty and a warm cache of
compiled programs, at quickstart's size."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree

PATIENCE = 600.0  # seconds
CIRCUIT_SHARE = (0.45, 0.75)  # of the training's time: evaluation of tasks, circuit and report, on different processors
# A search of preset quickstart on a random sparse model and random prompts: compiling does not ask what is solved.
FIRST_CHUNK = "from sparse_gpt.costs import startup; startup.first_chunk()"


def startup(rounds: int) -> list[Tree]:
    """Seconds, medians over rounds: of `launch.train` until its first step is logged, and of a process that imports
    what a search needs and does the first chunk of one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = ["--preset=quickstart", "--config.data.sources=idioms:1", "--config.data.tokens=200000"]
        _run([sys.executable, "-m", "sparse_gpt.launch.data", f"--workdir={folder / 'data'}", *data])

        def first_step(cache: Path) -> float:
            workdir = Path(tempfile.mkdtemp(dir=folder))
            corpus = f"--config.data.corpus={folder / 'data' / 'corpus'}"
            command = ["-m", "sparse_gpt.launch.train", "--preset=quickstart", f"--workdir={workdir}", corpus]
            return _seconds([sys.executable, *command], cache, workdir / "metrics.jsonl")

        def chunk(cache: Path) -> float:
            return _seconds([sys.executable, "-c", FIRST_CHUNK], cache)

        return [
            row
            for what, run in (("first training step", first_step), ("first chunk of a search", chunk))
            for row in _with_caches(what, run, folder, rounds)
        ]


def _with_caches(what: str, run: Callable[[Path], float], folder: Path, rounds: int) -> list[Tree]:
    empty, warm = [], []
    for _ in range(rounds):
        cache = Path(tempfile.mkdtemp(dir=folder))
        empty.append(run(cache))
        warm.append(run(cache))
    return [
        {"start": what, "cache": name, "seconds": statistics.median(seconds), "least": min(seconds)}
        for name, seconds in (("empty", empty), ("warm", warm))
    ]


def _seconds(command: list[str], cache: Path, until: Path | None = None) -> float:
    """From the start of a process until the file `until` has a line, when it is killed; or until its end."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and time.perf_counter() - started < PATIENCE:
            if until is not None and until.is_file() and until.stat().st_size:
                seconds = time.perf_counter() - started
                process.kill()
                return seconds
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        process.kill()
        assert process.stderr
        said = process.stderr.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    if process.returncode or until is not None:
        raise InputError(f"{' '.join(command[1:3])}: ended with {process.returncode} before its first step: {said[-1]}")
    return seconds


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command[1:3])}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")


def quickstart(steps: int = 10) -> Tree:
    """Minutes that launch/quickstart.sh will take on this machine, from a few training steps; what is compiled for
    them serves the training too."""
    import jax
    import numpy as np

    from sparse_gpt import presets
    from sparse_gpt.training import schedules
    from sparse_gpt.training.objective import LanguageModel

    config = presets.quickstart()
    model = LanguageModel(config)
    started = time.perf_counter()
    advance, state = model.compile_step(), model.make_state()
    compiled = time.perf_counter() - started
    settings = schedules.settings(config, config.train.steps - 1)
    shape = (config.train.batch_size, config.model.context + 1)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, shape).astype(np.int32)
    seconds = []
    for _ in range(steps + 2):  # the first two make threads and buffers
        started = time.perf_counter()
        state, metrics = advance(state, tokens, np.float32(settings.learning_rate), settings.keep)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    training = (compiled + statistics.median(seconds[2:]) * schedules.iterations(config)) / 60
    low, high = (training * share for share in CIRCUIT_SHARE)
    return {
        "step_ms": 1e3 * statistics.median(seconds[2:]),
        "training_min": training,
        "circuit_min": f"{low:.0f}-{high:.0f}",
    }


def first_chunk() -> None:
    """What the process for a search does."""
    from sparse_gpt import surroundings
    from sparse_gpt.costs import circuit_benchmark

    surroundings.settle()
    circuit_benchmark.first_chunk()
