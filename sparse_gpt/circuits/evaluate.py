"""Losses of many sets of gates at once: compiled once, run in chunks, answers on the host."""

import dataclasses

import jax
import numpy as np

from sparse_gpt.circuits import calibrate
from sparse_gpt.circuits.gated import GatedModel, TaskBatch
from sparse_gpt.circuits.gates import Gates, empty, from_vector, to_vector
from sparse_gpt.circuits.rewire import rewired
from sparse_gpt.config import ModelConfig

CHUNK = 8  # gate sets per call of the compiled program


@jax.jit
def _logits(gated: GatedModel, gates: Gates, batch: TaskBatch) -> jax.Array:
    return jax.vmap(lambda gates: gated.answer_logits(gates, batch))(gates)


@jax.jit
def _rewired_logits(gated: GatedModel, gates: Gates, places: jax.Array, kept: jax.Array, batch: TaskBatch) -> jax.Array:
    def one(gates: Gates, kept: jax.Array) -> jax.Array:
        return rewired(gated, gates, places, kept).answer_logits(gates, batch)

    return jax.vmap(one)(gates, kept)


@jax.jit
def full_logits(gated: GatedModel, batch: TaskBatch) -> jax.Array:
    """(B, 2) answer and foil logits of the model itself."""
    return gated.answer_logits(None, batch)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of N candidate circuits on one batch, each with the calibration that fits this batch best."""

    logits: np.ndarray  # (N, B, 2)
    scale: np.ndarray  # (N,)
    shift: np.ndarray  # (N, K)
    calibrated: np.ndarray  # (N,) task loss after calibration


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates candidate circuits on one fixed batch. Candidates are vectors of nodes (see gates.to_vector), and of
    edges when some are removed."""

    gated: GatedModel
    batch: TaskBatch
    shifted: np.ndarray  # (K,) tokens that calibration may shift

    @property
    def index(self) -> np.ndarray:
        """`calibrate.choice_index` of the batch."""
        return calibrate.choice_index(self.batch, self.shifted)

    @property
    def nodes(self) -> int:
        """Length of a gate vector."""
        return to_vector(empty(self.gated.model.config)).size

    def logits(self, gates: np.ndarray, places: np.ndarray | None = None, kept: np.ndarray | None = None) -> np.ndarray:
        """(N, B, 2) answer and foil logits of gate vectors (N, nodes).

        With `places` (E,) from `rewire.edge_places` and `kept` (N, at most E) of 0 and 1, edges are removed too.
        """
        config, parts = self.gated.model.config, []
        padded = _padded(gates, self.nodes)
        edges = None if places is None or kept is None else _padded(kept, len(places))
        for i in range(0, len(padded), CHUNK):
            chunk = from_vector(padded[i : i + CHUNK], config)
            if edges is None:
                part = _logits(self.gated, chunk, self.batch)
            else:
                part = _rewired_logits(self.gated, chunk, places, edges[i : i + CHUNK], self.batch)
            parts.append(np.asarray(part))
        return np.concatenate(parts)[: len(gates)]

    def __call__(self, gates: np.ndarray, places: np.ndarray | None = None, kept: np.ndarray | None = None) -> Scores:
        """Scores of candidates; arguments as for `logits`."""
        logits = self.logits(gates, places, kept)
        scale, shift, loss = calibrate.fit_many(logits, self.index, len(self.shifted))
        return Scores(logits, scale, shift, loss)

    def losses(self, gates: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """(N,) task losses on this batch under calibrations fitted elsewhere: scale (N,), shift (N, K)."""
        own = [calibrate.Calibration(a, b) for a, b in zip(scale, shift, strict=True)]
        pairs = zip(self.logits(gates), own, strict=True)
        return np.array([task_loss(calibrated(logits, c, self.index)) for logits, c in pairs])


def _padded(vectors: np.ndarray, width: int) -> np.ndarray:
    """Vectors (N, at most width) with zeros up to a multiple of CHUNK rows and `width` columns, so that one program
    serves every number of candidates."""
    padded = np.zeros((-(-len(vectors) // CHUNK) * CHUNK, width), np.float32)
    padded[: len(vectors), : vectors.shape[1]] = vectors
    return padded


def calibrated(logits: np.ndarray, calibration: calibrate.Calibration, index: np.ndarray) -> np.ndarray:
    """Logits (B, 2) after a calibration, in numpy."""
    shift = np.append(np.asarray(calibration.shift), np.float32(0))
    return np.asarray(calibration.scale) * logits + shift[index]


def task_loss(logits: np.ndarray) -> float:
    """Binary task loss in nats from (B, 2) logits of answer and foil; chance is ln 2."""
    return float(np.mean(np.logaddexp(0.0, (logits[:, 1] - logits[:, 0]).astype(np.float64))))


def accuracy(logits: np.ndarray) -> float:
    """Share of samples whose answer has the larger logit."""
    return float(np.mean(logits[:, 0] > logits[:, 1]))


def random_gates(gates: np.ndarray, config: ModelConfig, draws: int, seed: int) -> np.ndarray:
    """(draws, nodes): for every site and layer as many open gates as in `gates` (nodes,), at random channels."""
    rng = np.random.default_rng(seed)
    layered = from_vector(gates, config)
    drawn = {
        site: np.stack([[rng.permutation(row) for row in value] for _ in range(draws)])
        for site, value in layered.items()
    }
    return to_vector(drawn)
