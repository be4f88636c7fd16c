"""The parameter table: one row per tensor, and the single source for how that tensor is made and treated.

Initialization, logical axes for sharding, what the projection does to a tensor, weight decay and the axis along
which min-alive protects a neuron are all read from here (paper, section 2 and appendix).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparse_gpt.config import ModelConfig

Path = tuple[str, ...]
Leaf = Any  # an array that is traced, on a device or on the host, or what stands for it: a shape, a sharding
PyTree = Any  # a tree of such leaves, as JAX takes it
Params = PyTree  # nested dict of arrays, the "params" collection of the Flax model

# What a tensor is; sparsity/projection.py and training/optimizer.py decide by it.
MATRIX = "matrix"  # block weight matrices: projected, with min-alive
BIAS = "bias"  # biases: projected by the paper, left alone by the reference
EMBEDDING = "embedding"  # token embedding and unembedding: projected at their own density, no min-alive
POSITION = "position"  # learned positions: projected by the reference only
NORM = "norm"  # norm scales (and biases): never projected
SINK = "sink"  # attention sinks: never projected
BIGRAM = "bigram"  # dense vocabulary x vocabulary table: never projected, never decayed


@dataclasses.dataclass(frozen=True)
class ParameterSpec:
    """One tensor. `axes` are logical axis names (see training/sharding.py); `neuron_axis` is the axis that counts the
    neurons or attention channels which min-alive protects (None: no protection)."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    kind: str
    init: str  # "zeros", "ones" or "normal"
    scale: float = 0.0  # standard deviation of "normal"
    neuron_axis: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def make(self, key: jax.Array) -> jax.Array:
        """Float32 initial value."""
        if self.init == "normal":
            return self.scale * jax.random.normal(key, self.shape, jnp.float32)
        return (jnp.ones if self.init == "ones" else jnp.zeros)(self.shape, jnp.float32)


@functools.cache
def parameter_table(m: ModelConfig) -> Mapping[Path, ParameterSpec]:
    """Every parameter of the model by its path in the "params" tree, in a fixed order.

    Weight matrices are stored (in, out). `c_attn` has the outputs of q, k and v side by side, in that order.
    """
    table: dict[Path, ParameterSpec] = {}
    table["wte",] = ParameterSpec((m.vocab_size, m.d_model), ("vocab", "embed"), EMBEDDING, "normal", 0.02)
    if m.position == "additive":
        table["wpe",] = ParameterSpec((m.context, m.d_model), ("context", "embed"), POSITION, "normal", 0.02)
    if m.position == "concat":
        table["wpe",] = ParameterSpec((m.context, m.d_position), ("context", "position"), POSITION, "normal", 0.02)
    for layer in range(m.n_layer):
        table |= {(f"h_{layer}", *path): spec for path, spec in _block_table(m).items()}
    table |= {("ln_f", *path): spec for path, spec in _norm_table(m, m.d_model, "embed").items()}
    if not m.tied:
        table["lm_head",] = ParameterSpec((m.d_model, m.vocab_size), ("embed", "vocab"), EMBEDDING, "normal", 0.02)
    if m.final_bias:
        table["final_logits_bias",] = ParameterSpec((m.vocab_size,), ("vocab",), BIAS, "zeros")
    if m.bigram:
        table["bigram",] = ParameterSpec((m.vocab_size, m.vocab_size), ("vocab", "next_vocab"), BIGRAM, "zeros")
    return table


def _block_table(m: ModelConfig) -> dict[Path, ParameterSpec]:
    read, heads = m.d_model + m.d_position, m.n_head * m.d_head
    write = 0.02 / math.sqrt(2 * m.n_layer)
    table: dict[Path, ParameterSpec] = {}
    table |= {("ln_1", *path): spec for path, spec in _norm_table(m, m.d_model, "embed").items()}
    table |= _linear_table(("attn", "c_attn"), (read, 3 * heads), ("read", "heads"), 0.02, 1, m.bias)
    table |= _linear_table(("attn", "c_proj"), (heads, m.d_model), ("heads", "write"), write, 0, m.bias)
    if m.attention_sink:
        table["attn", "sink"] = ParameterSpec((m.n_head,), ("head",), SINK, "zeros")
    table |= {("ln_2", *path): spec for path, spec in _norm_table(m, m.d_model, "embed").items()}
    table |= _linear_table(("mlp", "c_fc"), (read, m.d_mlp), ("read", "mlp"), 0.02, 1, m.bias)
    table |= _linear_table(("mlp", "c_proj"), (m.d_mlp, m.d_model), ("mlp", "write"), write, 0, m.bias)
    if m.d_position:
        for name in ("ln_p1", "ln_p2"):
            table |= {(name, *path): spec for path, spec in _norm_table(m, m.d_position, "position").items()}
    return table


def _norm_table(m: ModelConfig, width: int, axis: str) -> dict[Path, ParameterSpec]:
    table: dict[Path, ParameterSpec] = {("scale",): ParameterSpec((width,), (axis,), NORM, "ones")}
    if m.norm_bias:
        table["bias",] = ParameterSpec((width,), (axis,), NORM, "zeros")
    return table


def _linear_table(
    path: Path, shape: tuple[int, int], axes: tuple[str, str], scale: float, neuron_axis: int, bias: bool
) -> dict[Path, ParameterSpec]:
    table = {(*path, "kernel"): ParameterSpec(shape, axes, MATRIX, "normal", scale, neuron_axis)}
    if bias:
        table[(*path, "bias")] = ParameterSpec(shape[1:], axes[1:], BIAS, "zeros")
    return table


def flatten(params: Params) -> dict[Path, PyTree]:
    """Leaves of a nested dict by path, sorted by path."""
    return dict(sorted(_leaves(params, ())))


def _leaves(tree: Params, prefix: Path) -> Iterator[tuple[Path, PyTree]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for name, subtree in tree.items():
        yield from _leaves(subtree, (*prefix, name))


def unflatten(leaves: Mapping[Path, PyTree]) -> Params:
    """Inverse of `flatten`."""
    tree: Params = {}
    for path, leaf in leaves.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree


def abstract_params(m: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters without values."""
    return unflatten({path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in parameter_table(m).items()})
