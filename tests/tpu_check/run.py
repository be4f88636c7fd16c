"""Compiles the train step for a real TPU topology, in an environment of its own; no TPU needed.

    bash launch/environment.sh requirements-tpu.txt .venv-tpu && .venv-tpu/bin/python tests/tpu_check/run.py

Prints what was compiled; exits with 1 when a check fails. The model is small: large ones take minutes to compile.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.costs import chips
from sparse_gpt.errors import InputError
from sparse_gpt.sparsity import pallas_counts, pallas_rows
from sparse_gpt.training import sharding

REPOSITORY = Path(__file__).resolve().parents[2]
TOPOLOGY = "v5e:2x2"
MOST_ALL_REDUCES = 16  # one after another, in the projection of one step, ties or not


def main() -> None:
    """Meshes, and one compile with everything that is promised of the projection."""
    lay_out_presets()
    compile_kernels()
    reported = compile_tiny()
    own = reported["projection"]
    usual, with_ties = (own[key]["all-reduce"]["count"] for key in ("collectives", "collectives_with_ties"))
    check(reported["memory"]["fits"], f"does not fit: {reported['memory']}")
    check(reported["collectives"]["all-gather"]["count"] > 0, "no weight was sharded over the devices")
    check(not own["moved_weights"], f"the projection moves weights: {own['moved_weights']}")
    check(8 < usual <= with_ties <= MOST_ALL_REDUCES, f"8 rounds and one for the remainder, at most {MOST_ALL_REDUCES}")
    check(reported["matmul_operations"] > 0 and reported["bytes_accessed"] > 0, f"work was not counted: {reported}")


def compile_tiny() -> dict[str, Any]:
    """What the script writes about the smallest model, one layer of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "launch.compile_tpu", f"--workdir={folder}", "--preset=tiny"]
        options = ["--config.model.n_layer=1", "--config.train.dtype=bfloat16", "--mesh=data=2,fsdp=2"]
        done = subprocess.run([*command, *options, f"--topology={TOPOLOGY}"], cwd=REPOSITORY, check=False)
        check(done.returncode == 0, f"launch.compile_tpu ended with {done.returncode}")
        reported: dict[str, Any] = json.loads((Path(folder) / "compile_tpu.json").read_text())
        return reported


def compile_kernels() -> None:
    """For every chip, at widths of presets; that they keep the right entries, tests/test_kernels.py checks."""
    for topology in ("v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
        one = NamedSharding(Mesh(np.array(chips.devices(topology)[:1]), ("data",)), PartitionSpec())

        def shape(*dims: int, dtype: Any = jnp.int32, one: NamedSharding = one) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(dims, dtype, sharding=one)

        for width in (128, 2048):
            for dtype in (jnp.float32, jnp.bfloat16):
                select = jax.jit(lambda x, k=width // 4: pallas_rows.keep_rows_tpu(x, k))
                select.lower(shape(100, width, dtype=dtype)).compile()
        for dims in ((2048, 48), (16, 2048), (512, 8192)):
            jax.jit(pallas_counts.at_least_tpu).lower(shape(*dims), shape(15)).compile()
        print(f"kernels compiled for {topology}")


def lay_out_presets() -> None:
    """The meshes of the presets, and those of the documentation, can be laid over the devices they are meant for."""
    meshes = {name: presets.preset(name).train.mesh for name in ("paper_118m", "paper_475m", "paper_1.9b")}
    for name, mesh in meshes.items():
        for topology in ("v5e:16x16", "v6e:16x16"):
            lay_out(name, mesh, topology)
    lay_out("paper_475m", "data=2,fsdp=64", "v5p:4x4x8")
    two = lay_out("paper_475m", "data=4,fsdp=128", "v5e:16x16", slices=2)
    within = {device.slice_index for device in two.devices[0].flat}
    check(len(within) == 1, f"weights are sharded across slices {within}")
    for mesh, slices in (("data=16", 1), ("data=1,fsdp=256,tensor=2", 2)):
        try:
            lay_out("paper_475m", mesh, "v5e:16x16", slices)
        except InputError:
            continue
        check(False, f"{mesh} was laid over {slices} x v5e:16x16")


def lay_out(name: str, mesh: str, topology: str, slices: int = 1) -> Mesh:
    """Device mesh of a preset."""
    config = configs.replace(presets.preset(name), {"train.mesh": mesh})
    return sharding.make_mesh(config, chips.devices(topology, slices))


def check(ok: bool, otherwise: str) -> None:
    """Ends the run with a line unless `ok`."""
    if not ok:
        sys.exit(f"FAILED: {otherwise}")


if __name__ == "__main__":
    main()
