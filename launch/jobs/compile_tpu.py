"""The work of launch.compile_tpu."""

import time

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.costs import aot, chips, tpu
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, write_json
from sparse_gpt.training import sharding

from .. import cli


def main(config: Config, chip: chips.Chip) -> None:
    """Flags to one compile, a summary, and compile_tpu.json."""
    f = flags.FLAGS
    devices = chips.devices(f.topology, f.slices)
    searches = f.searches or len(devices)
    if f.program == "search":
        config = tpu.spread_over_all(config, len(devices), searches)
    mesh = sharding.make_mesh(config, devices)
    started = time.perf_counter()
    result: Tree = {
        "format": "sparse_gpt.compile_tpu/1",
        "program": f.program,
        "preset": f.preset or "",
        "config": configs.to_dict(config),
        "topology": f.topology,
        "slices": f.slices,
        "chips": len(devices),
        "mesh": dict(mesh.shape),
        "parameters": aot.parameter_count(config),
    }
    if f.program == "train":
        result |= tpu.describe_train(config, mesh, chip, f.slices, f.compare)
    elif f.program == "bridge":
        result |= tpu.describe_bridge(config, mesh, chip, f.slices)
    else:
        result |= tpu.describe_search(config, mesh, chip, f.slices, searches, f.tokens)
    result["compile_seconds"] = time.perf_counter() - started
    print(tpu.summary(result))
    if f.workdir is not None:
        path = cli.workdir() / "compile_tpu.json"
        write_json(path, result)
        print(f"-> {path}")
    if not result["memory"]["fits"]:
        raise InputError(
            f"--topology={f.topology}: {result['memory']['total'] / 1e9:.1f} GB per chip do not fit into "
            f"{chip.hbm / 1e9:.0f} GB; {aot.WAYS_OUT}"
        )
