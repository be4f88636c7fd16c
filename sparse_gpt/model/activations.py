"""Activation functions of neurons, by the names that `model.activation` takes.

What runs a model in Python finds them here, so that a name that is missing is a KeyError instead of another function.
The page has its own, `activate` in sparse_gpt/page/engine/numbers.js. All are 0 at 0, on which
circuits/liveness.py counts.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Activation(NamedTuple):
    """One function in two forms."""

    traced: Callable[[jax.Array], jax.Array]
    constants: Callable[[np.ndarray], np.ndarray]  # of float64 arrays on the host


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) with the exact error function. The backward pass reuses Phi: erf costs as much as a matrix product."""
    return _gelu_forward(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    phi = 0.5 + 0.5 * jax.lax.erf(x * 2**-0.5)
    return x * phi, (x, phi)


def _gelu_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, phi = saved
    return (gradient * (phi + x * jnp.exp(-0.5 * x * x) * (2 * math.pi) ** -0.5),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _gelu_of_constants(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.asarray(jax.scipy.special.erf(np.asarray(x, np.float32) * np.float32(2**-0.5))))


def _relu_of_constants(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": Activation(gelu, _gelu_of_constants),
    "relu": Activation(jax.nn.relu, _relu_of_constants),
}
