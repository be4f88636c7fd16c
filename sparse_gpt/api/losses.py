"""Losses of a model, or of a circuit in it, on samples of a task or on prompts of one's own."""

import dataclasses

import jax
import numpy as np

from sparse_gpt.api.given import AnyCircuit, require_circuit
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import empty, to_vector
from sparse_gpt.circuits.run.calibration import Calibration, calibrate
from sparse_gpt.circuits.run.evaluator import Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.circuits.run.objective import accuracy, bounded, task_loss
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import TaskBatch
from sparse_gpt.config import Config
from sparse_gpt.parameters import Params


@dataclasses.dataclass(frozen=True)
class Losses:
    """Of B prompts with an answer and a foil.

    Attributes:
        logits: (B, 2) of answer and foil; a circuit's are calibrated.
        task_loss: mean cross-entropy in nats between answer and foil alone; chance is 0.693.
        accuracy: share of prompts whose answer has the larger logit.
    """

    logits: np.ndarray = dataclasses.field(repr=False)
    task_loss: float
    accuracy: float

    @property
    def by_prompt(self) -> np.ndarray:
        """(B,) losses in nats."""
        return np.logaddexp(0.0, (self.logits[:, 1] - self.logits[:, 0]).astype(np.float64))


def measure(config: Config, params: Params, batch: TaskBatch, given: AnyCircuit | None = None) -> Losses:
    """Losses of the model, or of a circuit with its own ablation values, edges and calibration."""
    if given is None:
        logits = bounded(np.asarray(_answer_logits(gated_model(config, params, empty(config.model)), batch)))
    else:
        circuit = require_circuit(given, "evaluate")
        circuit.require_fit(config.model)
        prune = dataclasses.replace(config.prune, norm=circuit.norm)
        gated = gated_model(dataclasses.replace(config, prune=prune), params, circuit.values)
        tokens = np.array([token for token, _ in circuit.shift], np.int32)
        evaluator = Evaluator(gated, batch, tokens)
        edges = circuit.edges if circuit.edge_pruned else None
        graph = ModelGraph(config.model, params)
        support = Support(graph, to_vector(circuit.gates(config.model)), edges)
        calibration = Calibration(np.float32(circuit.scale), np.array([v for _, v in circuit.shift], np.float32))
        plain = evaluator.logits(support.masks)[0]
        logits = calibrate(plain, calibration, evaluator.index)
    return Losses(logits, task_loss(logits), accuracy(logits))


@jax.jit
def _answer_logits(gated: GatedModel, batch: TaskBatch) -> jax.Array:
    return gated.answer_logits(None, batch)
