"""Circuits transported: what the dense model loses with the image of a sparse model's circuit.

The image of a circuit at a bridged boundary is the span of the decoder's rows for the residual channels that its nodes
read or write there: a node at attn_in or mlp_in reads at the boundary before its sublayer, one at attn_out or mlp_out
writes to the boundary after it. Ablated, the dense stream's component in the image is replaced by its mean over
pretraining text, at every position. Random images are spans of as many rows of other channels at the same boundaries.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.bridges.hybrids import plain_pass
from sparse_gpt.bridges.objective import Bridged
from sparse_gpt.bridges.steering import Models, Node, Samples, logits_at_end
from sparse_gpt.config import READS, WRITES
from sparse_gpt.model.taps import Tap
from sparse_gpt.model.transformer import apply
from sparse_gpt.parameters import Params
from sparse_gpt.records import Transport
from sparse_gpt.records.bridge import ImageBoundary, Outcome, SparseLosses
from sparse_gpt.training.step import cross_entropy

# Boundary of a residual node, in its layer: a sublayer reads at the one before it and writes to the one after.
OFFSET = {site: i for i, site in enumerate(READS)} | {site: i + 1 for i, site in enumerate(WRITES)}
STREAMS = ("resid_in", "resid_mid", "resid_final")
DRAWS = 20

Images = dict[int, np.ndarray]  # bridge -> (draws, dense width, rank), orthonormal columns


def channels(models: Models, nodes: Sequence[Node]) -> dict[int, np.ndarray]:
    """Residual channels of the sparse model that the nodes read or write, by bridge; those elsewhere are left out."""
    numbers = {pair.sparse: i for i, pair in enumerate(models.bridged.pairs)}
    found: dict[int, set[int]] = {}
    for layer, site, channel in nodes:
        boundary = 2 * layer + OFFSET.get(site, 0)
        if site in OFFSET and boundary in numbers and channel < models.bridged.sparse.config.d_model:
            found.setdefault(numbers[boundary], set()).add(channel)
    return {i: np.array(sorted(found[i])) for i in sorted(found)}


@dataclasses.dataclass(frozen=True)
class Means:
    """Of pretraining text, by bridge."""

    dense: list[np.ndarray]  # mean of the dense stream, (dense width,)
    alive: list[np.ndarray]  # channels of the sparse stream that are not zero everywhere


def means(models: Models, batches: Sequence[np.ndarray]) -> Means:
    """Over batches (B, T) of token ids, of one shape."""
    bridged = models.bridged

    @jax.jit
    def totals(dense_params: Params, params: Params, tokens: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        h_dense, _ = plain_pass(bridged.dense, dense_params, tokens, [pair.dense for pair in bridged.pairs])
        h_sparse, _ = plain_pass(bridged.sparse, params, tokens, [pair.sparse for pair in bridged.pairs])
        return [h.mean(axis=(0, 1)) for h in h_dense], [jnp.any(h != 0, axis=(0, 1)) for h in h_sparse]

    found = [jax.device_get(totals(models.dense_params, models.params, tokens)) for tokens in batches]
    dense, sparse = (list(zip(*kind, strict=True)) for kind in zip(*found, strict=True))
    return Means(
        [np.mean(np.array(each, np.float64), axis=0).astype(np.float32) for each in dense],
        [np.flatnonzero(np.any(each, axis=0)) for each in sparse],
    )


def images(models: Models, chosen: Mapping[int, Sequence[np.ndarray]]) -> Images:
    """Bases of the spans of decoder rows: for every bridge, one image for each of several sets of channels."""
    found = {}
    for i, draws in chosen.items():
        kernel = np.asarray(models.bridges[f"decoder_{i}"]["kernel"], np.float64)
        found[i] = np.stack([_basis(kernel[rows]) for rows in draws]).astype(np.float32)
    return found


def _basis(rows: np.ndarray) -> np.ndarray:
    """(width, min(rows, width)): orthonormal columns that span the rows, and zeros where these are dependent."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    return (directions * (sizes > 1e-6 * sizes[0])[:, None]).T


