"""Circuit and model side by side from within: one compiled program that runs either, puts given values in the place of
some activations, and records all of them."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.circuit import nodes_of
from sparse_gpt.circuits.evidence.card.subject import Samples, Subject
from sparse_gpt.circuits.nodes import GateArrays, Gates, from_vector
from sparse_gpt.circuits.run.calibration import calibrate, choice_index
from sparse_gpt.circuits.run.edge_ablation import ablate_edges
from sparse_gpt.circuits.run.evaluator import ROWS
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import bounded
from sparse_gpt.circuits.run.task_batch import TaskBatch, few, rows
from sparse_gpt.config import NODE_SITES
from sparse_gpt.model.taps import AFTER_LAYERS, NORM_TAPS, Tap, chain, gate, recorder, substitute
from sparse_gpt.model.transformer import EVERYWHERE, apply
from sparse_gpt.parameters import Leaf
from sparse_gpt.records import Node

Place = tuple[str, int]  # site, layer
Recording = dict[Place, jax.Array]  # (B, T, width); at the final norm (B, 1, 1)
BUCKET = 8  # of the prompts' length, so that few programs are compiled


@jax.jit  # which is why it has more than six parameters: arrays that are traced
def _run(
    gated: GatedModel,
    gates: Gates,
    places: jax.Array,
    kept: jax.Array,
    batch: TaskBatch,
    values: dict[str, jax.Array],
    where: dict[str, jax.Array],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits (B, 2) and every activation, with `values` where `where` (width,) is 1; keys are "site layer"."""
    model = ablate_edges(gated, gates, places, kept)
    seen: dict[Place, jax.Array] = {}

    def put(site: str, layer: int, x: jax.Array) -> jax.Array:
        name = f"{site} {layer}"
        return jnp.where(where[name][None, None, :] > 0, values[name], x) if name in values else x

    run_method, at = functools.partial(apply, model.model, model.params), batch.positions[:, None]
    norms = model.norms(batch.tokens, EVERYWHERE)
    for place in norms:
        if place[0] == AFTER_LAYERS[1]:  # only the end is unembedded
            norms[place] = jnp.take_along_axis(norms[place], at[:, :, None], axis=1)
    recording = recorder(seen, (*NODE_SITES, *NORM_TAPS))
    tap: Tap = chain(substitute(norms), gate(gates, model.ablation), put, recording)
    h = run_method(batch.tokens, method="embed")
    h = run_method(h, 0, None, tap, method="run")
    h = jnp.take_along_axis(h, at[:, :, None], axis=1)
    tokens = jnp.take_along_axis(batch.tokens, at, axis=1)
    logits = run_method(h, tokens, tap, method="unembed")
    chosen = jnp.take_along_axis(logits[:, 0], jnp.stack([batch.answer, batch.foil], axis=1), axis=1)
    return chosen, {f"{site} {layer}": x for (site, layer), x in seen.items()}


@jax.jit
def _with_values(
    gated: GatedModel, gates: Gates, places: jax.Array, kept: jax.Array, batch: TaskBatch, values: Gates
) -> jax.Array:
    """Logits (B, 2), each sample's with its own ablation values (B, n_layer, width)."""

    def of_one(given: tuple[TaskBatch, Gates]) -> jax.Array:
        sample, ablation = given
        model = ablate_edges(dataclasses.replace(gated, ablation=ablation), gates, places, kept)
        return model.answer_logits(gates, jax.tree.map(lambda x: x[None], sample))[0]

    return jax.lax.map(of_one, (batch, values))  # one by one, for each has weights of its own


