"""Masks: what circuits that are tried leave of the model, and the protocol of what can run them.

A mask is a vector of gates over all nodes (see nodes.to_vector) and, where edges may be removed, a vector over a
list of edges. PER_CALL of them are run by one call of a program, so that shapes never change.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import flax.struct
import jax
import numpy as np

from sparse_gpt.circuits.nodes import Gates, from_vector
from sparse_gpt.circuits.run.edge_ablation import NOWHERE, PADDING, ablate_edges
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.packed_batch import AnyBatch
from sparse_gpt.config import ModelConfig

PER_CALL = 8  # masks
AT_A_TIME = 2  # programs that run side by side: a part of each keeps one core busy only


@dataclasses.dataclass(frozen=True)
class Masks:
    """N masks, of nodes and of edges.

    Attributes:
        gates: (N, nodes) of 0 and 1.
        places: (E,) of the edges that may be removed, from `edge_ablation.edge_places`.
        kept: (N, at most E) 1 where a mask keeps the edge, 0 where it is removed, other values multiply the edge;
            None keeps all.
    """

    gates: np.ndarray
    places: np.ndarray = dataclasses.field(default_factory=lambda: np.full(PADDING, NOWHERE, np.int32))
    kept: np.ndarray | None = None

    def only(self, index: np.ndarray) -> "Masks":
        """Those at `index`."""
        kept = None if self.kept is None else self.kept[index]
        return dataclasses.replace(self, gates=self.gates[index], kept=kept)

    def chunks(self, config: ModelConfig) -> Iterator[tuple[Gates, np.ndarray, int]]:
        """Pieces, each filled up to PER_CALL with closed gates, as arguments of the compiled program, and how many of
        a piece were asked for. All about equally many, in a multiple of AT_A_TIME pieces that run side by side."""
        total, edges = len(self.gates), len(self.places)
        pieces = -(-total // (PER_CALL * AT_A_TIME)) * AT_A_TIME
        for part in np.array_split(np.arange(total), min(pieces, total)):
            gates = np.zeros((PER_CALL, self.gates.shape[1]), np.float32)
            gates[: len(part)] = self.gates[part]
            kept = np.ones((PER_CALL, edges), np.float32)
            if self.kept is not None:
                kept[: len(part), : self.kept.shape[1]] = self.kept[part]
            yield from_vector(gates, config), kept, len(part)


class MaskedModel(Protocol):
    """What runs masks; a pytree, so that it can be an argument of compiled functions.

    Two implementations: `WholeModel` runs any mask; `subcircuits.Subcircuits` those within one set of nodes, in a
    small part of the time: 1.4 to 8 times as fast for random circuits of 128 to 16 nodes (`launch.benchmark`, on
    2026-11-23).
    """

    def masked_logits(
        self, gates: Gates, places: jax.Array, kept: jax.Array, batch: AnyBatch, *, differentiable: bool
    ) -> jax.Array:
        """(B, 2) logits of answer and foil of one mask; pure.

        Args:
            gates: site -> (n_layer, width).
            places: (E,) from `edge_ablation.edge_places`.
            kept: (E,) 1 where the edge stays, 0 where it carries its source's ablation value.
            batch: B samples.
            differentiable: whether closed gates must have gradients, too.
        """
        ...


@flax.struct.dataclass
class WholeModel:
    """The gated model as one that runs any mask."""

    gated: GatedModel

    def masked_logits(
        self, gates: Gates, places: jax.Array, kept: jax.Array, batch: AnyBatch, *, differentiable: bool
    ) -> jax.Array:
        """See `MaskedModel`."""
        model = ablate_edges(self.gated, gates, places, kept)
        return model.answer_logits(gates, batch) if differentiable else model.answer_logits_of_one(gates, batch)
