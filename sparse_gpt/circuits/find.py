"""From a trained model and the samples of a task to its circuit: search, discretise, refine, calibrate, check.

Everything is selected on training and validation samples; every number in the result's metrics is measured on held-out
samples, with the calibration fitted on validation samples.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt.circuits import calibrate, discretise, refine
from sparse_gpt.circuits.ablation import task_means
from sparse_gpt.circuits.circuit import (
    Circuit,
    count_edges,
    edges_between,
    embedding_edges,
    nodes_of,
    unembedding_edges,
    write_json,
)
from sparse_gpt.circuits.evaluate import (
    Evaluator,
    Scores,
    accuracy,
    calibrated,
    full_logits,
    random_gates,
    task_loss,
)
from sparse_gpt.circuits.gated import GatedModel, TaskBatch, gated_model, rows
from sparse_gpt.circuits.gates import GateArrays, empty, from_vector, searchable, to_vector
from sparse_gpt.circuits.search import Found, Hyperparameters, population, search
from sparse_gpt.circuits.traces import traces
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.model.parameters import Params

FORMAT = "sparse_gpt.search/1"
REFINED_TRIALS = 3  # how many of the smallest circuits are refined, before the smallest of those is kept
TRACED_SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class TaskSamples:
    """Samples of one task from disjoint vocabularies. Rows 2 i and 2 i + 1 are a pair."""

    train: TaskBatch  # the search sees these
    validation: TaskBatch  # sizes are chosen and calibration is fitted on these
    heldout: TaskBatch  # reported


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
      circuit: the smallest circuit at the target loss, or the best found when none reached it.
      reached: whether its loss on validation samples is at or below the target.
      search: the contents of search.json.
      traces: the contents of traces.json, or None when no `token_text` was given.
    """

    circuit: Circuit
    reached: bool
    search: dict[str, Any]
    traces: dict[str, Any] | None

    def save(self, folder: str | Path) -> None:
        """Writes circuit.json, ablation.npz, search.json and traces.json, each whole or not at all."""
        folder = Path(folder)
        self.circuit.save(folder)
        write_json(folder / "search.json", self.search)
        if self.traces is not None:
            write_json(folder / "traces.json", self.traces)


def find_circuit(
    config: Config,
    params: Params,
    task: str,
    samples: TaskSamples,
    means: GateArrays | None = None,
    *,
    params_sha256: str = "",
    token_text: Callable[[int], str] | None = None,
    progress: bool = True,
) -> SearchResult:
    """Searches the circuit of one task.

    Args:
      config: model and `prune` group.
      params: trained weights.
      task: its name.
      samples: training, validation and held-out samples.
      means: mean activations over the pretraining distribution (`pretraining_means`); needed for prune.ablation=mean.
      params_sha256: fingerprint of the weights, copied into the circuit.
      token_text: text of a token id; with it the result has traces.
      progress: whether to show bars.

    Raises:
      InputError: the model cannot do the task, or `means` are needed and missing.
    """
    started = time.perf_counter()
    prune, model = config.prune, config.model
    gated = gated_model(config, params, _ablation_values(config, params, samples, means))
    _require_solved(gated, task, samples, prune.target_loss)
    may_open, h = searchable(model, params), population(prune)
    found = search(gated, may_open, h, samples.train, prune.steps, prune.batch_pairs, progress)
    shifted = calibrate.shifted_tokens(samples.train)
    on = {name: Evaluator(gated, getattr(samples, name), shifted) for name in ("validation", "heldout")}
    trials = _discretise(found, to_vector(may_open), on["validation"], prune.target_loss)
    best, gates = _smallest(trials, on["validation"], config, params)
    circuit = _circuit(config, params, task, params_sha256, gates, on)
    reached = bool(on["validation"](gates[None, :]).calibrated[0] <= prune.target_loss)
    record: dict[str, Any] = {
        "format": FORMAT,
        "task": task,
        "params_sha256": params_sha256,
        "steps": prune.steps,
        "batch_pairs": prune.batch_pairs,
        "hyperparameters": {
            name: value for name, value in dataclasses.asdict(prune).items() if name not in ("seeds", "k_coefs")
        },
        "trials": _trials(h, trials, on, config, params),
        "best_trial": best,
        "history": _history(found),
        "loss_versus_size": _loss_versus_size(trials.orders[best], on, config, params),
        "random_circuit": _random_circuits(gates, on, config),
        "seconds": time.perf_counter() - started,
    }
    random_loss = float(np.median(record["random_circuit"]["task_loss"]))
    circuit = dataclasses.replace(circuit, metrics={**circuit.metrics, "random_circuit_task_loss": random_loss})
    drawn = None
    if token_text is not None:
        drawn = traces(gated, circuit, rows(samples.heldout, slice(TRACED_SAMPLES)), "heldout", token_text)
    return SearchResult(circuit, reached, record, drawn)


