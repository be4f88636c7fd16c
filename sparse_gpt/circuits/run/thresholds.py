"""Losses of masks near one circuit, predicted: what AbsTopK lets through is decided by that circuit's thresholds.

Nearly all that an exact evaluation computes are values of closed nodes, for they compete with the open ones. Of one
circuit it is known, token by token, between which two magnitudes selection draws the line. Masks that lack little
of it move this line little: with the line held, no competitor needs a value, and a mask takes a tenth of the time.
Nothing is decided by such losses alone; `removal.thin` verifies what it removes by them.
"""

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, Gates, from_vector
from sparse_gpt.circuits.run.calibration import Calibration, calibrate
from sparse_gpt.circuits.run.edge_ablation import ablate_edges
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator, Piece, room_of
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import AT_A_TIME, Masks
from sparse_gpt.circuits.run.objective import weights_of_worst
from sparse_gpt.circuits.run.packed_batch import packed_values
from sparse_gpt.circuits.run.programs import Wanted, slopes
from sparse_gpt.circuits.run.subcircuits import Site, Subcircuits, build_subcircuits, with_sites
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows, trimmed
from sparse_gpt.config import NODE_SITES
from sparse_gpt.model.taps import chain, gate
from sparse_gpt.model.transformer import apply
from sparse_gpt.sparsity.topk import abs_topk

MOST = 0.5  # share of all nodes up to which a predicted evaluation is much faster than one of the whole model
DEARER = 10  # times what programs for a support cost: two more of them, one of the whole model, and passes through that
Thresholds = Mapping[tuple[str, int], np.ndarray]
"""(site, layer) -> (B, T), or (B, 1) at sites that are computed only where answers are predicted."""


@jax.jit
def _thresholds(
    gated: GatedModel, gates: Gates, places: jax.Array, kept: jax.Array, batch: TaskBatch
) -> dict[tuple[str, int], jax.Array]:
    """The middle between the last magnitude that stays and the first that goes, wherever AbsTopK acts in a circuit; see
    `Thresholds`."""
    model, found = gated.model, {}
    circuit = ablate_edges(gated, gates, places, kept)

    def select(site: str, layer: int, x: jax.Array) -> jax.Array:
        if site not in model.activation_sites:
            return x
        k = int(model.activation_fraction * x.shape[-1])
        chosen = abs_topk(x, k)
        stays, magnitude = chosen != 0, jnp.abs(x)
        last = jnp.min(jnp.where(stays, magnitude, jnp.inf), axis=-1)
        last = jnp.where(jnp.sum(stays, axis=-1) < k, 0, last)  # the others are zero: whatever is not would stay, too
        first = jnp.max(jnp.where(stays, 0, magnitude), axis=-1)
        found[site, layer] = (last + first) / 2
        return chosen

    without = _without_selection(circuit)
    tap = chain(select, gate(gates, circuit.ablation))
    apply(without.model, without.params, batch.tokens, tap=tap, positions=batch.positions)
    return found


def _without_selection(gated: GatedModel) -> GatedModel:
    return dataclasses.replace(
        gated, model=dataclasses.replace(gated.model, activation_fraction=0.0, activation_sites=())
    )