def random_channels(
    own: Mapping[int, np.ndarray], alive: Sequence[np.ndarray], draws: int, seed: int
) -> dict[int, list[np.ndarray]]:
    """As many channels per bridge as in `own`, of the other ones that are alive; all of those if they are too few."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, taken in own.items():
        others = np.setdiff1d(alive[i], taken)
        found[i] = [rng.choice(others, min(len(taken), len(others)), replace=False) for _ in range(draws)]
    return {i: sets for i, sets in found.items() if len(sets[0])}


def _ablate(bridged: Bridged, stream_means: list[jax.Array], bases: Mapping[int, jax.Array]) -> Tap:
    """Replaces the component of the dense stream in each image by that of its mean."""
    dense = bridged.dense.config
    at = {bridged.pairs[i].dense: i for i in bases}

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in STREAMS:
            return x
        number = at.get(2 * dense.n_layer if site == "resid_final" else 2 * layer + STREAMS.index(site))
        if number is None:
            return x
        basis = bases[number].astype(x.dtype)
        return x - jnp.dot(jnp.dot(x - stream_means[number].astype(x.dtype)[None, None, :], basis), basis.T)

    return tap


@functools.partial(jax.jit, static_argnums=0)
def _outcome(
    bridged: Bridged,
    dense_params: Params,
    stream_means: list[jax.Array],
    bases: Mapping[int, jax.Array],
    samples: Samples,
    tokens_BxT1: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Logits (B, 2) of answers and foils, and cross-entropy on the text, without one set of images."""
    tap = _ablate(bridged, stream_means, bases)
    logits = logits_at_end(bridged.dense, dense_params, samples, tap)
    choices = jnp.stack([samples.answer, samples.foil], axis=1)
    text = apply(bridged.dense, dense_params, tokens_BxT1[:, :-1], tap=tap)
    return jnp.take_along_axis(logits, choices, axis=1), cross_entropy(text, tokens_BxT1[:, 1:])


def outcomes(
    models: Models, stream_means: list[np.ndarray], ablated: Images, samples: Samples, tokens_BxT1: np.ndarray
) -> list[Outcome]:
    """What the dense model does without each image.

    Args:
      models, stream_means: see `means`.
      ablated: images, as many draws at every bridge; those without columns or of zeros leave the model as it is.
      samples: of the task.
      tokens_BxT1: rows of pretraining text.

    Returns:
      One per draw; {} counts as one.
    """
    draws = len(next(iter(ablated.values()))) if ablated else 1
    found = []
    for i in range(draws):
        bases = {number: bases[i] for number, bases in ablated.items()}
        pairs, loss = _outcome(models.bridged, models.dense_params, stream_means, bases, samples, tokens_BxT1)
        margin = np.subtract(*np.asarray(pairs, np.float64).T)
        task_loss = float(np.mean(np.logaddexp(0.0, -margin)))
        found.append(Outcome(task_loss=task_loss, accuracy=float(np.mean(margin > 0)), loss=float(loss)))
    return found


class TaskCircuit(Protocol):
    """A circuit, as circuits.Circuit has it."""

    @property
    def task(self) -> str: ...
    @property
    def nodes(self) -> Sequence[Node]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


def transport(
    models: Models, circuit: TaskCircuit, found: Means, samples: Samples, tokens_BxT1: np.ndarray, seed: int
) -> Transport:
    """The contents of transport.json.

    Args:
      models: both, and the bridges.
      circuit: of the sparse model.
      found: see `means`.
      samples: held-out samples of the task.
      tokens_BxT1: rows of pretraining text.
      seed: of the random images.
    """
    own = channels(models, circuit.nodes)
    mine = images(models, {i: [rows] for i, rows in own.items()})
    random = images(models, random_channels(own, found.alive, DRAWS, seed))

    def measured(ablated: Images) -> list[Outcome]:
        return outcomes(models, found.dense, ablated, samples, tokens_BxT1)

    losses = circuit.metrics
    return Transport(
        task=circuit.task,
        params_sha256=models.params_sha256,
        dense_params_sha256=models.dense_params_sha256,
        boundaries=tuple(
            ImageBoundary(
                dense=models.bridged.pairs[i].dense,
                sparse=models.bridged.pairs[i].sparse,
                channels=len(rows),
                rank=int(np.any(mine[i][0] != 0, axis=0).sum()),
                width=models.bridged.dense.config.d_model,
            )
            for i, rows in own.items()
        ),
        samples=len(samples.positions),
        dense=measured({i: np.zeros_like(bases) for i, bases in mine.items()})[0],  # the same program
        image=measured(mine)[0] if mine else None,
        random=tuple(measured(random) if random else ()),
        sparse=SparseLosses(
            full_model_task_loss=losses.get("full_model_task_loss"), ablated_task_loss=losses.get("ablated_task_loss")
        ),
    )
