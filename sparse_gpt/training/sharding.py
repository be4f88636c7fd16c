"""Where everything is placed on the devices: one mesh, one rule table from logical axes to mesh axes.

Mesh axes: `data` (batch only), `fsdp` (batch, and parameters sharded), `tensor` (parameters, and the outputs of
c_attn and c_fc while they are computed). Matrices are sharded along their neuron axis: min-alive and the projection
then never need another device's weights. Activations stay whole along channels, because AbsTopK looks at all of a row;
sharding them would make every round of every selection communicate.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import Leaf, ParameterSpec, Params, Path, PyTree, parameter_table, unflatten

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Logical axis of a parameter -> mesh axes it is sharded over; (): replicated.
RULES: Mapping[str, tuple[str, ...]] = {
    "vocab": ("fsdp", "tensor"),
    "heads": ("fsdp", "tensor"),
    "mlp": ("fsdp", "tensor"),
    "bridge": ("fsdp", "tensor"),
    "next_vocab": (),
    "embed": (),
    "read": (),
    "write": (),
    "head": (),
    "position": (),
    "context": (),
}

# Logical axis of an activation (see model/placement.py) -> mesh axes it is sharded over.
ACTIVATION_RULES = (("batch", BATCH_AXES), ("parts", "tensor"))


def parse_mesh(text: str, device_count: int) -> dict[str, int]:
    """Axis sizes in the order of AXES, from such as "data=4,fsdp=2"; empty puts all devices on `data`.

    Raises:
      InputError: an unknown or repeated axis, a size that is no positive integer, or sizes that do not multiply to
        `device_count`.
    """
    if not text.strip():
        return {"data": device_count, "fsdp": 1, "tensor": 1}
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name not in AXES or name in sizes or not size.isdecimal() or int(size) < 1:
            raise InputError(
                f"--config.train.mesh={text}: {part.strip()!r} is not one of {', '.join(AXES)} (each at most once) "
                'with a positive size, as in "data=4,fsdp=2"'
            )
        sizes[name] = int(size)
    if math.prod(sizes.values()) != device_count:
        raise InputError(
            f"--config.train.mesh={text}: makes {math.prod(sizes.values())} devices, but there are {device_count}; "
            f"change an axis, or leave the mesh empty for data={device_count}"
        )
    return {axis: sizes.get(axis, 1) for axis in AXES}


def make_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of config.train.mesh over `devices` (default: all of all processes), checked against the batch size."""
    devices = jax.devices() if devices is None else devices
    sizes = parse_mesh(config.train.mesh, len(devices))
    check_batch(config, sizes)
    return Mesh(
        _arrange(config.train.mesh, sizes, devices),
        AXES,
        # The compiler places intermediate values; Explicit would want every operation annotated.
        axis_types=(AxisType.Auto,) * len(AXES),
    )


def spread(mesh: Mesh) -> Mesh | None:
    """The mesh, or None when it is of one device, which needs no shardings."""
    return None if mesh.size == 1 else mesh


