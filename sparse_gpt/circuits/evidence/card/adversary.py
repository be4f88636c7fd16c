"""Rows in which something else chooses what to leave on. Blind to bias: what is attacked is the contrast of a pair, in
which any constant preference for an answer cancels. On the loss alone, an adversary drives every circuit to a constant
answer, and tells nothing of it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.evidence.card.subject import Measurement, Samples, Subject, contrasts, measured
from sparse_gpt.circuits.nodes import Gates, from_vector, to_vector
from sparse_gpt.circuits.run import statistics
from sparse_gpt.circuits.run.edge_ablation import ablate_edges
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.task_batch import TaskBatch

STEPS, STEP = 12, 0.15  # of the projected gradient, from each of two starts
OPENED = (3, 10, 30)  # nodes, of the first-order attack


@jax.jit
def _slopes(
    gated: GatedModel, gates: Gates, places: jax.Array, kept: jax.Array, batch: TaskBatch
) -> tuple[Gates, jax.Array]:
    """Gradient of the mean contrast with respect to gates and edges."""

    def contrast(gates: Gates, kept: jax.Array) -> jax.Array:
        logits = ablate_edges(gated, gates, places, kept).answer_logits(gates, batch)
        return jnp.mean(logits[:, 0] - logits[:, 1])  # the mean over pairs of their contrasts

    return jax.grad(contrast, argnums=(0, 1))(gates, kept)


def first_order(subject: Subject, samples: Samples) -> Measurement:
    """Share of pairs still right after opening the 3, 10 and 30 closed nodes whose opening lowers the mean contrast
    most, by its gradient at the circuit."""
    slopes, _ = _gradient(subject, samples, subject.gates, subject.edges[1])
    order = np.argsort(np.where(subject.gates > 0, np.inf, slopes), kind="stable")
    opened = np.repeat(subject.gates[None], len(OPENED), axis=0)
    for row, count in zip(opened, OPENED, strict=True):
        row[order[:count]] = 1
    found = contrasts(samples.evaluator.logits(subject.masks(opened)))
    table = [
        {"opened": count, "contrast": float(each.mean()), "pairs_right": float(np.mean(each > 0))}
        for count, each in zip(OPENED, found, strict=True)
    ]
    own = contrasts(subject.plain(samples))
    clean = {"contrast": float(own.mean()), "pairs_right": float(np.mean(own > 0))}
    worst = int(np.argmin([entry["pairs_right"] for entry in table]))
    return measured(statistics.share(found[worst] > 0, samples.words[::2]), opened=table, clean=clean)


def adversary(subject: Subject, samples: Samples) -> Measurement:
    """Share of pairs still right under the worst mask found by projected signed gradients: one r in {0, 1} for each
    closed node and removed edge, gates g + (1 - g) r, the same for all samples."""
    masks = [mask for start in (0.0, 0.5) for mask in _descent(subject, samples, start)]
    gates, kept = (np.array(each, np.float32) for each in zip(*masks, strict=True))
    found = contrasts(samples.evaluator.logits(subject.masks(gates, kept)))
    right = (found > 0).mean(axis=1)
    worst = int(np.lexsort((found.mean(axis=1), right))[0])
    own = contrasts(subject.plain(samples))
    return measured(
        statistics.share(found[worst] > 0, samples.words[::2]),
        contrast=float(found[worst].mean()),
        opened_nodes=int((gates[worst] - subject.gates).sum()),
        clean_contrast=float(own.mean()),
        clean_pairs_right=float(np.mean(own > 0)),
        model_pairs_right=float(np.mean(contrasts(subject.model(samples)) > 0)),
    )


def _descent(subject: Subject, samples: Samples, start: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Masks of 0 and 1, after every third step from r uniform below twice `start`."""
    rng, gates, own = np.random.default_rng(subject.seed), subject.gates, subject.edges[1]
    of_nodes, of_edges = (2 * start * rng.random(len(each)) for each in (gates, own))
    for step in range(STEPS):
        slopes = _gradient(subject, samples, gates + (1 - gates) * of_nodes, own + (1 - own) * of_edges)
        of_nodes, of_edges = (
            np.clip(r - STEP * np.sign(slope), 0, 1) for r, slope in zip((of_nodes, of_edges), slopes, strict=True)
        )
        if step % 3 == 2:
            yield np.maximum(gates, of_nodes > 0.5), np.maximum(own, of_edges > 0.5)


def _gradient(subject: Subject, samples: Samples, gates: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the mean contrast over up to ROWS samples, over gates (nodes,) and edges (at most E,)."""
    evaluator, problem = samples.evaluator, subject.problem
    batch = evaluator.on_few().batch._replace(task=None)
    mask = subject.masks(gates[None].astype(np.float32), kept[None].astype(np.float32))
    _, edges, _ = next(mask.chunks(problem.graph.config))
    layered = from_vector(gates.astype(np.float32), problem.graph.config)
    found = jax.device_get(_slopes(evaluator.gated, layered, mask.places, edges[0], batch))
    of_nodes, of_edges = (np.nan_to_num(each, posinf=1.0, neginf=-1.0) for each in (to_vector(found[0]), found[1]))
    return of_nodes, of_edges[: len(kept)]
