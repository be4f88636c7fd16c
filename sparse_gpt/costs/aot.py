"""Compiles the train step, that of a bridged run and the mask search for devices that need not exist, and says what a
step costs there."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_gpt.bridges.dense import dense_config
from sparse_gpt.bridges.training import BridgeProgram
from sparse_gpt.circuits import TaskBatch
from sparse_gpt.circuits.nodes import Gates
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.search import hyperparameters, mask_search, paper_search
from sparse_gpt.config import NODE_SITES, Config
from sparse_gpt.costs.chips import COLLECTIVE_LATENCY, DCN_LATENCY, Chip
from sparse_gpt.costs.collectives import BETWEEN_SLICES, Collective, find_collectives, total_by_kind
from sparse_gpt.costs.work import Work, count_work
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import site_widths
from sparse_gpt.model.transformer import build_exact
from sparse_gpt.parameters import PyTree, parameter_table
from sparse_gpt.training import sharding, step

PROJECTION, ABS_TOPK = "projection", "abs_topk"  # the named scopes of sparsity/projection.py and sparsity/topk.py

WAYS_OUT = "more fsdp in --mesh, --config.train.remat=true, more microbatches, or fewer --searches"
MOST_COUNT_BYTES = 64 * 1024  # a round counts 15 candidates of every tensor: 9 kB for the presets' 150 tensors

Shape = jax.ShapeDtypeStruct
Program = Any  # a jax.stages.Compiled, which by its annotations may know neither its text nor its memory


def compile_train(config: Config, mesh: Mesh, project: bool = True) -> Program:
    """The compiled train step; without the projection for comparison."""
    state = step.abstract_state(config, mesh)
    return step.compile_step(config, mesh, project).lower(state, *step.abstract_inputs(config)).compile()


def compile_bridge(config: Config, mesh: Mesh) -> Program:
    """The compiled step of a bridged run, with the dense model that launch.bridge would train for it."""
    program = BridgeProgram(config, mesh, dense_config(config))
    state, dense = program.abstract_state(), program.abstract_dense()
    return program.compile_step().lower(state, dense, *step.abstract_inputs(config)).compile()


def compile_search(config: Config, mesh: Mesh, searches: int, time_steps: int) -> Program:
    """One step of the mask search, its population sharded over all devices of the mesh, the weights replicated.

    Args:
      config: the model, and prune.batch_pairs.
      mesh: devices.
      searches: size of the population; a multiple of the number of devices.
      time_steps: tokens per sample.

    Raises:
      InputError: prune.search is not the paper's.
    """
    if config.prune.search != "paper":
        raise InputError(
            f"--config.prune.search={config.prune.search}: only the paper's search is compiled for chips; "
            "give --config.prune.search=paper"
        )
    replicated = sharding.replicated(mesh)
    sharded = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    widths = site_widths(config.model)
    gates = {site: Shape((config.model.n_layer, widths[site]), jnp.float32) for site in NODE_SITES}

    def place(where: NamedSharding, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: Shape(x.shape, x.dtype, sharding=where), tree)

    params = step.abstract_state(config).params
    h, states = _searches(config, gates, searches)
    count = 2 * config.prune.batch_pairs
    ids = Shape((1, count), jnp.int32)
    batch = TaskBatch(Shape((1, count, time_steps), jnp.int32), ids, ids, ids)
    gated = GatedModel(
        place(replicated, params), place(replicated, gates), build_exact(config), config.prune.norm == "frozen"
    )
    first = Shape((), jnp.int32, sharding=replicated)
    arguments = (
        gated,
        place(replicated, gates),
        place(sharded, h),
        place(sharded, states),
        first,
        place(replicated, batch),
    )
    static = {"steps": config.prune.steps, "mesh": mesh, "tie_qk": config.prune.tie_qk}
    return mask_search.advance.lower(*arguments, **static).compile()


def _searches(config: Config, gates: Gates, searches: int) -> tuple[PyTree, PyTree]:
    """Shapes of the hyperparameters and states of a population: one search's, with another leading axis."""
    one = jax.tree.map(lambda x: x[:1], hyperparameters.population(config.prune))
    state = jax.eval_shape(
        lambda: paper_search.initial_states(
            one, {site: np.ones(gate.shape, np.float32) for site, gate in gates.items()}
        )
    )
    return jax.tree.map(lambda x: Shape((searches, *x.shape[1:]), x.dtype), (one, state))


