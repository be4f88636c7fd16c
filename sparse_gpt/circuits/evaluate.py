"""Losses of many sets of gates at once: compiled once, run in chunks, answers on the host."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from sparse_gpt.circuits import calibrate
from sparse_gpt.circuits.gated import GatedModel, TaskBatch, binary_loss
from sparse_gpt.circuits.gates import GateArrays, Gates, empty, from_vector, to_vector
from sparse_gpt.config import ModelConfig

CHUNK = 8  # gate sets per call of the compiled program


@functools.partial(jax.jit, static_argnames="tokens")
def _scores(gated: GatedModel, gates: Gates, batch: TaskBatch, index: jax.Array, tokens: int) -> tuple[Any, ...]:
    """Logits (N, B, 2) of N gate sets, their own calibrations, and losses (N,) without and with them."""

    def one(gates: Gates) -> tuple[Any, ...]:
        logits = gated.answer_logits(gates, batch)
        own = calibrate.fit(logits, index, tokens)
        return logits, own, binary_loss(logits), binary_loss(calibrate.apply(own, logits, index))

    return jax.vmap(one)(gates)


@jax.jit
def _logits(gated: GatedModel, gates: Gates, batch: TaskBatch) -> jax.Array:
    return jax.vmap(lambda gates: gated.answer_logits(gates, batch))(gates)


@jax.jit
def full_logits(gated: GatedModel, batch: TaskBatch) -> jax.Array:
    """(B, 2) answer and foil logits of the model itself."""
    return gated.answer_logits(None, batch)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of N gate sets on one batch."""

    logits: np.ndarray  # (N, B, 2)
    scale: np.ndarray  # (N,) of each set's own calibration, fitted on this batch
    shift: np.ndarray  # (N, K)
    loss: np.ndarray  # (N,) task loss as it is
    calibrated: np.ndarray  # (N,) task loss after calibration


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates gate sets, given as vectors of nodes (see gates.to_vector), on one fixed batch."""

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

    def __call__(self, gates: np.ndarray) -> Scores:
        """Scores of gate vectors (N, nodes); each set is calibrated on this batch."""
        parts = [
            jax.device_get(_scores(self.gated, chunk, self.batch, self.index, len(self.shifted)))
            for chunk in self._chunks(gates)
        ]
        logits, own, loss, calibrated = (list(values) for values in zip(*parts, strict=True))
        n = len(gates)
        scale, shift = (np.concatenate(values)[:n] for values in zip(*own, strict=True))
        return Scores(
            np.concatenate(logits)[:n], scale, shift, np.concatenate(loss)[:n], np.concatenate(calibrated)[:n]
        )

    def logits(self, gates: np.ndarray) -> np.ndarray:
        """(N, B, 2) answer and foil logits."""
        parts = [jax.device_get(_logits(self.gated, chunk, self.batch)) for chunk in self._chunks(gates)]
        return np.concatenate(parts)[: len(gates)]

    def losses(self, gates: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """(N,) task losses on this batch under calibrations fitted elsewhere: scale (N,), shift (N, K)."""
        logits = self.logits(gates)
        own = [calibrate.Calibration(a, b) for a, b in zip(scale, shift, strict=True)]
        return np.array([task_loss(calibrated(x, c, self.index)) for x, c in zip(logits, own, strict=True)])

    def _chunks(self, gates: np.ndarray) -> list[GateArrays]:
        """Pieces of CHUNK sets, the last one padded, so that one program serves every number of sets."""
        config = self.gated.model.config
        padded = np.zeros((-(-len(gates) // CHUNK) * CHUNK, self.nodes), np.float32)
        padded[: len(gates)] = gates
        return [from_vector(padded[i : i + CHUNK], config) for i in range(0, len(padded), CHUNK)]


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