def _arrange(text: str, sizes: Mapping[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices in the shape of the mesh, neighbors close. Of several TPU slices, whose network is slow, only `data`
    goes across. A mesh axis may be a part of an axis of the TPU's torus, as in data=2,fsdp=128 on 16x16."""
    slices = len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1
    if sizes["data"] % slices:
        raise InputError(f"--config.train.mesh={text}: data={sizes['data']} must be a multiple of the {slices} slices")
    if slices == 1:
        return mesh_utils.create_device_mesh(tuple(sizes.values()), devices, allow_split_physical_axes=True)
    within = (sizes["data"] // slices, sizes["fsdp"], sizes["tensor"])
    return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)


def check_batch(config: Config, sizes: Mapping[str, int]) -> None:
    """InputError unless the (micro)batch divides over the axes that share it."""
    parts, t = math.prod(sizes[axis] for axis in BATCH_AXES), config.train
    if t.batch_size % (parts * t.microbatches):
        raise InputError(
            f"--config.train.batch_size={t.batch_size}: must be a multiple of {parts * t.microbatches} "
            f"(data={sizes['data']} x fsdp={sizes['fsdp']} x {t.microbatches} microbatches); "
            "change it, train.microbatches or train.mesh"
        )


def partition_spec(
    axes: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Mapping[str, tuple[str, ...]] = RULES
) -> PartitionSpec:
    """How a tensor with these logical axes is placed on the mesh.

    An axis that does not divide over all its mesh axes is sharded over as many of the first ones as divide it, and kept
    whole (replicated) when none does: small models run on any mesh, and large ones have round sizes.

    Raises:
      ValueError: two axes of the tensor claim the same mesh axis, or an axis has no rule.
    """
    entries: list[tuple[str, ...] | None] = []
    claimed: set[str] = set()
    for axis, length in zip(axes, shape, strict=True):
        if axis not in rules:
            raise ValueError(f"logical axis {axis!r} has no sharding rule; rules: {', '.join(rules)}")
        if claimed & set(rules[axis]):
            raise ValueError(f"axes {tuple(axes)}: two of them are sharded over {sorted(claimed & set(rules[axis]))}")
        claimed |= set(rules[axis])
        taken = tuple(name for name in rules[axis] if mesh.shape[name] > 1)
        while taken and length % math.prod(mesh.shape[name] for name in taken):
            taken = taken[:-1]
        entries.append(taken or None)
    return PartitionSpec(*entries)


def partition_specs(model: ModelConfig, mesh: Mesh) -> dict[Path, PartitionSpec]:
    """How every parameter is placed on the mesh, by path."""
    return table_specs(parameter_table(model), mesh)


def table_specs(table: Mapping[Path, ParameterSpec], mesh: Mesh) -> dict[Path, PartitionSpec]:
    """How every tensor of a table is placed on the mesh, by path."""
    return {path: partition_spec(spec.axes, spec.shape, mesh) for path, spec in table.items()}


def param_shardings(config: Config, mesh: Mesh) -> Params:
    """Tree of NamedSharding like the parameters."""
    return unflatten({path: NamedSharding(mesh, spec) for path, spec in partition_specs(config.model, mesh).items()})


def state_shardings(
    config: Config, mesh: Mesh, state: PyTree, table: Mapping[Path, ParameterSpec] | None = None
) -> PyTree:
    """Tree of NamedSharding like `state`, a (possibly abstract) TrainState: moments are placed like their parameters.

    `table` has the rows of everything that is trained; default: those of the configured model.
    """
    table = parameter_table(config.model) if table is None else table
    specs = table_specs(table, mesh)

    def place(key_path: jax.tree_util.KeyPath, leaf: Leaf) -> NamedSharding:
        path = tuple(key.key for key in key_path if isinstance(key, jax.tree_util.DictKey))
        like_parameter = path in table and leaf.shape == table[path].shape
        return NamedSharding(mesh, specs[path] if like_parameter else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of token batches (B, T + 1): rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


@contextlib.contextmanager
def activations_on(mesh: Mesh | None) -> Iterator[None]:
    """While the model is traced inside, the constraints of model/placement.py hold its activations on `mesh`."""
    if mesh is None:
        yield
        return
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        yield


def row_block(mesh: Mesh, rows: int) -> tuple[int, int]:
    """(index, count): this process holds block `index` of `count` equal blocks of a batch's rows.

    Processes that share rows (a tensor axis across hosts) get the same block. When a process's rows do not form one
    block, it takes the whole batch (0, 1) and the devices pick their rows from it.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((rows, 1)).values()
    held = sorted({index[0].indices(rows)[:2] for index in slices if index is not None})
    start, stop = held[0][0], held[-1][1]
    length = stop - start
    whole_block = sum(b - a for a, b in held) == length and rows % length == 0 and start % length == 0
    return (start // length, rows // length) if whole_block else (0, 1)


def put_batch(mesh: Mesh | None, rows: int, local: np.ndarray) -> jax.Array | np.ndarray:
    """The global batch of `rows` rows, from this process's block of it (see `row_block`)."""
    if mesh is None:
        return local
    return jax.make_array_from_process_local_data(batch_sharding(mesh), local, (rows, *local.shape[1:]))


def to_host(tree: PyTree) -> PyTree:
    """Numpy copies of a tree of arrays, whole on every process; all processes must call it."""
    from jax.experimental import multihost_utils

    def whole(leaf: Leaf) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)
