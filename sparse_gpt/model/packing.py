"""Where the tokens of sequences stand when all of them lie side by side.

B sequences, T tokens of the longest, N tokens of all. Everything but attention acts on each token alone, so no padding
needs to stand between sequences; for attention they are laid out as (B, T) and back.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.parameters import Leaf, PyTree

NOWHERE = np.iinfo(np.int32).max  # where nothing stands; what is read there is 0


@flax.struct.dataclass
class Packing:
    """Which place belongs to which token of which sequence.

    Attributes:
      at: (N,) each token's position in its sequence.
      ends: (B,) where the tokens stand that predict the answers.
      grid: (B, T) where each sequence's tokens stand, NOWHERE after its last one. None: at b * T + t.
      place: (N,) where each token stands in the flattened grid, NOWHERE if it belongs to no sequence; None with it.
      time: T.
    """

    at: Leaf
    ends: Leaf
    grid: Leaf = None
    place: Leaf = None
    time: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def positions(self) -> jax.Array:
        """(B,) positions of the tokens that predict the answers."""
        return jnp.take(self.at, self.ends)

    def by_sequence(self, x: jax.Array) -> jax.Array:
        """(N, n) as (B, T, n), with zeros after the end of each sequence."""
        if self.grid is None:
            return x.reshape(-1, self.time, x.shape[1])
        grid, place = jnp.asarray(self.grid), jnp.asarray(self.place)
        return _taken(x, grid.reshape(-1), place).reshape(*grid.shape, x.shape[1])

    def side_by_side(self, x: jax.Array) -> jax.Array:
        """(B, T, n) as (N, n), with zeros where a token belongs to no sequence."""
        flat = x.reshape(-1, x.shape[2])
        if self.grid is None:
            return flat
        return _taken(flat, jnp.asarray(self.place), jnp.asarray(self.grid).reshape(-1))


@jax.custom_vjp
def _taken(x: jax.Array, index: jax.Array, back: jax.Array) -> jax.Array:
    """Rows of x (n, c) at `index` (m,), zeros at NOWHERE. `back` (n,) says where each row of x stands among those
    taken: so gradients are taken, too, where XLA would scatter them one by one."""
    del back
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


def _taken_forward(x: jax.Array, index: jax.Array, back: jax.Array) -> tuple[jax.Array, PyTree]:
    return _taken(x, index, back), (index, back)


def _taken_backward(saved: PyTree, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    index, back = saved
    return _taken(gradient, back, index), None, None


_taken.defvjp(_taken_forward, _taken_backward)


def of_padded(positions: jax.Array, time: int) -> Packing:
    """Of B sequences that are padded to `time` tokens each."""
    count = positions.shape[0]
    return Packing(jnp.tile(jnp.arange(time), count), jnp.arange(count) * time + positions, time=time)
