"""What a program compiled for a TPU slice needs and how fast it could be: as numbers, and as lines for people."""

import time
from typing import NamedTuple

from jax.sharding import Mesh

from sparse_gpt import config as configs
from sparse_gpt.bridges.dense import check_pair, dense_config
from sparse_gpt.config import Config
from sparse_gpt.costs import aot, chips
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.training import sharding


class Wanted(NamedTuple):
    """What is compiled, and for which slice: flags of launch.compile_tpu."""

    program: str
    topology: str
    slices: int
    searches: int
    tokens: int
    compare: bool


def describe(config: Config, chip: chips.Chip, wanted: Wanted) -> Tree:
    """What the program needs, as compile_tpu.json has it. InputError if it cannot be compiled."""
    devices = chips.devices(wanted.topology, wanted.slices)
    searches = wanted.searches or len(devices)
    if wanted.program == "search":
        config = spread_over_all(config, len(devices), searches)
    mesh = sharding.make_mesh(config, devices)
    started = time.perf_counter()
    result: Tree = {
        "format": "sparse_gpt.compile_tpu/1",
        "program": wanted.program,
        "config": configs.to_dict(config),
        "topology": wanted.topology,
        "slices": wanted.slices,
        "chips": len(devices),
        "mesh": dict(mesh.shape),
        "parameters": aot.parameter_count(config),
    }
    if wanted.program == "train":
        result |= describe_train(config, mesh, chip, wanted.slices, wanted.compare)
    elif wanted.program == "bridge":
        result |= describe_bridge(config, mesh, chip, wanted.slices)
    else:
        result |= describe_search(config, mesh, chip, wanted.slices, searches, wanted.tokens)
    return result | {"compile_seconds": time.perf_counter() - started}


def refuse_too_large(result: Tree, chip: chips.Chip) -> None:
    """InputError where a described program needs more than a chip has."""
    if not result["memory"]["fits"]:
        raise InputError(
            f"--topology={result['topology']}: {result['memory']['total'] / 1e9:.1f} GB per chip do not fit into "
            f"{chip.hbm / 1e9:.0f} GB; {aot.WAYS_OUT}"
        )


def spread_over_all(config: Config, chip_count: int, searches: int) -> Config:
    """The mask search shards its population over all chips, whatever the mesh and batch of training."""
    if searches % chip_count:
        raise InputError(f"--searches={searches}: must be a multiple of the {chip_count} chips")
    return configs.replace(config, {"train.mesh": "", "train.batch_size": chip_count, "train.microbatches": 1})


def describe_train(config: Config, mesh: Mesh, chip: chips.Chip, slices: int, compare: bool = False) -> Tree:
    """The train step; with `compare` also without the projection."""
    result = aot.describe(aot.fitting(lambda: aot.compile_train(config, mesh), chip), chip, slices)
    tokens = config.train.batch_size * config.model.context
    result["tokens_per_second"] = tokens / result["seconds"]
    result["model_flops_utilization"] = (
        6 * aot.parameter_count(config) * tokens / mesh.size / chip.matmul / result["seconds"]
    )
    if compare:
        without = aot.fitting(lambda: aot.compile_train(config, mesh, project=False), chip)
        result["without_projection"] = aot.describe(without, chip, slices)
    return result


def describe_bridge(config: Config, mesh: Mesh, chip: chips.Chip, slices: int) -> Tree:
    """The step of a bridged run."""
    dense = dense_config(config)
    check_pair(dense, config)
    result = aot.describe(aot.fitting(lambda: aot.compile_bridge(config, mesh), chip), chip, slices)
    tokens = config.train.batch_size * config.model.context
    return result | {
        "dense_parameters": aot.parameter_count(dense),
        "tokens_per_second": tokens / result["seconds"],
    }


def describe_search(config: Config, mesh: Mesh, chip: chips.Chip, slices: int, searches: int, time_steps: int) -> Tree:
    """A step of the mask search on samples of `time_steps` tokens."""
    program = aot.fitting(lambda: aot.compile_search(config, mesh, searches, time_steps), chip)
    result = aot.describe(program, chip, slices)
    return result | {"searches": searches, "tokens_per_sample": time_steps}


def summary(result: Tree) -> str:
    """A few lines for people."""
    memory, rest = result["memory"], result["rest"]
    gb = {key: memory[key] / 1e9 for key in ("total", "arguments", "temporaries", "outputs", "chip")}
    mesh = ",".join(f"{axis}={size}" for axis, size in result["mesh"].items())
    sizes = f"{result['parameters'] / 1e6:.0f}M parameters"
    if "dense_parameters" in result:
        sizes += f" and a dense one of {result['dense_parameters'] / 1e6:.0f}M"
    lines = [
        f"{result['program']}, {result['preset'] or 'model'} of {sizes}, on "
        f"{result['slices']} x {result['topology']} ({result['chips']} chips, {mesh})",
        f"memory per chip  {gb['total']:.2f} of {gb['chip']:.0f} GB (arguments {gb['arguments']:.2f}, temporaries "
        f"{gb['temporaries']:.2f}): {'fits' if memory['fits'] else 'DOES NOT FIT'}",
        f"work per chip    {result['matmul_operations'] / 1e12:.3f} TFLOP of matrix products, "
        f"{result['vector_operations'] / 1e9:.1f}G vector operations, {result['bytes_accessed'] / 1e9:.2f} GB of HBM "
        "traffic",
        *_collective_lines(result["collectives"]),
        f"step, at best    {1e3 * result['seconds']:.2f} ms (matrix units {1e3 * rest['matmul']:.2f}, vector units "
        f"{1e3 * rest['vector']:.2f}, HBM {1e3 * rest['memory']:.2f}, network {1e3 * rest['communication']:.2f} and "
        f"{1e3 * rest['overlapped']:.2f} overlapped); {1e3 * result['seconds_by_compiler']:.2f} ms by the compiler's "
        "own estimate",
    ]
    if "tokens_per_second" in result:
        lines += [
            _projection_line(result),
            f"AbsTopK          {result['abs_topk']['share_by_compiler']:.1%} of the step by the compiler's estimate",
            f"at best          {result['tokens_per_second'] / 1e6:.2f}M tokens/s",
        ]
    else:
        lines.append(f"searches         {result['searches']}, samples of {result['tokens_per_sample']} tokens")
    return "\n".join(lines)


def _collective_lines(total: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"{kind:<16} {sums['count']} x, {sums['bytes'] / 1e6:.2f} MB in all" for kind, sums in sorted(total.items())
    ]


def _projection_line(result: Tree) -> str:
    projection = result["projection"]
    reductions, with_ties = (
        projection[key].get("all-reduce", {"count": 0})["count"] for key in ("collectives", "collectives_with_ties")
    )
    return (
        f"projection       {projection['share']:.1%} of the step ({projection['share_by_compiler']:.1%} by the "
        f"compiler's estimate), {1e3 * projection['roofline']['seconds']:.2f} ms; {len(projection['moved_weights'])} "
        f"gathers of weights, {reductions} all-reduces of counts ({with_ties} with ties)"
    )
