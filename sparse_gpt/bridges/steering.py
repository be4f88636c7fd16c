"""Steering: what a node of the sparse model stands for, done to the dense one (paper, section on bridges).

A node at a residual read (attn_in, mlp_in) is a channel of the sparse model's normalized stream at a boundary. Its
counterfactual difference, what it is on the other prompt of a pair minus what it is on this one, times its row of that
boundary's decoder is a change of the dense model's stream. It is added, times a strength, in one of two ways: to the
normalized stream that the dense model reads there, divided by the dense model's RMS instead of the sparse one's (the
paper's way, felt by one sublayer), or to the stream itself, where later sublayers read it too.

Shapes: B samples (rows 2 i and 2 i + 1 are a pair), T position, R read width, S strengths.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt import records
from sparse_gpt.bridges.objective import Bridged
from sparse_gpt.config import READS
from sparse_gpt.errors import InputError
from sparse_gpt.model.taps import Tap, recorder
from sparse_gpt.model.transformer import Transformer, apply
from sparse_gpt.parameters import Params
from sparse_gpt.records import NodeEntry, converted
from sparse_gpt.records.bridge import Candidate, Curve, DensePlace, SteeringCurves

NORMS = {"attn_in": ("attn_norm", "ln_1"), "mlp_in": ("mlp_norm", "ln_2")}  # tap and parameters of each read's norm
STREAMS = ("resid_in", "resid_mid")  # tap of the stream that each read normalizes
PLACES = (*READS, *STREAMS)
STRENGTHS = tuple(i / 10 for i in range(11))
RANDOM_DIRECTIONS = 8
MOST_CANDIDATES = 12  # nodes that are tried on validation samples, the highest scores first

Node = tuple[int, str, int]  # layer, site, channel; records.Node and circuits.Node are such


Array = np.ndarray | jax.Array


class Samples(Protocol):
    """Prompts in pairs, as circuits.TaskBatch has them: int32 arrays of the host."""

    @property
    def tokens(self) -> Array: ...  # (B, T), padded on the right
    @property
    def positions(self) -> Array: ...  # (B,), where the answer is predicted
    @property
    def answer(self) -> Array: ...  # (B,)
    @property
    def foil(self) -> Array: ...  # (B,)


S = TypeVar("S", bound=Samples)  # and a tree of arrays


class Models(NamedTuple):
    """Two models with their parameters and the bridges between them."""

    bridged: Bridged
    dense_params: Params
    params: Params
    bridges: Params
    params_sha256: str = ""  # fingerprints, of the sparse model and of the dense one
    dense_params_sha256: str = ""


class Place(NamedTuple):
    """Where a node is felt in the dense model: through which bridge, at which read."""

    bridge: int
    layer: int
    site: str


def place(bridged: Bridged, node: Node) -> Place | None:
    """None for a node that is no residual channel of a read, or at a boundary without a bridge to a dense read."""
    layer, site, channel = node
    if site not in READS or layer < 0 or not 0 <= channel < bridged.sparse.config.d_model:
        return None  # a negative index would count from the end
    for i, pair in enumerate(bridged.pairs):
        if pair.sparse == 2 * layer + READS.index(site) and pair.dense < 2 * bridged.dense.config.n_layer:
            return Place(i, pair.dense // 2, READS[pair.dense % 2])
    return None


def comparable(samples: S, task: str) -> S:
    """The pairs of a TaskBatch whose prompts have one length, so that positions correspond. InputError if none has."""
    even = np.asarray(samples.positions).reshape(-1, 2)
    kept = np.repeat(even[:, 0] == even[:, 1], 2)
    if not kept.any():
        raise InputError(f"--task={task}: no pair has two prompts of one length, so their nodes cannot be compared")
    pairs: S = jax.tree.map(lambda array: array[kept], samples)
    return pairs


@functools.partial(jax.jit, static_argnums=0)
def _reads(model: Transformer, params: Params, tokens: jax.Array) -> dict[tuple[str, int], jax.Array]:
    """What every read and the reciprocal norm before it is, by (site, layer)."""
    seen: dict[tuple[str, int], jax.Array] = {}
    model.apply({"params": params}, tokens, tap=recorder(seen, (*READS, *(tap for tap, _ in NORMS.values()))))
    return seen


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(
    model: Transformer, params: Params, delta: jax.Array, chosen: jax.Array, samples: Samples, strength: jax.Array
) -> jax.Array:
    """(B, 3) probabilities of answer and foil, and the foil's share of both, with strength * delta (B, T, R) added.

    `chosen` (PLACES, L) is 1 where it is added and 0 elsewhere: as a number, so that all share one compiled program.
    """

    def tap(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in PLACES:
            return x
        return x + (strength * chosen[PLACES.index(site), layer] * delta[..., : x.shape[-1]]).astype(x.dtype)

    logits = logits_at_end(model, params, samples, tap)
    choices = jnp.stack([samples.answer, samples.foil], axis=1)
    margin = jnp.subtract(*jnp.take_along_axis(logits, choices, axis=1).T)
    both = jnp.take_along_axis(jax.nn.softmax(logits), choices, axis=1)
    return jnp.concatenate([both, jax.nn.sigmoid(-margin)[:, None]], axis=1)


def logits_at_end(model: Transformer, params: Params, samples: Samples, tap: Tap) -> jax.Array:
    """(B, V) logits where answers are predicted; the tap sees all positions at every sublayer."""
    h = apply(model, params, samples.tokens, method="embed")
    h = apply(model, params, h, 0, 2 * model.config.n_layer, tap, method="run")
    last = jnp.take_along_axis(samples.tokens, samples.positions[:, None], axis=1)
    h = jnp.take_along_axis(h, samples.positions[:, None, None], axis=1)
    return apply(model, params, h, last, tap, method="unembed")[:, 0]


class Steered(NamedTuple):
    """Probabilities (S, 3) of answer and foil and the foil's share of both, means over samples, with one node steered.

    The random ones (draws, S, 3) have the same norm at every position, in random directions.
    """

    sparse: np.ndarray
    dense: np.ndarray  # by a change of one read
    random: np.ndarray
    stream: np.ndarray  # the dense model, by a change of its stream
    random_stream: np.ndarray


class Steering:
    """Steers both models through nodes, on the samples of one task."""

    def __init__(self, models: Models, samples: Samples):
        """`samples` are from `comparable`."""
        self.models, self.samples = models, samples
        m = models
        self.sparse_reads = _reads(m.bridged.sparse, m.params, samples.tokens)
        self.dense_reads = _reads(m.bridged.dense, m.dense_params, samples.tokens)

    def difference(self, node: Node) -> np.ndarray:
        """(B, T): the node on the other prompt of the pair minus on this one, 0 after the answer's position."""
        layer, site, channel = node
        x = np.asarray(self.sparse_reads[site, layer], np.float32)[:, :, channel]
        other = x.reshape(-1, 2, x.shape[1])[:, ::-1].reshape(x.shape)
        inside = np.arange(x.shape[1])[None, :] <= np.asarray(self.samples.positions)[:, None]
        return np.where(inside, other - x, 0.0)

    def change(self, node: Node, at: Place) -> np.ndarray:
        """(B, T, R): what strength 1 adds to the dense model's read.

        The norms' learned scales are part of a read, so the sparse one is divided out and the dense one multiplied in.
        """
        m, dense = self.models, self.models.bridged.dense.config
        change = self.stream_change(node, at)
        if dense.norm == "layer":
            change = change - change.mean(axis=2, keepdims=True)
        change = change * np.asarray(self.dense_reads[NORMS[at.site][0], at.layer], np.float32)
        change = change * np.asarray(m.dense_params[f"h_{at.layer}"][NORMS[at.site][1]]["scale"])
        return np.pad(change, ((0, 0), (0, 0), (0, dense.d_position)))

    def stream_change(self, node: Node, at: Place) -> np.ndarray:
        """(B, T, dense width): what strength 1 adds to the dense model's stream."""
        m, (layer, site, channel) = self.models, node
        row = np.asarray(m.bridges[f"decoder_{at.bridge}"]["kernel"])[channel]
        scale = float(np.asarray(m.params[f"h_{layer}"][NORMS[site][1]]["scale"])[channel])
        own = np.asarray(self.sparse_reads[NORMS[site][0], layer], np.float32)[:, :, 0]  # one over the stream's RMS
        size = self.difference(node) / own / scale if scale else np.zeros_like(own)
        return size[:, :, None] * row

    def sparse(self, node: Node, strengths: Sequence[float]) -> np.ndarray:
        """(S, 3): the node itself moves towards its value on the other prompt."""
        layer, site, channel = node
        width = self.sparse_reads[site, layer].shape[-1]
        delta = self.difference(node)[:, :, None] * np.eye(width, dtype=np.float32)[channel]
        m = self.models
        return _means(m.bridged.sparse, (site, layer), m.params, delta, self.samples, strengths)

    def dense(self, at: Place, change: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
        """(S, 3): the dense model with a change (B, T, R) of its read."""
        m = self.models
        return _means(m.bridged.dense, (at.site, at.layer), m.dense_params, change, self.samples, strengths)

    def stream(self, at: Place, change: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
        """(S, 3): the dense model with a change (B, T, dense width) of its stream before that read."""
        m, dense = self.models, self.models.bridged.dense.config
        where = STREAMS[READS.index(at.site)], at.layer
        padded = np.pad(change, ((0, 0), (0, 0), (0, dense.d_position)))  # the same program as for reads
        return _means(m.bridged.dense, where, m.dense_params, padded, self.samples, strengths)

    def curves(self, node: Node, at: Place, seed: int) -> Steered:
        """All curves of one node."""
        width = self.models.bridged.dense.config.d_model
        read, stream = self.change(node, at), self.stream_change(node, at)
        directions = np.random.default_rng(seed).normal(size=(RANDOM_DIRECTIONS, width)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)

        def random(change: np.ndarray) -> list[np.ndarray]:
            norm, wider = np.linalg.norm(change, axis=2, keepdims=True), change.shape[2] - width
            return [norm * np.pad(direction, (0, wider)) for direction in directions]

        return Steered(
            self.sparse(node, STRENGTHS),
            self.dense(at, read, STRENGTHS),
            np.array([self.dense(at, change, STRENGTHS) for change in random(read)]),
            self.stream(at, stream, STRENGTHS),
            np.array([self.stream(at, change, STRENGTHS) for change in random(stream)]),
        )


def _means(
    model: Transformer,
    at: tuple[str, int],
    params: Params,
    delta: np.ndarray,
    samples: Samples,
    strengths: Sequence[float],
) -> np.ndarray:
    chosen = np.zeros((len(PLACES), model.config.n_layer), np.float32)
    chosen[PLACES.index(at[0]), at[1]] = 1
    placed = jax.device_put(delta)
    found = [_probabilities(model, params, placed, chosen, samples, np.float32(strength)) for strength in strengths]
    return np.array(found, np.float64).mean(axis=1)


def candidates(steering: Steering, nodes: Sequence[Node], importance: Mapping[Node, float]) -> list[Candidate]:
    """Nodes that can be steered, the one with the largest counterfactual difference times importance first.

    Args:
      steering: on validation samples.
      nodes: of the circuit.
      importance: what the sparse model's task loss gains without a node, nats; nodes that are not there count 0, and
        all count 1 when it is empty.

    Returns:
      At most MOST_CANDIDATES entries of steering.json.
    """
    entries = []
    for node in nodes:
        at = place(steering.models.bridged, node)
        if at is None:
            continue
        difference = float(np.sqrt(np.mean(np.sum(steering.difference(node) ** 2, axis=1))))
        worth = max(0.0, importance.get(node, 0.0)) if importance else 1.0
        entries.append((difference * worth, difference, worth, node, at))
    entries.sort(key=lambda entry: -entry[0])
    return [
        converted(
            {
                **dict(zip(("layer", "site", "channel"), node, strict=True)),
                "difference": difference,
                "importance": worth,
                "score": score,
                **_at_strength_one(steering, node, at),
            },
            Candidate,
        )
        for score, difference, worth, node, at in entries[:MOST_CANDIDATES]
    ]


def _at_strength_one(steering: Steering, node: Node, at: Place) -> dict[str, float]:
    found = {
        "dense": steering.dense(at, steering.change(node, at), [1.0]),
        "stream": steering.stream(at, steering.stream_change(node, at), [1.0]),
        "sparse": steering.sparse(node, [1.0]),
    }
    return {f"{way}_{key}": float(x[0, i]) for key, i in (("foil", 1), ("share", 2)) for way, x in found.items()}


def steer(steering: Steering, task: str, node: Node, seed: int, tried: Sequence[Candidate] = ()) -> records.Steering:
    """The contents of steering.json: one node on held-out samples.

    Args:
      steering: on held-out samples.
      task: its name.
      node: which to steer.
      seed: of the random directions.
      tried: the candidates that it was chosen from.

    Raises:
      InputError: the node cannot be steered.
    """
    at = place(steering.models.bridged, node)
    name = ".".join(map(str, node))
    if at is None:
        raise InputError(
            f"--node={name}: not a residual channel at {' or '.join(READS)} with a bridge to a read of the dense model"
        )
    found = steering.curves(node, at, seed)

    def curve(values: np.ndarray) -> Curve:
        answer, foil, share = (tuple(column) for column in values.T.tolist())
        return Curve(answer=answer, foil=foil, share=share)

    return records.Steering(
        task=task,
        params_sha256=steering.models.params_sha256,
        dense_params_sha256=steering.models.dense_params_sha256,
        node=NodeEntry.of(*node),
        dense=DensePlace(layer=at.layer, site=at.site),
        pairs=len(steering.samples.positions) // 2,
        strengths=STRENGTHS,
        curves=SteeringCurves(
            sparse=curve(found.sparse),
            dense=curve(found.dense),
            random=tuple(map(curve, found.random)),
            stream=curve(found.stream),
            random_stream=tuple(map(curve, found.random_stream)),
        ),
        candidates=tuple(tried),
    )