@dataclasses.dataclass(frozen=True)
class Inside:
    """A circuit and its model on at most ROWS samples, with every activation of both.

    Attributes:
        subject: the circuit.
        batch: B samples, prompts cut to the longest.
        words: (B,) clusters.
    """

    subject: Subject
    batch: TaskBatch
    words: np.ndarray

    @functools.cached_property
    def layered(self) -> GateArrays:
        """The circuit's gates, site -> (n_layer, width)."""
        return from_vector(self.subject.gates, self.subject.problem.graph.config)

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Those of the circuit."""
        return nodes_of(self.layered)

    @functools.cached_property
    def circuit(self) -> tuple[np.ndarray, Recording]:
        """Uncalibrated logits (B, 2) and activations of the circuit."""
        return self.run(self.subject.circuit_masks, {}, {})

    @functools.cached_property
    def model(self) -> tuple[np.ndarray, Recording]:
        """The same of the whole model."""
        return self.run(self.whole, {}, {})

    @property
    def whole(self) -> Masks:
        """The model as a mask, with as many edge places as the circuit has: one program serves both."""
        places, own = self.subject.edges
        return Masks(np.ones((1, len(self.subject.gates)), np.float32), places, np.ones((1, len(own)), np.float32))

    @functools.cached_property
    def counted(self) -> np.ndarray:
        """(B, T) positions up to the one that predicts the answer."""
        return np.arange(self.batch.tokens.shape[1])[None, :] <= np.asarray(self.batch.positions)[:, None]

    @functools.cached_property
    def at_end(self) -> np.ndarray:
        """(B, T) the position that predicts the answer."""
        return np.arange(self.batch.tokens.shape[1])[None, :] == np.asarray(self.batch.positions)[:, None]

    def matters(self, site: str, layer: int) -> np.ndarray:
        """(B, T) where a site has a say in the answer: after the last layer's keys and values, at the end alone."""
        last = layer == self.subject.problem.graph.config.n_layer - 1
        return self.at_end if last and site not in ("attn_in", "attn_k", "attn_v") else self.counted

    def run(
        self, mask: Masks, values: Mapping[Place, Leaf], where: Mapping[Place, np.ndarray]
    ) -> tuple[np.ndarray, Recording]:
        """Logits (B, 2) and activations of the first mask, with some of them replaced.

        Args:
            mask: from `Subject.masks` or `whole`.
            values: (site, layer) -> what broadcasts to (B, T, width).
            where: (site, layer) -> (width,), 1 for the channels that take them.
        """
        given, at = {}, {}
        for place, nothing in self._zeros.items():
            name = f"{place[0]} {place[1]}"
            given[name] = jnp.broadcast_to(jnp.asarray(values[place]), nothing.shape) if place in values else nothing
            at[name] = np.asarray(where.get(place, np.zeros(nothing.shape[-1])), np.float32)
        gates, kept, _ = next(mask.chunks(self.subject.problem.graph.config))
        one = {site: value[0] for site, value in gates.items()}
        gated = self.subject.problem.heldout.gated
        logits, seen = _run(gated, one, mask.places, kept[0], self.batch, given, at)
        return bounded(np.asarray(logits)), {(n.split()[0], int(n.split()[1])): x for n, x in seen.items()}

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Logits (B, 2) under the circuit's calibration."""
        index = choice_index(self.batch, self.subject.problem.heldout.shift_tokens)
        return calibrate(logits, self.subject.candidate.calibration, index)

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """Calibrated logits (B, 2) of the circuit with other ablation values in every sample: those that all nodes have
        in the model at the end of another sample's prompt."""
        other = rng.permutation(len(self.batch.positions))
        ends = np.asarray(self.batch.positions)[other]
        recorded, config = self.model[1], self.subject.problem.graph.config
        values = {
            site: np.stack([np.asarray(recorded[site, layer])[other, ends] for layer in range(config.n_layer)], axis=1)
            for site in NODE_SITES
        }
        gates, kept, _ = next(self.subject.circuit_masks.chunks(config))
        one = {site: value[0] for site, value in gates.items()}
        gated, places = self.subject.problem.heldout.gated, self.subject.circuit_masks.places
        return self.calibrated(bounded(np.asarray(_with_values(gated, one, places, kept[0], self.batch, values))))

    def means(self) -> GateArrays:
        """Mean of every node in the model over the positions that count: site -> (n_layer, width)."""
        layers = range(self.subject.problem.graph.config.n_layer)
        recorded = self.model[1]
        return {
            site: np.stack([np.asarray(recorded[site, layer])[self.counted].mean(axis=0) for layer in layers])
            for site in NODE_SITES
        }

    @property
    def _node_places(self) -> list[Place]:
        return [(site, layer) for site in NODE_SITES for layer in range(self.subject.problem.graph.config.n_layer)]

    @functools.cached_property
    def _zeros(self) -> dict[Place, jax.Array]:
        """For every place that can be replaced, an array of its shape."""
        config, (count, time) = self.subject.problem.graph.config, self.batch.tokens.shape
        shapes = {(s, n): (count, time, self.layered[s].shape[1]) for s, n in self._node_places}
        for layer in range(config.n_layer):
            shapes |= {(site, layer): (count, time, 1) for site in NORM_TAPS[:2]}
        shapes[NORM_TAPS[2], config.n_layer] = (count, 1, 1)
        return {place: jnp.zeros(shape) for place, shape in shapes.items()}


def run_within(subject: Subject, samples: Samples) -> Inside:
    """The subject on up to ROWS of the samples, of all lengths; the same object for the same samples."""
    kept: dict[str, Inside] = subject.__dict__.setdefault("_inside", {})
    if samples.name not in kept:
        batch = samples.evaluator.batch
        index = few(batch, ROWS)
        chosen = rows(batch, index)._replace(task=None)
        longest = -(-(int(np.max(chosen.positions)) + 1) // BUCKET) * BUCKET
        chosen = chosen._replace(tokens=chosen.tokens[:, :longest])
        kept[samples.name] = Inside(subject, chosen, samples.words[index])
    return kept[samples.name]
