"""From a trained model and the samples of a task to its circuit: search, discretise, refine, calibrate, check.

Sizes are chosen and the calibration is fitted on selection samples: validation samples and as many training samples, so
that many words take part. Every number in the result's metrics is measured on held-out samples.

Several tasks can share one mask: the search minimises the mean of their losses, each of them has to reach the target,
one calibration serves all, and reported losses are means over the tasks (circuit.json has each task's own beside them).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from sparse_gpt import estimate
from sparse_gpt.circuits import calibrate, record, tune
from sparse_gpt.circuits.ablation import RESAMPLED, task_means
from sparse_gpt.circuits.baselines import baselines
from sparse_gpt.circuits.bookkeeping import bookkeeping
from sparse_gpt.circuits.circuit import Circuit, embedding_edges, nodes_of, unembedding_edges
from sparse_gpt.circuits.evaluate import (
    NO_TOKENS,
    Candidates,
    Evaluator,
    accuracy,
    agreement,
    calibrated,
    largest_loss,
    task_loss,
)
from sparse_gpt.circuits.gated import (
    GatedModel,
    TaskBatch,
    by_length,
    gated_model,
    joined,
    padded,
    rows,
    without_longest,
)
from sparse_gpt.circuits.gates import GateArrays, empty, from_vector, searchable, to_vector
from sparse_gpt.circuits.importance import single_removals
from sparse_gpt.circuits.overlap import overlap
from sparse_gpt.circuits.samples import TaskSamples, by_task
from sparse_gpt.circuits.search import Found, Hyperparameters, search
from sparse_gpt.circuits.traces import traces
from sparse_gpt.circuits.trials import Support, Trials, Weights, discretised, smallest
from sparse_gpt.config import Config, PruneConfig, k_coefs
from sparse_gpt.errors import InputError
from sparse_gpt.io import write_json
from sparse_gpt.model.parameters import Params

FORMAT = "sparse_gpt.search/1"
TRACED_SAMPLES = 6


class Prepared(NamedTuple):
    """What a search, and everything that is to be compared with it, works on."""

    gated: GatedModel
    train: TaskBatch
    selection: Evaluator
    heldout: Evaluator
    weights: Weights
    may_open: GateArrays
    others: GateArrays | None  # with resample ablation: draws (draws, n_layer, width) for evidence


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
      circuit: the smallest circuit at the target loss, or the best found when none reached it.
      reached: whether its loss on selection samples is at or below the target.
      search: the contents of search.json.
      traces: the contents of traces.json, or None when no `token_text` was given.
      contexts: the contents of contexts.json, or None where there is no text to look at; see contexts.py.
    """

    circuit: Circuit
    reached: bool
    search: dict[str, Any]
    traces: dict[str, Any] | None
    contexts: dict[str, Any] | None = None

    def save(self, folder: str | Path) -> None:
        """Writes circuit.json, ablation.npz and whichever JSON files have content, each whole or not at all."""
        folder = Path(folder)
        self.circuit.save(folder)
        write_json(folder / "search.json", self.search)
        for name, content in (("traces", self.traces), ("contexts", self.contexts)):
            if content is not None:
                write_json(folder / f"{name}.json", content)


