"""Mixtures: passes that change between the dense and the sparse model at any number of bridged boundaries.

N bridges cut both models into N + 1 pieces. The first holds the embedding and the last the unembedding; with a bridge
at every sublayer boundary, each of the others is one sublayer. A path has one letter per piece, "d" or "s" for the
model that runs it: "dds" enters the sparse model through the second bridge and stays there.

Shapes: B batch, T position, P paths.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.bridges import bridge
from sparse_gpt.bridges.hybrids import plain_pass
from sparse_gpt.bridges.objective import Bridged, divergences
from sparse_gpt.model.transformer import apply
from sparse_gpt.parameters import Params
from sparse_gpt.records.base import finite
from sparse_gpt.records.bridge import MixturePath, Mixtures
from sparse_gpt.training.step import cross_entropy

MOST_PIECES = 8  # six sublayers, embedding and unembedding: 256 paths
ROWS = 16  # sequences that go through all paths at one time


def paths(pieces: int) -> tuple[str, ...]:
    """Every path when there are at most MOST_PIECES pieces; else those with no, one or two switches."""
    if pieces <= MOST_PIECES:
        return tuple("".join(path) for path in itertools.product("ds", repeat=pieces))
    blocks = {
        outer * start + inner * (stop - start) + outer * (pieces - stop)
        for start, stop in itertools.combinations(range(pieces + 1), 2)
        for outer, inner in ("ds", "sd")
    }
    return tuple(sorted(blocks))


def mixture_terms(
    bridged: Bridged,
    wanted: Sequence[str],
    dense_params: Params,
    params: Params,
    bridges: Params,
    tokens_BxT1: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What the given paths predict on a batch whose rows hold context + 1 tokens.

    Paths go through the models in step, and what two paths have in common at their beginning is computed once.

    Returns:
      Cross-entropies (P,), and divergences KL(dense logits || logits of the path) (P,); both in nats per token.
    """
    tokens, targets = tokens_BxT1[:, :-1], tokens_BxT1[:, 1:]
    models = {"d": (bridged.dense, dense_params), "s": (bridged.sparse, params)}
    _, dense_logits = plain_pass(bridged.dense, dense_params, tokens, ())
    starts = {"d": [0, *(p.dense for p in bridged.pairs)], "s": [0, *(p.sparse for p in bridged.pairs)]}

    def piece(name: str, number: int) -> Callable[[jax.Array], jax.Array]:
        model, own_params = models[name]
        stop = [*starts[name], 2 * model.config.n_layer][number + 1]
        return lambda h: apply(model, own_params, h, starts[name][number], stop, method="run")

    def crossing(into: str, number: int) -> Callable[[jax.Array], jax.Array]:
        if into == "s":
            return lambda h: bridge.encode(bridges, number, h, bridged.fraction)
        return lambda h: bridge.decode(bridges, number, h)

    def outcome(name: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        model, own_params = models[name]

        def of(h: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = apply(model, own_params, h, tokens, method="unembed")
            return cross_entropy(logits, targets), divergences(dense_logits, logits[:, None])[0]

        return of

    begun = {name: [name] for name in models}  # the beginnings of paths whose streams are at hand, by last model
    streams = {
        name: piece(name, 0)(apply(model, own_params, tokens, method="embed"))[None]
        for name, (model, own_params) in models.items()
    }
    for number in range(1, len(bridged.pairs) + 1):
        longer = sorted({path[: number + 1] for path in wanted})
        entering, begin = {}, {}
        for own, other in ("ds", "sd"):
            stay, change = ([p for p in longer if p.endswith(last + own)] for last in (own, other))
            came = jax.lax.map(crossing(own, number - 1), streams[other][_places(begun[other], change)])
            entering[own] = jnp.concatenate([streams[own][_places(begun[own], stay)], came])
            begin[own] = stay + change
        begun = begin
        streams = {name: jax.lax.map(piece(name, number), entering[name]) for name in models}
    found = [jax.lax.map(outcome(name), streams[name]) for name in models]
    losses, diverging = (jnp.concatenate(values) for values in zip(*found, strict=True))
    order = np.array([(begun["d"] + begun["s"]).index(path) for path in wanted])
    return losses[order], diverging[order]


def _places(begun: list[str], longer: list[str]) -> np.ndarray:
    """Where the beginnings of longer paths, without their last piece, stand in `begun`."""
    return np.array([begun.index(path[:-1]) for path in longer], np.int32)


def evaluate(
    bridged: Bridged, dense_params: Params, params: Params, bridges: Params, batches: Sequence[np.ndarray]
) -> Mixtures:
    """The entry "mixtures" of bridge.json: means over batches of `mixture_terms` for `paths`."""
    wanted = paths(len(bridged.pairs) + 1)
    compiled = jax.jit(functools.partial(mixture_terms, bridged, wanted))
    parts = [batch[i : i + ROWS] for batch in batches for i in range(0, len(batch), ROWS)]
    found = [jax.device_get(compiled(dense_params, params, bridges, part)) for part in parts]
    losses, diverging = np.average(np.array(found, np.float64), axis=0, weights=[len(part) for part in parts])
    return Mixtures(
        complete=len(wanted) == 2 ** (len(bridged.pairs) + 1),
        paths=tuple(
            MixturePath(path=path, loss=finite(float(loss)), kl=finite(float(kl)))
            for path, loss, kl in zip(wanted, losses, diverging, strict=True)
        ),
    )