@dataclasses.dataclass(frozen=True)
class Predictor(Evaluator):
    """An evaluator of masks within one support, by the thresholds of a circuit that they are near to.

    Attributes:
        thresholds: of the circuit on each sample.
    """

    thresholds: Thresholds = dataclasses.field(default_factory=dict)

    def on_rows(self, index: slice | np.ndarray, first_set: int | None = None) -> Self:
        """See `Evaluator.on_rows`."""
        some = super().on_rows(index, first_set)
        return dataclasses.replace(some, thresholds={site: each[index] for site, each in self.thresholds.items()})

    def near(self, mask: Masks) -> Self:
        """The same with the thresholds of one mask."""
        given, kept, _ = next(mask.chunks(self.gated.model.config))
        gates = {site: jnp.asarray(value[0]) for site, value in given.items()}
        places, stays = jnp.asarray(mask.places), jnp.asarray(kept[0])

        def of(start: int) -> Thresholds:
            own = np.minimum(np.arange(start, start + ROWS), len(self.batch.positions) - 1)  # ROWS, whatever is left
            batch = rows(trimmed(self.batch), own)._replace(task=None, foil_share=None)
            found: Thresholds = jax.device_get(_thresholds(self.gated, gates, places, stays, batch))
            return found

        first = of(0)  # alone, or several threads would compile
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            parts = [first, *pool.map(of, range(ROWS, len(self.batch.positions), ROWS))]
        count = len(self.batch.positions)
        found = {site: np.concatenate([part[site] for part in parts])[:count] for site in first}
        return dataclasses.replace(self, thresholds=found, known={})

    def _slopes(self, mask: Masks, given: Calibration, gates: Gates, kept: np.ndarray) -> tuple[GateArrays, np.ndarray]:
        """Of all samples, weighted so that the worst tasks count most (`objective.weights_of_worst`): here they take a
        tenth of the time that ROWS samples take in the whole model."""
        logits = calibrate(self.logits(mask)[0], given, self.index)
        weight = weights_of_worst(logits, self.batch, self.upper_share, self.allowance)
        pieces = self._pieces(mask.gates)

        def of(number: int) -> tuple[GateArrays, np.ndarray]:
            """Of a piece; what fills it up has no weight."""
            own = slice(number * ROWS, (number + 1) * ROWS)
            wanted = jax.tree.map(_filled_up, Wanted(self.index[own], self._foil_share(own), weight[own]))
            model, batch, _ = pieces[number]
            found: tuple[GateArrays, np.ndarray] = jax.device_get(
                slopes(model, gates, mask.places, kept, batch, wanted, given)
            )
            return found

        first = of(0)  # alone, or several threads would compile
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            parts = [first, *pool.map(of, range(1, len(pieces)))]
        total: tuple[GateArrays, np.ndarray] = jax.tree.map(lambda *each: np.sum(each, axis=0), *parts)
        return total

    def _pieces(self, gates: np.ndarray) -> list[Piece]:
        pieces: list[Piece] = []
        for start in range(0, len(self.batch.positions), ROWS):
            part = self.on_rows(slice(start, start + ROWS))
            given = self._packed(part.batch)
            values = {site: packed_values(each, part.batch, given) for site, each in part.thresholds.items()}
            pieces.append(Piece(_held(self._within(gates), values), given, len(part.batch.positions)))
        return pieces

    def _within(self, gates: np.ndarray) -> Subcircuits:
        if self.subcircuits is None or not self.subcircuits.holds(gates).all():
            raise ValueError("a predictor takes masks within its own support")
        return self.subcircuits


def predictor(evaluator: Evaluator, gates: np.ndarray) -> Predictor | None:
    """What predicts losses on an evaluator's samples, for masks without any node that is closed in `gates`
    (nodes,), once it has the thresholds of one. None where an evaluation is not worth predicting, or cannot be: without
    AbsTopK, with AbsTopK on the stream itself, with frozen norms or several sets of ablation values, for many nodes."""
    gated, opened = evaluator.gated, int(np.sum(gates))
    model, sites = gated.model, set(gated.model.activation_sites)
    if not model.activation_fraction or not sites or sites - set(NODE_SITES) or gated.frozen or gated.draws is not None:
        return None
    if not 0 < opened <= MOST * evaluator.nodes or not evaluator.worth_compiling(opened / DEARER):
        return None
    within = build_subcircuits(_without_selection(gated), from_vector(gates, model.config))
    return Predictor(
        gated,
        evaluator.batch,
        evaluator.shift_tokens,
        largest_scale=evaluator.largest_scale,
        upper_share=evaluator.upper_share,
        allowance=evaluator.allowance,
        subcircuits=jax.tree.map(jnp.asarray, within),
        room=room_of(evaluator.batch),
    )


def _filled_up(x: np.ndarray) -> np.ndarray:
    """(ROWS, ...) with zeros after what is there."""
    return np.pad(x, [(0, ROWS - len(x))] + [(0, 0)] * (x.ndim - 1))


def _held(within: Subcircuits, thresholds: Mapping[tuple[str, int], np.ndarray]) -> Subcircuits:
    """A support without AbsTopK, with thresholds (N,) in its place."""

    def hold(name: str, layer: int, site: Site) -> Site:
        if (name, layer) not in thresholds:
            return site
        top_k = dataclasses.replace(site.top_k, threshold=jnp.asarray(thresholds[name, layer]))
        return dataclasses.replace(site, top_k=top_k)

    return dataclasses.replace(within, whole=with_sites(within.whole, hold))