def find_circuit(
    config: Config,
    params: Params,
    task: str,
    samples: TaskSamples,
    activations: GateArrays | None = None,
    *,
    params_sha256: str = "",
    token_text: Callable[[int], str] | None = None,
    progress: bool = True,
    unfinished: Path | None = None,
) -> SearchResult:
    """Searches the circuit of one task, or one that several tasks share.

    Args:
      config: model and `prune` group.
      params: trained weights.
      task: its name; of several tasks, the name that they have together.
      samples: training, validation and held-out samples, and those of the shifted template variant if there are any;
        of several tasks, from `samples.shared`.
      activations: on the pretraining distribution: `pretraining_means` for prune.ablation=mean; for resample, at least
        RESAMPLED + 2 `pretraining_draws` (used as circuits/ablation.py says).
      params_sha256: fingerprint of the weights, copied into the circuit.
      token_text: text of a token id; with it the result has traces.
      progress: whether to show bars.
      unfinished: a folder that keeps finished searches until the circuit is found, see `tune.searches`.

    Raises:
      InputError: the model cannot do the task, `activations` are needed and missing, or this machine is too small.
    """
    started = time.perf_counter()
    prune = config.prune
    estimate.check_here(config, "prune")
    for name, batch in by_task(samples.validation, samples.names or (task,)):
        require_solved(config, params, name, batch)
    ready = prepared(config, params, samples, activations)
    _, _, selection, heldout, weights, may_open, others = ready
    h, found, trials = searched(ready, prune, params_sha256, unfinished, progress, samples.sha256)
    stricter = prune.selection_margin * prune.target_loss
    with tqdm(desc="refine", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
        ranked, cut = baselines(selection, heldout, weights, to_vector(may_open), stricter, prune.seed)
        best, start, supports = smallest(trials, cut, selection, weights, stricter, prune, bar.set_postfix_str)
    support = list(supports.values())[-1]
    own, reached = _calibration(support, selection, weights, prune.target_loss)
    controls = record.random_circuits(support.gates, selection, heldout, weights, prune.random_draws, prune.seed)
    metrics, each = _metrics(support, own, heldout, weights, samples.names)
    if samples.shifted is not None:
        metrics |= _shifted_metrics(support, own, _like(heldout, samples.shifted), weights)
    metrics["random_circuit_task_loss"] = float(np.median(controls["task_loss"]))
    chosen_on, inside = selection.within_support(support.gates), heldout.within_support(support.gates)
    other_values = record.redrawn_circuits(support, chosen_on, inside, weights, prune.random_draws, prune.seed)
    metrics["redrawn_values_task_loss"] = float(np.median(other_values["task_loss"]))
    metrics["redrawn_values_task_loss_calibrated"] = float(np.median(other_values["task_loss_calibrated"]))
    resampled = {} if others is None else {"resampled": record.resampled(support, own, heldout, weights, others)}
    if resampled:
        metrics["resampled_task_loss"] = float(np.mean(resampled["resampled"]["task_loss"]))
    circuit = _circuit(config, task, params_sha256, support, own, metrics, each, heldout, weights, token_text)
    untuned = prune.seeds * len(k_coefs(prune))
    curve = record.loss_versus_size(trials.orders[best], selection, heldout, weights)
    told = {
        "format": FORMAT,
        "task": task,
        "params_sha256": params_sha256,
        **({"samples_sha256": samples.sha256} if samples.sha256 else {}),
        "steps": prune.steps,
        "batch_pairs": prune.batch_pairs,
        "hyperparameters": dataclasses.asdict(prune),
        "trials": record.trial_records(h, trials, heldout),
        "best_trial": best,
        "refined_from": start,
        "stages": record.stages(supports, selection, heldout, weights),
        "history": record.history(found),
        "loss_versus_size": curve,
        "size_versus_target": record.size_versus_target(trials.orders[best], curve, selection, heldout, weights),
        "baselines": ranked,
        # Tuned searches share their seed.
        "overlap": overlap(trials.gates[:untuned], config.model, prune.seed, prune.tie_qk),
        "random_circuit": controls,
        "redrawn_values": other_values,
        **resampled,
        "importance": single_removals(support, own, inside, weights),
        "seconds": time.perf_counter() - started,
    }
    drawn = None
    if token_text is not None:
        drawn = traces(heldout.gated, circuit, rows(samples.heldout, slice(TRACED_SAMPLES)), "heldout", token_text)
    return SearchResult(circuit, reached, told, drawn)


def prepared(config: Config, params: Params, samples: TaskSamples, activations: GateArrays | None) -> Prepared:
    """What `find_circuit` makes of its arguments. InputError if `activations` are needed and missing."""
    if not samples.names:
        samples = dataclasses.replace(samples, train=without_longest(samples.train))
    values, draws, others = _ablation_values(config, params, samples, activations)
    gated = gated_model(config, params, values, draws)
    weights = Weights(config.model, params, config.prune.tie_qk)
    return Prepared(
        gated, samples.train, *_evaluators(gated, samples), weights, searchable(config.model, params), others
    )


def searched(
    ready: Prepared,
    prune: PruneConfig,
    params_sha256: str = "",
    unfinished: Path | None = None,
    progress: bool = True,
    samples_sha256: str = "",
) -> tuple[Hyperparameters, Found, Trials]:
    """The searches alone, each cut at `prune.selection_margin` of the target. Arguments as of `find_circuit`."""
    target = prune.selection_margin * prune.target_loss

    def run(h: Hyperparameters) -> tuple[Found, Trials]:
        settings = prune.steps, prune.batch_pairs, progress
        paused = None if unfinished is None else unfinished / "paused.npz"
        found = search(ready.gated, ready.may_open, h, ready.train, *settings, tie_qk=prune.tie_qk, paused=paused)
        return found, discretised(found, to_vector(ready.may_open), ready.selection, ready.weights, target)

    _, h, found, trials = tune.searches(prune, run, params_sha256, unfinished, samples_sha256)
    return h, found, trials


def _evaluators(gated: GatedModel, samples: TaskSamples) -> tuple[Evaluator, Evaluator]:
    """On selection samples and on held-out samples, padded to one length so that the same programs serve both. Where
    ablation values take turns, they do so on selection samples only."""
    validation = samples.validation
    train = rows(samples.train, slice(len(validation.positions)))
    length = max(batch.tokens.shape[1] for batch in (train, validation, samples.heldout))
    train, validation, heldout = (padded(batch, length) for batch in (train, validation, samples.heldout))
    shifted = calibrate.shifted_tokens(samples.train)
    selection = joined([validation, train])
    reported = dataclasses.replace(gated, draws=None)
    return Evaluator(gated, by_length(selection), shifted), Evaluator(reported, by_length(heldout), shifted)


def _like(other: Evaluator, batch: TaskBatch) -> Evaluator:
    """`other` on another batch, padded to the same length where it is shorter, so that the same program serves it."""
    length = max(batch.tokens.shape[1], other.batch.tokens.shape[1])
    return dataclasses.replace(other, batch=by_length(padded(batch, length)))


def _ablation_values(
    config: Config, params: Params, samples: TaskSamples, activations: GateArrays | None
) -> tuple[GateArrays, GateArrays | None, GateArrays | None]:
    """Values (n_layer, width) per site; with resample ablation also those that take turns in the search and in
    choosing sizes, and those for evidence, (draws, n_layer, width) each."""
    ablation = config.prune.ablation
    if ablation == "zero":
        return empty(config.model), None, None
    if ablation == "task_mean":
        model = gated_model(config, params, empty(config.model)).model
        return task_means(model, params, samples.train), None, None
    if activations is None:
        kind = "mean activations over" if ablation == "mean" else "draws of activations at random positions of"
        raise InputError(f"--config.prune.ablation={ablation}: needs {kind} pretraining tokens; give `activations`")
    if not all(np.isfinite(value).all() for value in activations.values()):
        raise InputError(
            f"--config.prune.ablation={ablation}: the model's activations on pretraining text are not finite, so its "
            "weights are too large; choose zero, or another checkpoint"
        )
    if ablation == "mean":
        return activations, None, None
    parts = (slice(1, 1 + RESAMPLED), slice(1 + RESAMPLED, None))
    turns, others = ({site: value[part] for site, value in activations.items()} for part in parts)
    return {site: value[0] for site, value in activations.items()}, turns, others


def full_task_loss(config: Config, params: Params, batch: TaskBatch) -> float:
    """Task loss in nats of the model itself."""
    gated = gated_model(config, params, empty(config.model))
    return task_loss(Evaluator(gated, batch, NO_TOKENS).full_logits())


def require_solved(config: Config, params: Params, task: str, batch: TaskBatch) -> None:
    """InputError unless the model itself has at most the target loss on `batch`: what it cannot do has no circuit."""
    loss, target = full_task_loss(config, params, batch), config.prune.target_loss
    if not loss <= target:
        raise InputError(
            f"task {task}: the model itself has task loss {loss:.4g} (chance is {math.log(2):.3f}), above "
            f"--config.prune.target_loss={target:g}; train it longer or raise the target"
        )


def _calibration(
    support: Support, selection: Evaluator, weights: Weights, target: float
) -> tuple[calibrate.Calibration, bool]:
    """The calibration fitted on selection samples, and whether the loss (of every task) is then at most `target`
    there."""
    logits = selection.logits(support.candidates(weights))[0]
    own = calibrate.fitted(logits, selection.index, len(selection.shifted))
    return own, largest_loss(calibrated(logits, own, selection.index), selection.batch) <= target


def _metrics(
    support: Support, own: calibrate.Calibration, heldout: Evaluator, weights: Weights, names: Sequence[str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Sizes, and losses on held-out samples; and the losses of each of several tasks, by name."""
    logits, full = heldout.logits(support.candidates(weights))[0], heldout.full_logits()
    without = heldout.logits(Candidates(1 - support.gates[None, :]))[0]
    corrected = calibrated(logits, own, heldout.index)
    layered = from_vector(support.gates, weights.config)

    def losses(some: Any) -> dict[str, float]:
        return {
            "task_loss": task_loss(corrected[some]),
            "task_loss_uncalibrated": task_loss(logits[some]),
            "accuracy": accuracy(corrected[some]),
            "agreement": agreement(corrected[some], full[some]),
            "full_model_task_loss": task_loss(full[some]),
            "ablated_task_loss": task_loss(without[some]),
        }

    sizes = {
        "nodes": int(support.gates.sum()),
        "edges": len(support.kept_edges(weights)),
        "embedding_edges": embedding_edges(weights.config, weights.params, layered),
        "unembedding_edges": unembedding_edges(weights.config, weights.params, layered),
    }
    each = [{"task": name, **losses(heldout.batch.task == i)} for i, name in enumerate(names)]
    return sizes | losses(slice(None)), each


def _shifted_metrics(
    support: Support, own: calibrate.Calibration, shifted: Evaluator, weights: Weights
) -> dict[str, float]:
    """Whether the circuit does what the model does where the template is another (calibration and all unchanged)."""
    corrected = calibrated(shifted.logits(support.candidates(weights))[0], own, shifted.index)
    full = shifted.full_logits()
    return {
        "shifted_task_loss": task_loss(corrected),
        "shifted_accuracy": accuracy(corrected),
        "shifted_agreement": agreement(corrected, full),
        "shifted_full_model_task_loss": task_loss(full),
        "shifted_full_model_accuracy": accuracy(full),
    }


def _circuit(
    config: Config,
    task: str,
    params_sha256: str,
    support: Support,
    own: calibrate.Calibration,
    metrics: dict[str, float],
    each: list[dict[str, Any]],
    heldout: Evaluator,
    weights: Weights,
    token_text: Callable[[int], str] | None,
) -> Circuit:
    nodes, edges, batch = nodes_of(from_vector(support.gates, config.model)), support.kept_edges(weights), heldout.batch
    seen = np.unique(batch.tokens[np.arange(batch.tokens.shape[1])[None, :] <= batch.positions[:, None]])
    answers = np.unique(np.concatenate([batch.answer, batch.foil]))
    return Circuit(
        task=task,
        params_sha256=params_sha256,
        ablation=config.prune.ablation,
        norm=config.prune.norm,
        target_loss=config.prune.target_loss,
        scale=float(own.scale),
        shift=tuple((int(t), float(v)) for t, v in zip(heldout.shifted, own.shift, strict=True)),
        edge_pruned=support.edges is not None,
        nodes=nodes,
        edges=edges,
        metrics=metrics,
        values={site: np.asarray(value) for site, value in heldout.gated.ablation.items()},
        bookkeeping=bookkeeping(nodes, edges, weights, seen, answers, token_text),
        tie_qk=config.prune.tie_qk,
        tasks=tuple(each),
    )
