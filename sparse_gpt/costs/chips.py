"""TPU chips as numbers, and topologies that programs are compiled for without having one."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparse_gpt.errors import InputError

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """Per-chip limits. Bytes, operations per second, bytes per second."""

    hbm: float
    matmul: float  # bfloat16 operations
    vector: float  # 32-bit operations of the vector unit: 8 x 128 lanes x 4 units x cores x clock
    hbm_bandwidth: float
    ici: float  # to other chips of a slice, one way, over the two links of one axis of the torus
    dcn: (
        float  # to other slices, one way: a host's 2 x 100 Gbit/s shared by its 8 chips (other hosts are of that order)
    )
    clock: float  # cycles per second, from the peak: v5e has 4 and v5p 2 x 4 matrix units of 128 x 128


# Cloud TPU documentation, pages "TPU v5e", "TPU v5p", "TPU v6e": memory, bfloat16 peak, HBM and inter-chip bandwidth
# (given there for all links, both ways: 400, 1200 and 800 GB/s; a v5e or v6e chip has 2 axes of links, a v5p chip 3).
# The vector unit's rate is derived from its width and the clock, not documented.
CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(16e9, 197e12, 4096 * 1.5e9, 819e9, 100e9, 3.1e9, 1.5e9),
    "v5p": Chip(95e9, 459e12, 2 * 4096 * 1.75e9, 2765e9, 200e9, 3.1e9, 1.75e9),
    "v6e": Chip(32e9, 918e12, 4096 * 1.75e9, 1638e9, 200e9, 3.1e9, 1.75e9),
}

# Until the first byte arrives; about a microsecond per hop on the ring of 16 that a pod's axis is. An assumption.
COLLECTIVE_LATENCY = 10e-6
DCN_LATENCY = 100e-6  # the same between slices; an assumption too


# For the TPU runtime, which compiles here and never runs. Otherwise it asks a cloud about this machine, complains that
# there is no TPU, and lets only one process load it.
_NO_TPU_HERE: Mapping[str, str] = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def chip(topology: str) -> Chip:
    """The chip that a topology such as "v5e:16x16" is made of. InputError for anything else."""
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        raise InputError(
            f"--topology={topology}: expected CHIP:SHAPE with CHIP one of {', '.join(CHIPS)}, such as v5e:16x16, "
            "v5p:4x4x8 or v6e:16x16"
        )
    return CHIPS[name]


def devices(topology: str, slices: int = 1) -> "Sequence[jax.Device]":
    """Devices of `slices` TPU slices that need not exist.

    Raises:
      InputError: the TPU compiler is not installed, or knows no such topology.
    """
    chip(topology)
    for name, value in _NO_TPU_HERE.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    extra = {"num_slices": slices} if slices > 1 else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **extra).devices
    except Exception as error:  # the plugin raises several kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"--topology={topology}: {reason}{_remedy()}") from error


def _remedy() -> str:
    """What to install, when the TPU compiler is missing."""
    if importlib.util.find_spec("libtpu") is not None:
        return ""
    return (
        "; the TPU compiler comes with `bash launch/environment.sh requirements-tpu.txt .venv-tpu`, then use "
        ".venv-tpu/bin/python"
    )
