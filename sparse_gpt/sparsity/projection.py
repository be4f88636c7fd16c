"""The projection: after every step each tensor keeps its k largest magnitudes and the rest become exactly zero.

One joint search finds the thresholds of all tensors together, round by round, from counts alone; no tensor is sorted
and, on a device mesh, none is gathered. Min-alive entries (the j largest of every neuron or attention channel) are
kept first, inside the same k. Ties are broken by flat index, and kept weights keep their bits (paper, section 2).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from sparse_gpt.parameters import ParameterSpec, Params, Path, flatten, unflatten
from sparse_gpt.sparsity import accelerators
from sparse_gpt.sparsity.topk import (
    FORCED,
    Thresholds,
    flat_index,
    joint_thresholds,
    keep_mask,
    magnitude_keys,
    topk_mask,
)


@dataclasses.dataclass(frozen=True, eq=False)  # compared below: dicts have no hash, and their order counts here
class Projection:
    """``projection(params, keep)``: the parameter tree with all but `keep[i]` entries of tensor i set to zero.

    Attributes:
      tensors: the projected tensors; others pass through untouched.
      min_alive: entries that every neuron or attention channel keeps first; together they must fit in `keep`.
      mesh: devices that the parameters are spread over, or None for one device.
      specs: how each projected tensor is placed on the mesh.
    """

    tensors: Mapping[Path, ParameterSpec]
    min_alive: int
    mesh: Mesh | None = None
    specs: Mapping[Path, PartitionSpec] = dataclasses.field(default_factory=dict)

    def _key(self) -> tuple[object, ...]:
        return tuple(self.tensors.items()), self.min_alive, self.mesh, tuple(self.specs.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Projection) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __call__(self, params: Params, keep: Array) -> Params:
        """`keep` is (projected tensors,) int32 in the order of `tensors`, each within [0, size]."""
        leaves = flatten(params)
        # Without the barrier XLA does the optimizer's update again in every pass of the search over the weights.
        weights = jax.lax.optimization_barrier([leaves[path] for path in self.tensors])
        select = self._local
        if self.mesh is not None:
            specs = [self.specs[path] for path in self.tensors]
            select = jax.shard_map(
                self._local, mesh=self.mesh, in_specs=(specs, PartitionSpec()), out_specs=specs, check_vma=False
            )
        with jax.named_scope("projection"):
            kept = select(weights, keep)
        return unflatten(leaves | dict(zip(self.tensors, kept, strict=True)))

    def _local(self, weights: list[Array], keep: Array) -> list[Array]:
        """The projection as one device sees it: its shards in, its shards out."""
        shards = [_Shard(spec, self.specs.get(path)) for path, spec in self.tensors.items()]
        keys = [
            shard.keys(weight, spec, self.min_alive)
            for shard, weight, spec in zip(shards, weights, self.tensors.values(), strict=True)
        ]
        index = [shard.index(weight) for shard, weight in zip(shards, weights, strict=True)]
        found = self._thresholds(shards, keys, index, keep)
        masks = [keep_mask(own, found.key[i], found.bound[i], index[i]) for i, own in enumerate(keys)]
        return [jnp.where(mask, weight, 0) for mask, weight in zip(masks, weights, strict=True)]

    def _thresholds(self, shards: "list[_Shard]", keys: list[Array], index: list[Array], keep: Array) -> Thresholds:
        """Counts are added up over mesh axes that shard some tensor; along the others all devices count the same."""
        sizes = [spec.size for spec in self.tensors.values()]
        if self.mesh is None:
            # A kernel counts for 15 thresholds in one pass over memory.
            bits = 1 if accelerators.target() is None else 4
            return joint_thresholds(keys, keep, index=index, sizes=sizes, bits_per_round=bits)
        cutting = {name for shard in shards for names in shard.axes for name in names}
        axes = tuple(name for name in self.mesh.axis_names if name in cutting)
        counts_it = jnp.stack([shard.is_first_copy(axes) for shard in shards]).astype(jnp.int32)
        return joint_thresholds(
            keys,
            keep,
            index=index,
            sizes=sizes,
            bits_per_round=4,
            reduce_counts=lambda counts: jax.lax.psum(counts * counts_it[None], axes),
        )


class _Shard:
    """Where one device's part of a tensor is in the whole."""

    def __init__(self, spec: ParameterSpec, partition: PartitionSpec | None):
        self.whole = spec.shape
        names = [entry if isinstance(entry, tuple) else (entry,) for entry in (partition or ())]
        names += [(None,)] * (len(spec.shape) - len(names))
        self.axes = [tuple(name for name in entry if name is not None) for entry in names]

    def is_first_copy(self, axes: Sequence[str]) -> Array:
        """Whether this device is the one to count, among those that hold the same part along mesh axes `axes`."""
        own = {name for names in self.axes for name in names}
        return jnp.all(jnp.array([jax.lax.axis_index(name) == 0 for name in axes if name not in own], bool))

    def offset(self, axis: int, length: int) -> Array | int:
        """Where the shard starts along one axis of the whole tensor."""
        return jax.lax.axis_index(self.axes[axis]) * length if self.axes[axis] else 0

    def index(self, weight: Array) -> Array:
        """Flat index of every entry in the whole tensor."""
        offset = [self.offset(axis, length) for axis, length in enumerate(weight.shape)]
        return flat_index(weight.shape, offset=offset, whole_shape=self.whole)

    def keys(self, weight: Array, spec: ParameterSpec, min_alive: int) -> Array:
        """Magnitude keys, with min-alive entries above everything else."""
        keys = magnitude_keys(weight)
        if spec.neuron_axis is None or min_alive == 0:
            return keys
        along = 1 - spec.neuron_axis
        axes, offset = self.axes[along], self.offset(along, weight.shape[along])

        def gather(proposals: Array) -> Array:  # the shards' few best per neuron, never weights
            return jax.lax.all_gather(proposals, axes, tiled=True) if axes else proposals

        alive = topk_mask(keys, min_alive, along, offset=offset, gather=gather)
        return jnp.where(alive, FORCED, keys)
