"""Two real processes of four devices each are one run of eight devices; mistakes in joining them end in one line."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.errors import InputError
from sparse_gpt.training import distributed, loop, manifest, run, sharding
from sparse_gpt.training.checkpoint import load_params

REPOSITORY = Path(__file__).resolve().parent.parent
MESH = "fsdp=8"  # one group of all eight: gloo connects groups one by one and can time out on a busy machine
OVERRIDES = {
    "model.n_layer": 1, "model.d_model": 16, "model.d_mlp": 32, "model.vocab_size": 32, "model.context": 8,
    "sparsity.density": 0.5, "train.checkpoint_every": 2, "train.log_every": 2, "train.mesh": MESH,
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def start(workdir: Path, batches: Path, port: int, index: int) -> "subprocess.Popen[str]":
    """Process `index` of two."""
    flags = [f"--config.{name}={value}" for name, value in OVERRIDES.items()]
    flags += [f"--workdir={workdir}", f"--batches={batches}", "--preset=tiny", "--distributed"]
    flags += [f"--coordinator=localhost:{port}", "--process_count=2", f"--process_index={index}"]
    command = [sys.executable, "-m", "launch.train", *flags]
    # NPROC: a thread for every device, also where there are fewer processors; connecting blocks a thread.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "NPROC": "8"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(workdir: Path, tmp_path: Path) -> None:
    config = configs.replace(presets.tiny(), OVERRIDES | {"train.steps": 3})
    tokens = np.random.default_rng(0).integers(0, 32, (3, config.train.batch_size, 9)).astype(np.int32)
    np.save(tmp_path / "batches.npy", tokens)
    port = free_port()
    processes = [start(workdir, tmp_path / "batches.npy", port, index) for index in (0, 1)]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "trained 3 steps" in outputs[0][0]
    assert "trained" not in outputs[1][0], "only process 0 speaks"
    held = json.loads((workdir / "manifest.json").read_text())
    assert held["device_count"] == 8
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 2

    mesh = sharding.make_mesh(config)
    given = run.given_batches(tokens, mesh)
    alone = loop.train(config, workdir / "alone", given, progress=False, mesh=mesh)
    params, finished = load_params(workdir, config.model)
    assert finished == 3
    assert held["params_sha256"] == manifest.params_sha256(params)
    # Across processes, gloo adds up floats in another order than the all-reduce within a process does.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, alone.params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", None, 0), "--process_count: missing"),
        ((None, 2, 0), "--coordinator: missing"),
        (("localhost", 2, 0), "expected HOST:PORT"),
        (("localhost:99999", 2, 0), "expected HOST:PORT"),
        (("localhost:1", 2, 2), r"--process_index=2: must be in \[0, process_count=2\)"),
        (("localhost:1", 0, 0), "--process_count=0: must be at least 1"),
        (("localhost:1", 2, 1), "not reached within 0 s"),
    ],
)
def test_what_cannot_be_joined_is_named(given: tuple[str | None, int | None, int | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distributed.initialize(*given, wait_seconds=0)


@pytest.mark.slow
def test_outside_a_cluster_the_flag_does_not_fall_back(
    launch: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    done = launch("train", "--preset=tiny", "--workdir=unused", "--distributed")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --distributed: no cluster found")
    assert not (REPOSITORY / "unused").exists()


@pytest.mark.slow
def test_a_process_that_waits_in_vain_ends_in_one_line(
    launch: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    joining = [f"--coordinator=localhost:{free_port()}", "--process_count=2", "--process_index=0", "--wait=2"]
    done = launch("train", "--preset=tiny", "--workdir=unused", "--distributed", *joining)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "the 2 processes did not come together within 2 s" in done.stderr
    assert not (REPOSITORY / "unused").exists()