def fitting(compile_it: Callable[[], Program], chip: Chip) -> Program:
    """What `compile_it` returns. InputError when the compiler itself finds that the program needs too much memory."""
    try:
        return compile_it()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = next((line for line in str(error).splitlines() if "hbm" in line.lower()), str(error)[:300])
        raise InputError(f"does not fit into the {chip.hbm / 1e9:.0f} GB of a chip: {reason}; {WAYS_OUT}") from error


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds on one chip with every unit at its peak. `matmul`, `vector` and `memory` are what each unit needs for all
    of its work; `instructions` is the sum over instructions, which run one after another, of the slowest unit."""

    matmul: float
    vector: float
    memory: float
    instructions: float
    overlapped: float  # communication while instructions run
    communication: float  # communication that instructions wait for

    @property
    def seconds(self) -> float:
        return max(self.instructions, self.memory, self.overlapped) + self.communication


def describe(compiled: Program, chip: Chip, slices: int = 1) -> Tree:
    """Memory, work, collectives and roofline of a compiled program, per chip. Plain numbers for a JSON file.

    What only a tie at a threshold sets in motion (the second search of `topk.joint_thresholds`) counts under
    "with_ties" only.
    The projection comes after all gradients, so its time is added to that of the rest.
    """
    text = compiled.as_text()
    instructions, collectives = [each for each in count_work(text) if not each.conditional], find_collectives(text)
    usual = [each for each in collectives if not each.conditional]
    projecting = [each for each in usual if PROJECTION in each.scope]
    projection = roofline([each for each in instructions if PROJECTION in each.scope], projecting, chip, slices)
    rest = roofline(
        [each for each in instructions if PROJECTION not in each.scope],
        [each for each in usual if PROJECTION not in each.scope],
        chip,
        slices,
    )
    waiting = projection.communication + rest.communication
    by_compiler = waiting + sum(_by_compiler(each, chip) for each in instructions)
    shares = {
        scope: sum(_by_compiler(each, chip) for each in instructions if scope in each.scope)
        for scope in (PROJECTION, ABS_TOPK)
    }
    seconds = projection.seconds + rest.seconds
    return {
        "memory": memory(compiled, chip),
        "matmul_operations": sum(each.matmul * each.times for each in instructions),
        "vector_operations": sum(each.vector * each.times for each in instructions),
        "bytes_accessed": sum(each.bytes * each.times for each in instructions),
        "collectives": total_by_kind(usual),
        "collectives_with_ties": total_by_kind(collectives),
        "projection": {
            "collectives": total_by_kind(projecting),
            "collectives_with_ties": total_by_kind([each for each in collectives if PROJECTION in each.scope]),
            "moved_weights": [
                dataclasses.asdict(each) for each in collectives if PROJECTION in each.scope and _moves(each)
            ],
            "roofline": _times(projection),
            "share": projection.seconds / seconds,
            "share_by_compiler": (projection.communication + shares[PROJECTION]) / by_compiler,
        },
        "abs_topk": {"share_by_compiler": shares[ABS_TOPK] / by_compiler},
        "rest": _times(rest),
        "seconds": seconds,
        "seconds_by_compiler": by_compiler,  # its estimate of cycles, and the communication that is waited for
    }


def _by_compiler(each: Work, chip: Chip) -> float:
    """Seconds by its estimate of cycles; of a kernel, where it has none, by the operations and bytes that it states."""
    once = max(each.vector / chip.vector, each.bytes / chip.hbm_bandwidth) if each.kernel else each.cycles / chip.clock
    return each.times * once


def _times(cost: Cost) -> dict[str, float]:
    return {**dataclasses.asdict(cost), "seconds": cost.seconds}


def _moves(each: Collective) -> bool:
    """Whether a collective of the projection hands on more than sums of counts."""
    return each.kind != "all-reduce" or each.bytes > MOST_COUNT_BYTES


def roofline(instructions: list[Work], collectives: list[Collective], chip: Chip, slices: int = 1) -> Cost:
    """Lower bound of the time. An all-reduce passes its bytes twice, everything else once; between n slices every byte
    leaves a chip 2 (n - 1) / n times."""
    overlapped = sum(each.times * _seconds(each, chip, slices) for each in collectives if each.overlaps)
    waiting = sum(each.times * _seconds(each, chip, slices) for each in collectives if not each.overlaps)
    matmul = [each.times * each.matmul / chip.matmul for each in instructions]
    vector = [each.times * each.vector / chip.vector for each in instructions]
    traffic = [each.times * each.bytes / chip.hbm_bandwidth for each in instructions]
    slowest = [
        max(units)
        for each, units in zip(instructions, zip(matmul, vector, traffic, strict=True), strict=True)
        if not each.overlaps
    ]
    return Cost(sum(matmul), sum(vector), sum(traffic), sum(slowest), overlapped, waiting)


def _seconds(each: Collective, chip: Chip, slices: int) -> float:
    """One run of a collective."""
    if each.kind == BETWEEN_SLICES:
        return 2 * (slices - 1) / slices * each.bytes / chip.dcn + DCN_LATENCY
    return each.bytes * (2 if each.kind == "all-reduce" else 1) / chip.ici + COLLECTIVE_LATENCY


def memory(compiled: Program, chip: Chip) -> Tree:
    """Bytes on one chip; donated arguments and the outputs that take their place count once."""
    stats = compiled.memory_analysis()
    total = (
        stats.argument_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    return {
        "arguments": stats.argument_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
        "total": total,
        "chip": chip.hbm,
        "fits": total <= chip.hbm,
    }


@functools.cache
def parameter_count(config: Config) -> int:
    """Parameters of the model."""
    return sum(math.prod(spec.shape) for spec in parameter_table(config.model).values())
