"""Ahead-of-time costs: HLO of TPU programs, loops multiplied out, rooflines, flags, presets, lowering for CUDA.

Real compiles for TPU topologies are in tests/tpu_check, which has an environment of its own.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.bridges.dense import check_pair, dense_config
from sparse_gpt.config import Config
from sparse_gpt.costs import aot, chips
from sparse_gpt.costs.collectives import BETWEEN_SLICES, Collective, find_collectives, total_by_kind
from sparse_gpt.costs.work import Work, count_work
from sparse_gpt.errors import InputError
from sparse_gpt.training import schedules, sharding, step
from tests.inprocess import launch_here

pytestmark = pytest.mark.optimized

Launch = Callable[..., CompletedProcess[str]]

# What the TPU compiler writes, shortened: a loop of 8 rounds (known only from its condition) that counts keys in HBM
# into a buffer in vector memory and sums over devices, a branch for ties, a batched product as a window over a dilated
# input, one all-gather spread over two fusions, a reduce-scatter.
PROGRAM = """HloModule m

%less (arg.1: (s32[], s32[8,128])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, s32[8,128]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(8)
  %i = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%count (p: s32[8,128]) -> s32[8,128] {
  %p = s32[8,128]{1,0:T(8,128)} parameter(0)
  %two = s32[8,128]{1,0:T(8,128)} add(%p, %p)
  ROOT %more = s32[8,128]{1,0:T(8,128)} multiply(%two, %p)
}

%body (arg: (s32[], s32[8,128])) -> (s32[], s32[8,128]) {
  %arg = (s32[]{:T(128)}, s32[8,128]{1,0:T(8,128)}) parameter(0)
  %keys = s32[8,128]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %fusion.1 = s32[8,128]{1,0:T(8,128)S(1)} fusion(%keys), kind=kLoop, calls=%count, metadata={op_name="jit(f)/projection/while/body/add"}, backend_config={"estimated_cycles":"7"}
  %psum = s32[15,4]{1,0:T(8,128)S(1)} all-reduce(%fusion.1), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%count, metadata={op_name="jit(f)/projection/while/body/psum"}
  ROOT %out = (s32[]{:T(128)}, s32[8,128]{1,0:T(8,128)}) tuple(%arg)
}

%tied (q: s32[8,128]) -> s32[8,128] {
  %q = s32[8,128]{1,0:T(8,128)} parameter(0)
  %again = s32[15,4]{1,0:T(8,128)} all-reduce(%q), to_apply=%count, metadata={op_name="jit(f)/projection/cond/branch_1_fun/psum"}
  ROOT %n = s32[8,128]{1,0:T(8,128)} negate(%q)
}

%start (w.1: bf16[16,64]) -> bf16[64,64] {
  %w.1 = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.1 = bf16[64,64]{1,0:T(8,128)(2,1)} all-gather(%w.1), channel_id=5, dimensions={0}, frontend_attributes={chain_id="0"}
}

%matmul (l: bf16[4,32,8], r: bf16[4,64,8], w.2: bf16[16,64]) -> (f32[4,32,64], bf16[64,64]) {
  %l = bf16[4,32,8]{2,1,0:T(8,128)(2,1)} parameter(0)
  %r = bf16[4,64,8]{2,1,0:T(8,128)(2,1)} parameter(1)
  %w.2 = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(2)
  %gather.2 = bf16[64,64]{1,0:T(8,128)(2,1)} all-gather(%w.2), channel_id=5, dimensions={0}, frontend_attributes={chain_id="0"}
  %product = f32[4,32,64]{2,1,0:T(8,128)} convolution(%l, %r), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf
  ROOT %both = (f32[4,32,64]{2,1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) tuple(%product, %gather.2)
}

%all-reduce-scatter.1 (g: f32[64,64]) -> f32[16,64] {
  %g = f32[64,64]{1,0:T(8,128)} parameter(0)
  %sum = f32[64,64]{1,0:T(8,128)} all-reduce(%g), replica_groups={{0,1,2,3}}, to_apply=%count
  ROOT %part = f32[16,64]{1,0:T(8,128)} dynamic-slice(%sum), dynamic_slice_sizes={16,64}
}

ENTRY %main (x: s32[8,128], a: bf16[4,32,8], b: bf16[4,64,8], w: bf16[16,64], g.0: f32[64,64]) -> s32[8,128] {
  %x = s32[8,128]{1,0:T(8,128)} parameter(0)
  %a = bf16[4,32,8]{2,1,0:T(8,128)(2,1)} parameter(1)
  %b = bf16[4,64,8]{2,1,0:T(8,128)(2,1)} parameter(2)
  %w = bf16[16,64]{1,0:T(8,128)(2,1)} parameter(3)
  %g.0 = f32[64,64]{1,0:T(8,128)} parameter(4)
  %loop = (s32[]{:T(128)}, s32[8,128]{1,0:T(8,128)}) while(%x), condition=%less, body=%body
  %picked = s32[8,128]{1,0:T(8,128)} conditional(%x, %x), branch_computations={%tied, %tied}
  %started = bf16[64,64]{1,0:T(8,128)(2,1)} fusion(%w), kind=kCustom, calls=%start, backend_config={"continuation_config":{"output_tuple_original_start":"0","output_tuple_original_end":"0","operand_original_start":"0","operand_original_end":"0"}}
  %mixed = (f32[4,32,64]{2,1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) fusion(%a, %b, %w), kind=kOutput, calls=%matmul, backend_config={"continuation_config":{"output_tuple_original_start":"0","output_tuple_original_end":"1","operand_original_start":"0","operand_original_end":"2"}}
  %scattered = f32[16,64]{1,0:T(8,128)} fusion(%g.0), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %done = s32[8,128]{1,0:T(8,128)} copy(%x)
}
"""  # noqa: E501 (the compiler's lines)


def test_collectives_of_a_tpu_program() -> None:
    found = find_collectives(PROGRAM)
    looped, *_ = found
    assert looped == Collective("all-reduce", 15 * 4 * 4, 8, "jit(f)/projection/while/body/psum")
    assert total_by_kind(found) == {
        "all-reduce": {"count": 10, "bytes": 10 * 240},  # and one in either branch
        "all-gather": {"count": 1, "bytes": 2 * 64 * 64},
        "reduce-scatter": {"count": 1, "bytes": 4 * 64 * 64},
    }
    assert [each.kind for each in found if each.overlaps] == ["all-gather"]


def test_collectives_across_slices_are_counted_and_named_by_what_they_reduce() -> None:
    lines = [
        "ENTRY %main (x: f32[4]) -> f32[4] {",
        "  %x = f32[4]{0} parameter(0)",
        '  %twice = f32[4]{0} add(%x, %x), metadata={op_name="jit(f)/projection/add"}',
        "  %sum = f32[4]{0} all-reduce(%twice), channel_id=1, to_apply=%add",
        "  %send = (f32[9,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%sum, %token), is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}',
        "  ROOT %done = f32[4]{0} copy(%sum)",
        "}",
    ]
    found = find_collectives("\n".join(lines))
    assert found == [
        Collective("all-reduce", 16, 1, "jit(f)/projection/add"),
        Collective(BETWEEN_SLICES, 4 * 9 * 8 * 128, 1, "", overlaps=True),
    ]


@pytest.mark.parametrize(
    ("groups", "size"),
    [("{{0,1},{2,3}}", 2), ("[16,8]<=[128]", 8), ("mesh['a'=2,'b'=4], device_ids=([2,4]) {'b'}", 4)],
)
def test_bytes_of_a_reduce_scatter_are_those_that_go_in(groups: str, size: int) -> None:
    line = f"  ROOT %r = f32[10]{{0}} reduce-scatter(%p), channel_id=1, replica_groups={groups}, dimensions={{0}}"
    (found,) = find_collectives(f"ENTRY %main (p: f32[80]) -> f32[10] {{\n{line}\n}}\n")
    assert found.bytes == 40 * size


def test_loops_are_multiplied_out_and_vector_memory_costs_no_traffic() -> None:
    inside, *branches, started, mixed, copy = count_work(PROGRAM)
    array = 4 * 8 * 128
    assert inside.times == 8
    assert inside.bytes == array  # reads HBM, writes vector memory
    assert inside.vector == 2 * 8 * 128
    assert inside.cycles == 7
    assert aot.PROJECTION in inside.scope
    assert [each.conditional for each in branches] == [True, True]
    assert (copy.bytes, copy.vector, copy.times, copy.conditional) == (2 * array, 0, 1, False)
    assert mixed.matmul == 2 * 4 * 32 * 64 * 8
    assert mixed.bytes == 2 * 4 * (32 + 64) * 8 + 4 * 4 * 32 * 64  # without the gathered weight that passes through
    assert started.bytes == started.matmul == 0


def test_products_written_as_dot() -> None:
    lines = [
        "ENTRY %main (a: f32[4,32,8], b: f32[4,8,64]) -> f32[4,32,64] {",
        "  %a = f32[4,32,8]{2,1,0} parameter(0)",
        "  %b = f32[4,8,64]{2,1,0} parameter(1)",
        "  ROOT %c = f32[4,32,64]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}",
        "}",
    ]
    (product,) = count_work("\n".join(lines))
    assert product.matmul == 2 * 4 * 32 * 64 * 8


def test_a_kernel_counts_by_what_it_states() -> None:
    """The compiler writes no estimate of cycles for it."""
    lines = [
        "ENTRY %main (x: bf16[64,2048]) -> s8[64,2048] {",
        "  %x = bf16[64,2048]{1,0} parameter(0)",
        '  ROOT %k = s8[64,2048]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", '
        'metadata={op_name="jit(f)/abs_topk/keep_rows"}, '
        'backend_config={"custom_call_config":{"body":"QQ==","cost_estimate":{"flops":"614400","bytes_accessed":"9"}}}',
        "}",
    ]
    (kernel,) = count_work("\n".join(lines))
    assert (kernel.kernel, kernel.vector, kernel.cycles, kernel.bytes) == (True, 614_400, 0, 3 * 64 * 2048)
    chip = chips.CHIPS["v5e"]
    assert aot._by_compiler(dataclasses.replace(kernel, times=2), chip) == pytest.approx(2 * kernel.bytes / 819e9)
    assert aot._by_compiler(dataclasses.replace(kernel, bytes=0), chip) == pytest.approx(1e-7)
    assert aot._by_compiler(instruction(cycles=1500, times=3), chip) == pytest.approx(3e-6)


def instruction(**fields: Any) -> Work:
    nothing = Work(bytes=0, vector=0, matmul=0, cycles=0, times=1, scope="", conditional=False, overlaps=False)
    return dataclasses.replace(nothing, **fields)


def test_roofline_adds_the_slowest_unit_of_every_instruction_and_what_is_waited_for() -> None:
    chip = chips.CHIPS["v5e"]
    reduce = Collective("all-reduce", 10**6, 8, "projection")
    gather = Collective("all-gather", 10**6, 3, "", overlaps=True)
    product = instruction(matmul=197 * 10**9, bytes=819 * 10**5)
    selection = instruction(vector=6144 * 10**5, times=3)
    cost = aot.roofline([product, selection], [reduce, gather], chip)
    assert (cost.matmul, cost.vector, cost.memory) == pytest.approx((1e-3, 3e-4, 1e-4))
    assert cost.instructions == pytest.approx(1.3e-3)
    assert cost.communication == pytest.approx(8 * (2e6 / chip.ici + chips.COLLECTIVE_LATENCY))
    assert cost.overlapped == pytest.approx(3 * (1e6 / chip.ici + chips.COLLECTIVE_LATENCY))
    assert cost.seconds == pytest.approx(1.3e-3 + cost.communication)
    prefetch = instruction(bytes=819 * 10**6, overlaps=True)
    assert aot.roofline([product, prefetch], [], chip).seconds == pytest.approx(1.1e-3)  # the memory's time, not a sum
    across = Collective(BETWEEN_SLICES, 31 * 10**6, 1, "", overlaps=True)
    assert aot.roofline([], [across], chip, slices=2).overlapped == pytest.approx(1e-2 + chips.DCN_LATENCY)
    assert aot.roofline([], [across], chip, slices=4).overlapped == pytest.approx(1.5e-2 + chips.DCN_LATENCY)


def tiny(**overrides: Any) -> Config:
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    return configs.replace(presets.preset("tiny"), {"model.n_layer": 1, **names})


@pytest.mark.slow
def test_describes_a_compiled_step_on_this_machines_devices() -> None:
    config = tiny(train__mesh="data=2,fsdp=4")
    compiled = aot.compile_train(config, sharding.make_mesh(config))
    reported = aot.describe(compiled, chips.CHIPS["v5e"])
    params = step.abstract_state(config).params
    state = sum(3 * 4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert reported["memory"]["fits"]
    assert reported["memory"]["arguments"] < state  # it is sharded over the devices
    assert not reported["projection"]["moved_weights"]
    reductions = reported["projection"]["collectives"]["all-reduce"]["count"]
    with_ties = reported["projection"]["collectives_with_ties"]["all-reduce"]["count"]
    assert 0 < reductions < with_ties <= 16
    blocks = sum(
        math.prod(leaf.shape) for leaf in jax.tree.leaves([params["h_0"], params["lm_head"]]) if leaf.ndim == 2
    )
    products = 6 * config.train.batch_size // 8 * config.model.context * blocks
    assert products < reported["matmul_operations"] < 1.5 * products  # and those of attention
    assert 0 < reported["projection"]["share"] < 1
    assert reported["abs_topk"]["share_by_compiler"] >= 0
    tight = dataclasses.replace(chips.CHIPS["v5e"], hbm=1000.0)
    assert not aot.memory(compiled, tight)["fits"]
    json.dumps(reported)


@pytest.mark.slow
def test_search_population_is_cut_over_all_devices() -> None:
    config = tiny(train__mesh="data=8")
    compiled = aot.compile_search(config, sharding.make_mesh(config), searches=16, time_steps=16)
    found = total_by_kind(find_collectives(compiled.as_text()))
    assert sum(kind["bytes"] for kind in found.values()) < 10_000  # nothing but metrics, if that, is exchanged


@pytest.mark.parametrize(("name", "parameters"), [("paper_118m", 109e6), ("paper_475m", 415e6), ("paper_1.9b", 1.63e9)])
def test_presets_of_the_papers_sizes(name: str, parameters: float) -> None:
    config = configs.validate(presets.preset(name))
    assert aot.parameter_count(config) == pytest.approx(parameters, rel=0.01)
    sharding.check_batch(config, sharding.parse_mesh(config.train.mesh, 256))
    tokens = config.train.steps * config.train.batch_size * config.model.context
    assert tokens == pytest.approx(32e9, rel=1e-3)


def test_the_bridged_pair_of_the_papers_size() -> None:
    config = configs.validate(presets.preset("paper_bridge"))
    dense = dense_config(config)
    check_pair(dense, config)
    assert (config.model.n_layer, aot.parameter_count(dense)) == (4, pytest.approx(58.8e6, rel=0.01))
    for each in (config, dense):
        sharding.check_batch(each, sharding.parse_mesh(each.train.mesh, 256))


@pytest.mark.parametrize("topology", ["v5e", "v9:4x4", "v5e:16", "v5e:16xa"])
def test_topologies_that_do_not_exist(topology: str) -> None:
    with pytest.raises(InputError, match="v5e:16x16"):
        chips.chip(topology)


@pytest.mark.parametrize(
    ("flags", "says"), [(["--topology=v5e:banana"], "v5e:banana"), (["--preset=tiny", "--program=sing"], "search")]
)
def test_bad_flags_are_one_line(workdir: Path, flags: list[str], says: str) -> None:
    done = launch_here("compile_tpu", f"--workdir={workdir}", *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not workdir.exists()


def test_a_missing_tpu_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise RuntimeError("no such backend\nand much more")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"no such backend; .*requirements-tpu\.txt"):
        chips.devices("v5e:16x16")


def test_a_program_that_does_not_fit_ends_in_one_line() -> None:
    chip = chips.CHIPS["v5e"]

    def too_large() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: ran out\nUsed 20.1G of 15.7G hbm.\nlong table")

    def broken() -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    with pytest.raises(InputError, match=r"16 GB of a chip: Used 20.1G of 15.7G hbm\.; more fsdp"):
        aot.fitting(too_large, chip)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a defect"):
        aot.fitting(broken, chip)


@pytest.mark.slow
def test_the_step_lowers_for_cuda_and_cpu() -> None:
    config = tiny(train__dtype="bfloat16")
    leaves, structure = jax.tree.flatten(step.abstract_state(config))

    def flat(leaves: list[jax.Array], *rest: jax.Array) -> Any:
        return jax.tree.leaves(step.compile_step(config)(jax.tree.unflatten(structure, leaves), *rest))

    tokens = jax.ShapeDtypeStruct((config.train.batch_size, config.model.context + 1), jnp.int32)
    keep = jax.ShapeDtypeStruct((len(schedules.projected_tensors(config)),), jnp.int32)
    reported = jax.ShapeDtypeStruct((), np.float32)
    exported = jax.export.export(jax.jit(flat), platforms=["cpu", "cuda"])(leaves, tokens, reported, keep)
    assert exported.platforms == ("cpu", "cuda")
    assert len(exported.out_avals) == len(leaves) + 2


def test_a_search_that_is_not_compiled_is_refused() -> None:
    config = configs.replace(presets.tiny(), {"prune.search": "path"})
    nowhere: Any = None
    with pytest.raises(InputError, match=r"--config\.prune\.search=path: only the paper's search is compiled"):
        aot.compile_search(config, nowhere, 1, 8)
