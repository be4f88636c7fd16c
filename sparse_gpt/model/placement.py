"""Where activations are placed on a mesh: rows over its batch axes, all channels on every device.

Without these constraints the compiler may shard channels where the weights are sharded, and AbsTopK, which looks at all
channels of a row, would communicate in every round of every selection. They do nothing unless the caller sets a mesh
and rules for the axes "batch" and "parts" (training/sharding.py does).
"""

import jax
from flax.linen.spmd import with_logical_constraint


def replicate_channels(x_BxTxC: jax.Array) -> jax.Array:
    """Activations with rows sharded over the batch axes and channels replicated."""
    x: jax.Array = with_logical_constraint(x_BxTxC, ("batch", None, None))
    return x


def gather_channels(x_BxTxC: jax.Array) -> jax.Array:
    """As `replicate_channels`, for outputs of c_attn and c_fc: where the mesh axis `tensor` divides them, each of its
    devices computes a part, and the parts are gathered before AbsTopK."""
    if x_BxTxC.shape[-1] % jax.sharding.get_abstract_mesh().shape.get("tensor", 1) == 0:
        x_BxTxC = with_logical_constraint(x_BxTxC, ("batch", None, "parts"))
    return replicate_channels(x_BxTxC)
