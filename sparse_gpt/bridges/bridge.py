"""The bridges themselves: an encoder and a decoder at every bridged boundary (paper, section on bridges).

The encoder f_i is a matrix followed by AbsTopK and maps the dense model's residual stream to the sparse model's; the
decoder g_i is a matrix that maps back. They are rows of a parameter table like the models' own parameters and stay
dense: the projection does not touch them. Shapes: B batch, T position, N bridges.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparse_gpt.config import Config, check_fraction
from sparse_gpt.parameters import ParameterSpec, Params, Path, unflatten
from sparse_gpt.sparsity.topk import abs_topk

BRIDGE = "bridge"  # kind of these tensors: never projected, decayed like other matrices


def bridge_table(dense_width: int, sparse_width: int, bridges: int) -> Mapping[Path, ParameterSpec]:
    """Every encoder (dense_width, sparse_width) and decoder (sparse_width, dense_width), by path.

    Their initial values keep the scale of what they read: this is also the untrained bridge of the controls.
    """
    table: dict[Path, ParameterSpec] = {}
    for name, read, write in (("encoder", dense_width, sparse_width), ("decoder", sparse_width, dense_width)):
        scale = 1 / math.sqrt(read)
        for i in range(bridges):
            table[f"{name}_{i}", "kernel"] = ParameterSpec((read, write), ("bridge", "embed"), BRIDGE, "normal", scale)
    return table


def init_bridges(key: jax.Array, table: Mapping[Path, ParameterSpec]) -> Params:
    """Fresh float32 encoders and decoders."""
    keys = jax.random.split(key, len(table))
    return unflatten({path: spec.make(keys[i]) for i, (path, spec) in enumerate(table.items())})


def encoder_fraction(config: Config) -> float:
    """Fraction of channels that AbsTopK keeps after an encoder; 1 when it is off. InputError if that is no channel."""
    field = "bridge.encoder_fraction" if config.bridge.encoder_fraction else "sparsity.activation_fraction"
    fraction = config.bridge.encoder_fraction or config.sparsity.activation_fraction or 1.0
    check_fraction(fraction, config.model.d_model, "a bridge's encoder", f"--config.{field}")
    return fraction


def encode(bridges: Params, i: int, h_dense: jax.Array, fraction: float) -> jax.Array:
    """f_i: (B, T, dense width) to (B, T, sparse width), int(fraction * width) channels of each position nonzero."""
    y = _affine(bridges[f"encoder_{i}"], h_dense)
    return abs_topk(y, int(fraction * y.shape[-1]))


def decode(bridges: Params, i: int, h_sparse: jax.Array) -> jax.Array:
    """g_i: (B, T, sparse width) to (B, T, dense width)."""
    return _affine(bridges[f"decoder_{i}"], h_sparse)


def _affine(layer: Params, x: jax.Array) -> jax.Array:
    """Matrix product, plus a bias where there is one: trained bridges have none, fitted ones (linear.py) do."""
    kernel = layer["kernel"].astype(x.dtype)
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel)
    if "bias" in layer:
        y = y + layer["bias"].astype(x.dtype)[None, :]
    return y.reshape(*x.shape[:-1], kernel.shape[1])
