"""Where the tokens of prompts stand when all of them lie side by side, as `StandaloneCircuit` takes them.

B prompts, T tokens of the longest, N tokens of all. Everything but attention acts on each token alone, so no padding
needs to stand between prompts; for attention they are laid out as (B, T) and back.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.parameters import Leaf


@flax.struct.dataclass
class Layout:
    """Which place belongs to which token of which prompt.

    Attributes:
        at: (N,) each token's position in its prompt.
        ends: (B,) where the tokens stand that predict the answers.
        grid: (B, T) where each prompt's tokens stand; after its last one, anywhere. None: at b * T + t.
        place: (N,) where each token stands in the flattened grid; None with it.
        time: T.
    """

    at: Leaf
    ends: Leaf
    grid: Leaf = None
    place: Leaf = None
    time: int = flax.struct.field(pytree_node=False, default=0)

    def by_prompt(self, x: jax.Array) -> jax.Array:
        """(N, n) as (B, T, n)."""
        return x.reshape(-1, self.time, x.shape[1]) if self.grid is None else jnp.take(x, self.grid, axis=0)

    def side_by_side(self, x: jax.Array) -> jax.Array:
        """(B, T, n) as (N, n)."""
        flat = x.reshape(-1, x.shape[2])
        return flat if self.place is None else jnp.take(flat, self.place, axis=0)


class PackedBatch(NamedTuple):
    """Samples of a task without padding between their prompts."""

    tokens: Leaf  # (N,) int32
    layout: Layout
    answer: Leaf  # (B,) int32
    foil: Leaf  # (B,) int32


def padded_layout(positions: jax.Array, time: int) -> Layout:
    """Of B prompts that are padded to `time` tokens each."""
    count = positions.shape[0]
    return Layout(jnp.tile(jnp.arange(time), count), jnp.arange(count) * time + positions, time=time)


def packed(batch: TaskBatch, count: int, multiple: int) -> PackedBatch:
    """A batch on the host with its prompts one after the other, each up to the token that predicts its answer.

    Filled up to `count` prompts (B), of no tokens of their own, and to a `multiple` of tokens (N): few programs serve
    many batches.
    """
    tokens, ends = np.asarray(batch.tokens), np.asarray(batch.positions)
    time, more = tokens.shape[1], count - len(tokens)
    row, at = np.nonzero(np.arange(time)[None, :] <= ends[:, None])
    fill = -len(row) % multiple
    grid = np.zeros((count, time), np.int32)
    grid[row, at] = np.arange(len(row))

    def with_tokens(x: np.ndarray) -> np.ndarray:
        return np.pad(x, (0, fill)).astype(np.int32)

    def with_prompts(x: Leaf) -> np.ndarray:
        return np.pad(np.asarray(x), (0, more)).astype(np.int32)

    layout = Layout(with_tokens(at), with_prompts(np.cumsum(ends + 1) - 1), grid, with_tokens(row * time + at), time)
    return PackedBatch(with_tokens(tokens[row, at]), layout, with_prompts(batch.answer), with_prompts(batch.foil))


def packed_values(values: np.ndarray, batch: TaskBatch, into: PackedBatch) -> np.ndarray:
    """What belongs to tokens (B, at least T), or to prompts (B, 1), of a batch in the order of `packed(batch, ...)`:
    (N,), or (its B,), filled up with zeros."""
    ends = np.asarray(batch.positions)
    if values.shape[1] == 1:
        return np.pad(values[:, 0], (0, len(into.answer) - len(ends)))
    inside = np.arange(values.shape[1])[None, :] <= ends[:, None]
    return np.pad(values[inside], (0, len(into.tokens) - int(inside.sum())))
