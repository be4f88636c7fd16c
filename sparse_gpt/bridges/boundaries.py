"""Which sublayer boundary of the dense model is bridged to which one of the sparse model, and which are sampled.

Boundaries are numbered as in `Transformer.run`: 0 is the embedding, 2 l + 1 is after attention of layer l, 2 l + 2
after its MLP; a model of L layers has 2 L + 1 of them.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.errors import InputError


class Pair(NamedTuple):
    """Two boundaries joined by one bridge (an encoder and a decoder)."""

    dense: int
    sparse: int


Groups = tuple[tuple[int, ...], ...]  # consecutive bridges, by number; one bridge of each group is taken per step


def boundary_map(pairs_text: Sequence[str], dense_layers: int, sparse_layers: int) -> tuple[Pair, ...]:
    """The bridges, in order of depth, from such as ("0:0", "4:2", "8:4") (dense:sparse); none joins boundaries one to
    one.

    Raises:
      InputError: not a list of pairs of numbers; a boundary that its model does not have; pairs that do not ascend in
        both models; or no map for models of different depth.
    """
    field = f"--config.bridge.boundaries={','.join(pairs_text)}"
    if not pairs_text:
        if dense_layers != sparse_layers:
            raise InputError(
                f"{field}: the dense model has {dense_layers} layers, the sparse one {sparse_layers}; say which "
                f'boundaries belong together, such as "0:0,{2 * dense_layers}:{2 * sparse_layers}" (dense:sparse)'
            )
        return tuple(Pair(i, i) for i in range(2 * sparse_layers + 1))
    try:
        pairs = [Pair(*(int(number) for number in part.split(":"))) for part in pairs_text]
    except (TypeError, ValueError) as error:
        raise InputError(f'{field}: expected pairs dense:sparse of numbers, such as "0:0,4:2,8:4"') from error
    for pair in pairs:
        for name, boundary, layers in (("dense", pair.dense, dense_layers), ("sparse", pair.sparse, sparse_layers)):
            if not 0 <= boundary <= 2 * layers:
                raise InputError(
                    f"{field}: the {name} model of {layers} layers has boundaries 0 to {2 * layers}, not {boundary}"
                )
    for before, after in itertools.pairwise(pairs):
        if after.dense <= before.dense or after.sparse <= before.sparse:
            raise InputError(
                f"{field}: {after.dense}:{after.sparse} must be deeper in both models than "
                f"{before.dense}:{before.sparse}"
            )
    return tuple(pairs)


def groups(bridges: int, sampled: int) -> Groups:
    """`sampled` groups of consecutive bridges, as equal as can be; 0 makes every bridge a group of its own.

    Raises:
      InputError: more groups than bridges.
    """
    if sampled > bridges:
        raise InputError(f"--config.bridge.sampled={sampled}: there are only {bridges} bridges; 0 takes all of them")
    parts = np.array_split(np.arange(bridges), sampled or bridges)
    return tuple(tuple(int(i) for i in part) for part in parts)


def choose(key: jax.Array, grouped: Groups) -> jax.Array:
    """One bridge of each group, uniformly: (groups,) int32.

    A term of the chosen bridge times the size of its group is an unbiased estimate of the sum over the group.
    """
    uniform = jax.random.uniform(key, (len(grouped),))
    first, size = (np.array(numbers, np.int32) for numbers in zip(*((g[0], len(g)) for g in grouped), strict=True))
    offset = (uniform * size.astype(np.float32)).astype(np.int32)
    return jnp.asarray(first) + jnp.minimum(offset, size - 1)
