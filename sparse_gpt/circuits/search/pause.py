"""A search that a signal stops between two chunks of steps: a file keeps what it has done, until it goes on."""

from pathlib import Path

import jax
import numpy as np

from sparse_gpt.arrays import read_npz
from sparse_gpt.errors import InputError
from sparse_gpt.io import replacing
from sparse_gpt.parameters import Leaf, PyTree


def write(path: Path, done: int, h: PyTree, states: PyTree, history: list[tuple[Leaf, ...]]) -> None:
    """Writes a file, whole or not at all.

    Args:
      path: an .npz file.
      done: finished steps.
      h: hyperparameters of the searches: what the file is for.
      states: pytree of arrays after `done` steps.
      history: chunk by chunk, a tuple of arrays with the leading axis steps.
    """
    joined = [np.concatenate(parts) for parts in zip(*history, strict=True)]
    with replacing(path) as temporary:
        np.savez(temporary, *jax.tree.leaves((np.asarray(done), h, jax.device_get(states), joined)))


def read(path: Path | None, h: PyTree, states: PyTree) -> tuple[int, PyTree, list[tuple[Leaf, ...]]]:
    """(finished steps, states, history) to go on from: of the file if it is there and for these searches, else 0, the
    given states and no history. A file that cannot be read is as none."""
    fresh: tuple[int, PyTree, list[tuple[Leaf, ...]]] = (0, states, [])
    if path is None or not path.is_file():
        return fresh
    try:
        arrays = read_npz(path)
    except InputError:
        return fresh
    leaves = [arrays[name] for name in (f"arr_{i}" for i in range(len(arrays))) if name in arrays]
    ours, like = jax.tree.leaves(h), jax.tree.leaves(states)
    if len(leaves) <= 1 + len(ours) + len(like) or leaves[0].size != 1 or leaves[0].dtype.kind not in "iu":
        return fresh
    done, theirs, rest = int(leaves[0]), leaves[1 : 1 + len(ours)], leaves[1 + len(ours) :]
    found, history = rest[: len(like)], rest[len(like) :]
    same = all(np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))
    if not same or any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(found, like, strict=True)):
        return fresh
    there = jax.tree.map(jax.numpy.array, jax.tree.unflatten(jax.tree.structure(states), found))
    return done, there, [tuple(history)]