def _ablation_values(config: Config, params: Params, samples: TaskSamples, means: GateArrays | None) -> GateArrays:
    if config.prune.ablation == "zero":
        return empty(config.model)
    if config.prune.ablation == "task_mean":
        model = gated_model(config, params, empty(config.model)).model
        return task_means(model, params, samples.train)
    if means is None:
        raise InputError("--config.prune.ablation=mean: needs mean activations over pretraining tokens; give `means`")
    return means


def full_task_loss(config: Config, params: Params, batch: TaskBatch) -> float:
    """Task loss in nats of the model itself."""
    gated = gated_model(config, params, empty(config.model))
    return task_loss(np.asarray(full_logits(gated, batch)))


def _require_solved(gated: GatedModel, task: str, samples: TaskSamples, target: float) -> None:
    loss = task_loss(np.asarray(full_logits(gated, samples.validation)))
    if not loss <= target:
        raise InputError(
            f"task {task}: the model itself has task loss {loss:.3f} (chance is {math.log(2):.3f}), above "
            f"--config.prune.target_loss={target:g}; train it longer or raise the target"
        )


@dataclasses.dataclass(frozen=True)
class _Trials:
    """Discretised searches: orders (per trial, node indices), sizes (S,), gates (S, nodes), reached (S,), scores."""

    orders: list[np.ndarray]
    sizes: np.ndarray
    gates: np.ndarray
    reached: np.ndarray
    scores: Scores


def _discretise(found: Found, may_open: np.ndarray, validation: Evaluator, target: float) -> _Trials:
    tau, attribution, nodes = to_vector(found.tau), to_vector(found.attribution), may_open.size
    orders = [discretise.ranking(t, a, may_open) for t, a in zip(tau, attribution, strict=True)]

    def cut(sizes: np.ndarray) -> np.ndarray:
        return np.stack([discretise.first_k(order, k, nodes) for order, k in zip(orders, sizes, strict=True)])

    opened = np.sum((tau > 0) & (may_open > 0), axis=1)
    limit = np.full(len(orders), int(np.sum(may_open > 0)))
    sizes, reached = discretise.smallest_sizes(lambda k: validation(cut(k)).calibrated, opened, limit, target)
    return _Trials(orders, sizes, cut(sizes), reached, validation(cut(sizes)))


def _smallest(trials: _Trials, validation: Evaluator, config: Config, params: Params) -> tuple[int, np.ndarray]:
    """Index of the trial with the fewest edges after refinement, and its gates. Unreached trials come last."""
    edges = np.array([count_edges(config.model, params, from_vector(g, config.model)) for g in trials.gates])
    if not trials.reached.any():
        best = int(np.argmin(trials.scores.calibrated))
        return best, trials.gates[best]
    order = [int(i) for i in np.argsort(edges, kind="stable") if trials.reached[i]][:REFINED_TRIALS]
    refined = [
        refine.minimal(lambda sets: validation(sets).calibrated, trials.gates[i], config.prune.target_loss)
        for i in order
    ]
    sizes = [count_edges(config.model, params, from_vector(g, config.model)) for g in refined]
    place = int(np.argmin(sizes))
    return order[place], refined[place]


