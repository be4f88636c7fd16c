"""A search that a signal stops between two chunks of steps: a file keeps what it has done, until it goes on."""

from pathlib import Path
from typing import Any

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
    parts = {"searches": h, "states": jax.device_get(states), "history": joined}
    arrays: dict[str, Any] = {"done": np.asarray(done)}
    for part, tree in parts.items():
        arrays |= _named(part, tree)
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


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
    ours, like = _named("searches", h), _named("states", states)
    theirs, found, history = (
        {name: array for name, array in arrays.items() if name.startswith(f"{part}/")}
        for part in ("searches", "states", "history")
    )
    done = arrays.get("done", np.zeros(0))
    if (
        done.size != 1
        or done.dtype.kind not in "iu"
        or not history
        or (theirs.keys(), found.keys()) != (ours.keys(), like.keys())
    ):
        return fresh
    if any(not np.array_equal(theirs[name], ours[name]) for name in ours):
        return fresh
    if any((found[name].shape, found[name].dtype) != (like[name].shape, like[name].dtype) for name in like):
        return fresh
    there = jax.tree.unflatten(jax.tree.structure(states), [jax.numpy.array(found[name]) for name in like])
    return int(done), there, [tuple(history.values())]


def _named(part: str, tree: PyTree) -> dict[str, Leaf]:
    """Every array of a tree by its path, such as states/0/tau/attn_q, in the tree's order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"{part}/{jax.tree_util.keystr(path, simple=True, separator='/')}": leaf for path, leaf in leaves}
