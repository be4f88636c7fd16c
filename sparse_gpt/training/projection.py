"""The projection: after every step each tensor keeps its k largest magnitudes and the rest become exactly zero.

One joint search finds the thresholds of all tensors together, round by round, from counts alone; no tensor is sorted
and, on a device mesh, none is gathered. Min-alive entries (the j largest of every neuron or attention channel) are
kept first, inside the same k. Ties are broken by flat index, and kept weights keep their bits (paper, section 2).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparse_gpt.model.parameters import Params, ParameterSpec, Path, flatten, unflatten
from sparse_gpt.topk import joint_keep_masks, magnitude_bits, topk_mask


class Projection:
    """``projection(params, keep)``: the parameter tree with all but `keep[i]` entries of tensor i set to zero."""

    def __init__(self, tensors: Mapping[Path, ParameterSpec], min_alive: int):
        self.tensors, self.min_alive = tensors, min_alive

    def __call__(self, params: Params, keep: jax.Array) -> Params:
        """`keep` is (projected tensors,) int32 in the order of `tensors`; other tensors pass through."""
        leaves = flatten(params)
        scores = [self._score(spec, leaves[path]) for path, spec in self.tensors.items()]
        for path, mask in zip(self.tensors, joint_keep_masks(scores, keep), strict=True):
            leaves[path] = jnp.where(mask, leaves[path], 0)
        return unflatten(leaves)
