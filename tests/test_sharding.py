"""The same step on eight devices and on one: the same weights kept, small messages, any mesh, any resumption."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.costs.collectives import Collective, find_collectives, total_by_kind
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import flatten, parameter_table, unflatten
from sparse_gpt.sparsity import topk
from sparse_gpt.sparsity.projection import Projection
from sparse_gpt.training import loop, run, schedules, sharding, step
from sparse_gpt.training.checkpoint import load_params
from tests.broken_off import BrokenOffError, after

MESH = "data=2,fsdp=2,tensor=2"


def small(mesh: str = "", recipe: str = "paper") -> Config:
    """One layer, with every kind of tensor."""
    overrides = {
        "model.n_layer": 1, "model.d_model": 16, "model.d_mlp": 32, "model.vocab_size": 32, "model.context": 8,
        "sparsity.density": 0.5, "train.steps": 4, "train.checkpoint_every": 2, "train.log_every": 2,
        "train.mesh": mesh, "optimizer.recipe": recipe,
    }  # fmt: skip
    return configs.validate(configs.replace(presets.tiny(), overrides))


def tokens(config: Config) -> np.ndarray:
    """(steps, batch, context + 1)."""
    t = config.train
    shape = (t.steps, t.batch_size, config.model.context + 1)
    return np.random.default_rng(0).integers(0, config.model.vocab_size, shape).astype(np.int32)


def one_device() -> Mesh:
    return sharding.make_mesh(small(), jax.devices()[:1])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", "fast", "muon"])
def test_sharded_step_equals_the_step_of_one_device_and_sends_little(recipe: str) -> None:
    config = small(MESH, recipe)
    mesh, reported, batch = sharding.make_mesh(config), schedules.settings(config, 3), tokens(config)[0]
    rate = np.float32(0.01)
    state = step.make_state(config, mesh)
    compiled = step.compile_step(config, mesh).lower(state, batch, rate, reported.keep).compile()  # type: ignore[attr-defined]
    found = find_collectives(compiled.as_text())
    # The compiler may join one of them with another all-reduce of the step; the name then has a colon.
    projection = [each for each in found if "projection/" in each.scope]
    assert {each.kind for each in projection} == {"all-reduce"}, "the projection must gather nothing"
    always, ties = ([each for each in projection if ("/cond/" in each.scope) == tied] for tied in (False, True))
    assert sum(each.times for each in always) == 9, "32 / 4 rounds, and one"
    assert sum(each.times for each in ties) == 3, "the largest tensor has 768 entries, so 10 / 4 rounds"
    assert max(each.bytes for each in projection) == 15 * 4 * len(reported.keep)
    assert all(each.times == 1 for each in found if each not in projection), "AbsTopK must not communicate"

    single = step.make_state(config)
    jax.tree.map(np.testing.assert_array_equal, single, state)  # made sharded, and yet the same bits
    new, metrics = compiled(state, sharding.put_batch(mesh, config.train.batch_size, batch), rate, reported.keep)
    expected, expected_metrics = step.compile_step(config)(single, batch, rate, reported.keep)
    np.testing.assert_allclose(metrics["loss"], expected_metrics["loss"], rtol=1e-6)
    assert step.nonzeros(new.params, mesh) == step.nonzeros(expected.params)
    for path, leaf in flatten(new.params).items():
        np.testing.assert_allclose(leaf, flatten(expected.params)[path], rtol=1e-5, atol=1e-6, err_msg=str(path))
    layout = sharding.partition_specs(config.model, mesh)
    assert layout["h_0", "mlp", "c_fc", "kernel"] == PartitionSpec(None, ("fsdp", "tensor"))
    for tree in (new.params, new.optimizer.mu):
        assert {path: leaf.sharding.spec for path, leaf in flatten(tree).items()} == layout


@pytest.mark.slow
def test_tensors_below_2_to_the_28_need_16_all_reduces_at_most() -> None:
    mesh = sharding.make_mesh(small(MESH))

    def find(keys: jax.Array, ks: jax.Array) -> topk.Thresholds:
        return topk.joint_thresholds(
            [keys],
            ks,
            index=[topk.flat_index(keys.shape)],
            sizes=[2**28 - 1],  # says how far indices may go; the entries themselves do not matter here
            bits_per_round=4,
            reduce_counts=lambda counts: jax.lax.psum(counts, sharding.AXES),
        )

    local = jax.shard_map(
        find, mesh=mesh, in_specs=(PartitionSpec(sharding.AXES), PartitionSpec()), out_specs=PartitionSpec()
    )
    shapes = jax.ShapeDtypeStruct((64,), np.int32), jax.ShapeDtypeStruct((1,), np.int32)
    compiled = jax.jit(local).lower(*shapes).compile()
    assert total_by_kind(find_collectives(compiled.as_text())) == {
        "all-reduce": {"count": 16, "bytes": 15 * 4 * 15 + 8}
    }


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize("mesh_text", [MESH, "data=8"])
def test_sharded_projection_keeps_the_bits_of_one_device_ties_included(mesh_text: str) -> None:
    config = small(mesh_text)
    mesh, table = sharding.make_mesh(config), schedules.projected_tensors(config)
    rng = np.random.default_rng(1)
    arrays = {path: rng.integers(-3, 4, spec.shape).astype(np.float32) for path, spec in table.items()}
    keep = jnp.array([int(0.4 * spec.size) for spec in table.values()], jnp.int32)
    specs = sharding.partition_specs(config.model, mesh)
    placed = {path: jax.device_put(a, NamedSharding(mesh, specs[path])) for path, a in arrays.items()}
    leaves = {path: jnp.asarray(a) for path, a in arrays.items()}
    one = flatten(jax.jit(Projection(table, 4))(unflatten(leaves), keep))
    many = flatten(jax.jit(Projection(table, 4, mesh, {path: specs[path] for path in table}))(unflatten(placed), keep))
    for path in table:
        np.testing.assert_array_equal(one[path], many[path], err_msg=str(path))
        assert np.count_nonzero(one[path]) == min(int(0.4 * table[path].size), np.count_nonzero(arrays[path]))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(False, True), (True, False)], ids=["1 to 8 devices", "8 to 1"])
def test_a_run_goes_on_on_another_mesh(workdir: Path, first: bool, then: bool) -> None:
    config = small(MESH)
    given = tokens(config)

    meshes = {True: sharding.make_mesh(config), False: one_device()}
    feeds = {many: run.given_batches(given, mesh) for many, mesh in meshes.items()}
    with pytest.raises(BrokenOffError):
        loop.train(config, workdir, feeds[first], at_step=after(3), progress=False, mesh=meshes[first])
    result = loop.train(config, workdir, feeds[then], progress=False, mesh=meshes[then])
    assert result.step == 4
    params, finished = load_params(workdir, config.model)
    assert finished == 4
    jax.tree.map(np.testing.assert_array_equal, params, result.params)
    straight = loop.train(config, workdir / "straight", feeds[False], progress=False, mesh=meshes[False])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), result.params, straight.params)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("data=3", "makes 3 devices, but there are 8"),
        ("data=4,rows=2", "'rows=2' is not one of data, fsdp, tensor"),
        ("data=4,data=2", "at most once"),
        ("data=-8", "positive size"),
        ("data", "positive size"),
    ],
)
def test_impossible_meshes_are_named(mesh: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sharding.make_mesh(small(mesh))


def test_a_batch_that_does_not_divide_is_named() -> None:
    config = configs.replace(small(), {"train.batch_size": 12})
    with pytest.raises(InputError, match=r"train\.batch_size=12: must be a multiple of 8"):
        sharding.make_mesh(config)
    sharding.make_mesh(configs.replace(config, {"train.mesh": "data=4,tensor=2"}))


def test_axes_that_do_not_divide_are_cut_less_or_kept_whole() -> None:
    mesh = sharding.make_mesh(small("data=1,fsdp=4,tensor=2"))
    assert sharding.partition_spec(("read", "mlp"), (16, 32), mesh) == PartitionSpec(None, ("fsdp", "tensor"))
    assert sharding.partition_spec(("read", "mlp"), (16, 12), mesh) == PartitionSpec(None, ("fsdp",))
    assert sharding.partition_spec(("read", "mlp"), (16, 6), mesh) == PartitionSpec(None, None)


def test_two_axes_may_not_claim_one_mesh_axis() -> None:
    mesh = sharding.make_mesh(small(MESH))
    with pytest.raises(ValueError, match="two of them are sharded over"):
        sharding.partition_spec(("heads", "mlp"), (8, 8), mesh)
    with pytest.raises(ValueError, match="no sharding rule"):
        sharding.partition_spec(("color",), (8,), mesh)


def test_every_logical_axis_has_a_rule() -> None:
    for position in ("none", "additive", "concat"):
        overrides = {"model.position": position, "model.d_position": 8 * (position == "concat")}
        model = configs.replace(small(), overrides).model
        assert {axis for spec in parameter_table(model).values() for axis in spec.axes} <= set(sharding.RULES)


HLO = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %r = f32[4,2]{1,0} all-reduce(%x), replica_groups={}, to_apply=%sum, metadata={op_name="jit(f)/loop/psum"}
  ROOT %t = (s32[], f32[4,2]{1,0}) tuple(%i, %r)
}

%cond (p: (s32[], f32[4,2])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%wrapped (p: bf16[8]) -> bf16[32] {
  ROOT %g = bf16[32]{0} all-gather(%p), dimensions={0}
}

ENTRY %main (p: f32[4,2]) -> f32[4,2] {
  %w = (s32[], f32[4,2]{1,0}) while(%s), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %a = ((bf16[8]{0}), bf16[32]{0}) async-start(%q), calls=%wrapped
  %b = bf16[32]{0} async-done(%a), calls=%wrapped
  %c = (f32[2]{0}, f32[16]{0}) all-gather-start(%z), dimensions={0}
  %d = f32[16]{0} all-gather-done(%c)
  ROOT %o = f32[4,2]{1,0} get-tuple-element(%w), index=1
}
"""


def test_collectives_are_counted_by_trips_and_without_their_second_halves() -> None:
    found = find_collectives(HLO)
    assert Collective("all-reduce", 32, 7, "jit(f)/loop/psum") in found
    assert total_by_kind(found) == {"all-reduce": {"count": 7, "bytes": 224}, "all-gather": {"count": 2, "bytes": 128}}
    with pytest.raises(ValueError, match="no ENTRY"):
        find_collectives("")