def _circuit(
    config: Config, params: Params, task: str, sha256: str, gates: np.ndarray, on: dict[str, Evaluator]
) -> Circuit:
    """The circuit with its calibration (validation samples) and metrics (held-out samples)."""
    fitted, heldout = on["validation"](gates[None, :]), on["heldout"]
    own = calibrate.Calibration(fitted.scale[0], fitted.shift[0])
    inverse = 1 - gates
    logits, without = heldout.logits(np.stack([gates, inverse]))
    corrected = calibrated(logits, own, heldout.index)
    layered = from_vector(gates, config.model)
    edges = edges_between(config.model, params, layered)
    metrics = {
        "nodes": int(gates.sum()),
        "edges": len(edges),
        "embedding_edges": embedding_edges(config.model, params, layered),
        "unembedding_edges": unembedding_edges(config.model, params, layered),
        "task_loss": task_loss(corrected),
        "task_loss_uncalibrated": task_loss(logits),
        "accuracy": accuracy(corrected),
        "full_model_task_loss": task_loss(np.asarray(full_logits(heldout.gated, heldout.batch))),
        "ablated_task_loss": task_loss(without),
    }
    return Circuit(
        task=task,
        params_sha256=sha256,
        ablation=config.prune.ablation,
        norm=config.prune.norm,
        target_loss=config.prune.target_loss,
        scale=float(own.scale),
        shift=tuple((int(t), float(v)) for t, v in zip(heldout.shifted, own.shift, strict=True)),
        edge_pruned=False,
        nodes=nodes_of(layered),
        edges=edges,
        metrics=metrics,
        values={site: np.asarray(value) for site, value in heldout.gated.ablation.items()},
    )


def _trials(
    h: Hyperparameters, trials: _Trials, on: dict[str, Evaluator], config: Config, params: Params
) -> list[dict[str, Any]]:
    losses = on["heldout"].losses(trials.gates, trials.scores.scale, trials.scores.shift)
    return [
        {
            "trial": i,
            **{name: np.asarray(values)[i].item() for name, values in h._asdict().items()},
            "nodes": int(trials.sizes[i]),
            "edges": count_edges(config.model, params, from_vector(trials.gates[i], config.model)),
            "task_loss": float(losses[i]),
            "reached": bool(trials.reached[i]),
        }
        for i in range(len(trials.orders))
    ]


def _history(found: Found) -> list[dict[str, Any]]:
    """About a hundred points of the searches' course."""
    steps = found.loss.shape[1]
    at = np.unique(np.linspace(0, steps - 1, min(steps, 100)).round().astype(int))
    return [
        {"step": int(s), "loss": found.loss[:, s].tolist(), "open_nodes": found.open_nodes[:, s].astype(int).tolist()}
        for s in at
    ]


def _loss_versus_size(
    order: np.ndarray, on: dict[str, Evaluator], config: Config, params: Params
) -> list[dict[str, float]]:
    """Held-out loss of the first k nodes of a ranking, over growing k."""
    sizes = discretise.size_grid(len(order))
    gates = np.stack([discretise.first_k(order, int(k), on["heldout"].nodes) for k in sizes])
    fitted = on["validation"](gates)
    losses = on["heldout"].losses(gates, fitted.scale, fitted.shift)
    edges = [count_edges(config.model, params, from_vector(g, config.model)) for g in gates]
    return [
        {"nodes": int(k), "edges": e, "task_loss": float(loss)} for k, e, loss in zip(sizes, edges, losses, strict=True)
    ]


def _random_circuits(gates: np.ndarray, on: dict[str, Evaluator], config: Config) -> dict[str, Any]:
    """Held-out losses of random circuits with the same number of nodes at every site and layer: as they are, and each
    with a calibration of its own."""
    draws = random_gates(gates, config.model, config.prune.random_draws, config.prune.seed)
    fitted = on["validation"](draws)
    return {
        "draws": config.prune.random_draws,
        "task_loss": [task_loss(logits) for logits in on["heldout"].logits(draws)],
        "task_loss_calibrated": on["heldout"].losses(draws, fitted.scale, fitted.shift).tolist(),
    }
