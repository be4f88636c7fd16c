"""The projection: after every step each tensor keeps its k largest magnitudes and the rest become exactly zero.

One joint search finds the thresholds of all tensors together, round by round, from counts alone; no tensor is sorted
and, on a device mesh, none is gathered. Min-alive entries (the j largest of every neuron or attention channel) are
kept first, inside the same k. Ties are broken by flat index, and kept weights keep their bits (paper, section 2).
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from sparse_gpt.model.parameters import ParameterSpec, Params, Path, flatten, unflatten
from sparse_gpt.topk import FORCED, flat_index, joint_cut, keep_mask, magnitude_keys, topk_mask


@dataclasses.dataclass(frozen=True, eq=False)  # its dicts have no hash, and jit wants one: the object's own
class Projection:
    """``projection(params, keep)``: the parameter tree with all but `keep[i]` entries of tensor i set to zero.

    Attributes:
      tensors: the projected tensors; others pass through untouched.
      min_alive: entries that every neuron or attention channel keeps first; together they must fit in `keep`.
      mesh: devices that the parameters are spread over, or None for one device.
      specs: how each projected tensor lies on the mesh.
    """

    tensors: Mapping[Path, ParameterSpec]
    min_alive: int
    mesh: Mesh | None = None
    specs: Mapping[Path, PartitionSpec] = dataclasses.field(default_factory=dict)

    def __call__(self, params: Params, keep: Array) -> Params:
        """`keep` is (projected tensors,) int32 in the order of `tensors`, each within [0, size]."""
        leaves = flatten(params)
        weights = [leaves[path] for path in self.tensors]
        if self.mesh is None:
            kept = self._local(weights, keep)
        else:
            specs = [self.specs[path] for path in self.tensors]
            local = jax.shard_map(
                self._local, mesh=self.mesh, in_specs=(specs, PartitionSpec()), out_specs=specs, check_vma=False
            )
            kept = local(weights, keep)
        return unflatten(leaves | dict(zip(self.tensors, kept, strict=True)))

    def _local(self, weights: list[Array], keep: Array) -> list[Array]:
        """The projection as one device sees it: its shards in, its shards out."""
        shards = [_Shard(spec, self.specs.get(path), self.mesh) for path, spec in self.tensors.items()]
        keys = [
            shard.keys(weight, spec, self.min_alive)
            for shard, weight, spec in zip(shards, weights, self.tensors.values(), strict=True)
        ]
        index = [shard.index(weight) for shard, weight in zip(shards, weights, strict=True)]
        if self.mesh is None:
            cut = joint_cut(keys, keep, index=index)
        else:
            copies = jnp.array([shard.copies for shard in shards], jnp.int32)[None, :]
            axes = self.mesh.axis_names
            cut = joint_cut(
                keys, keep, index=index, bits_per_round=4, reduce_counts=lambda c: jax.lax.psum(c, axes) // copies
            )
        masks = [keep_mask(k, cut.key[i], cut.bound[i], index[i]) for i, k in enumerate(keys)]
        return [jnp.where(mask, weight, 0) for mask, weight in zip(masks, weights, strict=True)]


class _Shard:
    """Where one device's part of a tensor lies in the whole."""

    def __init__(self, spec: ParameterSpec, partition: PartitionSpec | None, mesh: Mesh | None):
        self.whole = spec.shape
        names = [entry if isinstance(entry, tuple) else (entry,) for entry in (partition or ())]
        names += [(None,)] * (len(spec.shape) - len(names))
        self.axes = [tuple(name for name in entry if name is not None) for entry in names]
        sizes = dict(mesh.shape) if mesh is not None else {}
        self.parts = [math.prod(sizes[name] for name in axes) for axes in self.axes]
        self.copies = math.prod(sizes.values()) // math.prod(self.parts)

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
