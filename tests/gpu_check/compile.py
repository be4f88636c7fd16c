"""Compiles kernels and train steps for an H100 on a machine that has none: what Triton or XLA refuse is seen.

Needs Python 3.12, JAX 0.11 with its CUDA plugin, and ptxas of CUDA 13 on the path; no GPU and no driver:

    pip install jax==0.11.2 ... and, with --no-deps, jax-cuda13-plugin==0.11.2 jax-cuda13-pjrt==0.11.2
    JAX_PLATFORMS=cpu python tests/gpu_check/compile.py [gpu] [1024] [2048]       (which steps; default: all)

Prints memory and seconds of each; exits with 1 at the first that does not compile or fit. Matrix products are not tuned
for the card, so nothing here says how fast it would be.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs import accelerator
from sparse_gpt.sparsity import accelerators, pallas_counts, pallas_rows
from sparse_gpt.training import step

MEMORY = 80e9
# As XLA describes the card; numbers from NVIDIA's data sheet of the H100 SXM.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 } device_description_str: "NVIDIA H100 80GB HBM3"
"""


def compiled(function: Any, place: NamedSharding, *shapes: Any) -> Any:
    """`function` for arrays of these shapes on the card."""
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    with jax.sharding.use_abstract_mesh(place.mesh.abstract_mesh):
        return (function if hasattr(function, "lower") else jax.jit(function)).lower(*placed).compile()


def kernels(place: NamedSharding) -> None:
    """Both, at the widths of the paper's models."""
    for width in (128, 512, 1024, 2048, 4096, 8192):
        for dtype in (jnp.float32, jnp.bfloat16):
            compiled(
                lambda x, k=width // 4: pallas_rows.keep_rows_gpu(x, k), place, jax.ShapeDtypeStruct((64, width), dtype)
            )
    keys, thresholds = jax.ShapeDtypeStruct((2048, 2048), jnp.int32), jax.ShapeDtypeStruct((15,), jnp.int32)
    compiled(pallas_counts.at_least_gpu, place, keys, thresholds)
    print("kernels: compiled", flush=True)


def train_step(name: str, config: Config, place: NamedSharding) -> None:
    """A whole step, and that the kernels are in it."""
    started = time.perf_counter()
    program = compiled(step.compile_step(config), place, step.abstract_state(config), *step.abstract_inputs(config))
    count, stats = program.as_text().count("__gpu$xla.gpu.triton"), program.memory_analysis()
    total = (
        stats.argument_size_in_bytes + stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    )
    took = time.perf_counter() - started
    print(f"step of {name}: {total / 1e9:.1f} GB, {count} kernels of ours, {took:.0f} s to compile", flush=True)
    if not count or total > MEMORY:
        sys.exit("FAILED: no kernel in it, or too large for the card")


def main() -> None:
    """The card, then what is asked for."""
    found = topologies.get_topology_desc("1x1x1", "cuda", target_config=H100, topology="1x1x1")
    place = NamedSharding(Mesh(np.array(found.devices[:1]), ("data",)), PartitionSpec())
    with jax.sharding.use_abstract_mesh(place.mesh.abstract_mesh):
        if accelerators.target() != "cuda":
            sys.exit("FAILED: kernels are not for this device")
    kernels(place)
    for name in sys.argv[1:] or ("gpu", "1024", "2048"):
        config = presets.gpu() if name == "gpu" else accelerator.width_config(int(name), small=False)
        train_step(name, config, place)


if __name__ == "__main__":
    main()
