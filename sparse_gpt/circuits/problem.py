"""What a circuit is searched on: one object that every stage of the pipeline takes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from sparse_gpt import estimate
from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import GateArrays, empty, to_vector
from sparse_gpt.circuits.run.ablation_values import RESAMPLED, task_means
from sparse_gpt.circuits.run.calibration import MAX_SCALE, calibrate, shift_tokens
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import GatedModel, gated_model
from sparse_gpt.circuits.run.objective import foil_shares, largest_loss
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.run.task_batch import (
    TaskBatch,
    by_length,
    by_task_and_length,
    joined,
    padded,
    rounded,
    rows,
    without_longest,
)
from sparse_gpt.config import Config, PruneConfig, group_to_dict
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.parameters import Params

# Of the prune group, what comes after everything that stages keep.
AFTERWARDS = ("tune_trials", "refine_trials", "refine_most", "edges", "card")


class TrainedModel(Protocol):
    """What the search needs of a model; `sparse_gpt.workdir.Workdir` is one."""

    @property
    def config(self) -> Config: ...
    @property
    def params(self) -> Params: ...
    @property
    def params_sha256(self) -> str: ...  # fingerprint of the weights, copied into the circuit
    @property
    def token_text(self) -> Callable[[int], str] | None: ...  # text of a token id; without it there are no traces


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Weights in memory as a `TrainedModel`."""

    config: Config
    params: Params
    params_sha256: str = ""
    token_text: Callable[[int], str] | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task, a model that does it, and where losses of candidate circuits are measured.

    Sizes are chosen and calibrations fitted on selection samples: validation samples and as many training samples, so
    that many words take part. What is reported is measured on held-out samples.

    Attributes:
        model: the trained model.
        samples: of the task, or of several tasks that are to share one circuit.
        gated: the model seen through gates, with its ablation values.
        train: what the mask search sees.
        selection: evaluates on selection samples; where there are several sets of ablation values, it uses all of them.
        heldout: evaluates on held-out samples.
        graph: the model's nodes and edges.
        searchable: site -> (n_layer, width), 1 where a node may be opened.
        further_values: with resample ablation, sets of ablation values (draws, n_layer, width) that no search has seen.
    """

    model: TrainedModel
    samples: TaskSamples
    gated: GatedModel
    train: TaskBatch
    selection: Evaluator
    heldout: Evaluator
    graph: ModelGraph
    searchable: GateArrays
    further_values: GateArrays | None = None

    @classmethod
    def build(cls, model: TrainedModel, samples: TaskSamples, activations: GateArrays | None = None) -> "Problem":
        """From a model and samples.

        Args:
            model: its configuration's `prune` group says what to search.
            samples: training, validation and held-out samples, and those of the shifted template variant if there are
                any; of several tasks, from `samples.shared`.
            activations: on the pretraining distribution: `pretraining_means` for prune.ablation=mean; for resample, at
                least RESAMPLED + 2 `pretraining_draws` (used as run/ablation_values.py says).

        Raises:
            InputError: `activations` are needed and missing, or this machine is too small.
        """
        config, params = model.config, model.params
        estimate.check_here(config, "prune")
        train = without_longest(samples.train) if samples.train.task is None else samples.train
        values, cyclic, further = _ablation_values(config, params, train, activations)
        gated = gated_model(config, params, values, cyclic)
        return cls(
            model,
            samples,
            gated,
            *_batches(gated, samples, train, config.prune),
            ModelGraph(config.model, params, config.prune.tie_qk),
            searchable(config.model, params),
            further,
        )

    @property
    def task(self) -> str:
        """Name of the task; of several, their names joined by "+"."""
        return "+".join(self.samples.names)

    @property
    def settings(self) -> PruneConfig:
        """The `prune` group of the configuration."""
        return self.model.config.prune

    @property
    def fingerprint(self) -> Tree:
        """What every stage that is kept depends on."""
        samples = {"samples_sha256": self.samples.sha256} if self.samples.sha256 else {}
        return {"params_sha256": self.model.params_sha256, **samples, **depends_on(self.settings)}

    @property
    def selection_target(self) -> float:
        """Task loss in nats that selection aims at: a share of the target, because words that took no part in the
        selection have a larger loss."""
        return self.settings.selection_margin * self.settings.target_loss

    @functools.cached_property
    def searchable_nodes(self) -> np.ndarray:
        """(nodes,) `searchable` as a vector."""
        return to_vector(self.searchable)

    @functools.cached_property
    def shifted(self) -> Evaluator | None:
        """Evaluates on held-out words in templates that nothing else has seen; None where the task has none."""
        batch = self.samples.shifted
        if batch is None:
            return None
        return self.on_heldout(by_length(batch))

    def on_heldout(self, batch: TaskBatch) -> Evaluator:
        """Evaluates other held-out samples than `heldout` does: in the whole model, whose few programs serve samples of
        all lengths. A support's own would be compiled anew for each of a few evaluations."""
        return dataclasses.replace(self.heldout, batch=batch, subcircuits=None)

    def selecting_on(self, further: TaskBatch | None) -> "Problem":
        """The same problem with further selection samples, padded as those are."""
        if further is None:
            return self
        return dataclasses.replace(self, selection=self.allowing(self.selection.and_on(further)))

    def allowing(self, evaluator: Evaluator, target: float | None = None) -> Evaluator:
        """An evaluator that allows what `prune.above_model` and `prune.above_natural` say (of path searches), where a
        loss has to reach `target`, or on selection samples the selection target."""
        return _allowing(evaluator, self.samples, self.settings, self.selection_target if target is None else target)

    def on_family(self, family: str) -> "Problem":
        """The same problem on one of the template families alone; ablation values stay."""
        samples = self.samples.only(family)
        train = without_longest(samples.train)
        train, selection, heldout = _batches(self.gated, samples, train, self.settings)
        selection, heldout = (_as_wide(*pair) for pair in ((selection, self.selection), (heldout, self.heldout)))
        return dataclasses.replace(self, samples=samples, train=train, selection=selection, heldout=heldout)

    def on_paper_terms(self) -> "Problem":
        """The same problem with losses and calibrations as of the paper's circuits: a mean decides, without the upper
        end of its interval, and logits are multiplied by whatever fits best."""
        selection = dataclasses.replace(self.selection, largest_scale=MAX_SCALE, upper_share=0.0, allowance=())
        heldout = dataclasses.replace(self.heldout, largest_scale=MAX_SCALE)
        return dataclasses.replace(self, selection=self.allowing(selection), heldout=heldout)

    def candidate(self, support: Support) -> Candidate:
        """A support with the calibration fitted on selection samples, and whether these have the target loss."""
        selection = self.allowing(self.selection, self.settings.target_loss)
        logits = selection.logits(support.masks)[0]
        fitted = selection.fit(logits)
        calibrated = calibrate(logits, fitted, selection.index)
        loss = largest_loss(calibrated, selection.batch, allowance=selection.allowance)
        return Candidate(support, fitted, loss <= self.settings.target_loss)

    def within(self, support: Support) -> "Problem":
        """The same problem for masks within a support, evaluated faster where that pays."""
        gates = support.gates
        both = self.selection.within_support(gates), self.heldout.within_support(gates)
        tokens, longest = (max(sizes) for sizes in zip(*(each.room for each in both), strict=True))
        # Of one size, so that one program serves both.
        selection, heldout = (dataclasses.replace(each, room=(tokens, longest)) for each in both)
        return dataclasses.replace(self, selection=selection, heldout=heldout)


def depends_on(prune: PruneConfig) -> Tree:
    """What of the prune group a search depends on."""
    return {name: value for name, value in group_to_dict(prune).items() if name not in AFTERWARDS}


def _allowing(evaluator: Evaluator, samples: TaskSamples, settings: PruneConfig, target: float) -> Evaluator:
    """See `Problem.allowing`."""
    if settings.search == "paper":
        return evaluator
    allowing, parts = evaluator.allowing(settings.above_model, target), list(samples.parts)
    if samples.natural not in parts:
        return allowing
    allowance = np.array(allowing.allowance)
    text = parts.index(samples.natural)
    allowance[text] = max(allowance[text], settings.above_natural)
    return dataclasses.replace(allowing, allowance=tuple(allowance.tolist()))


def _with_answers(gated: GatedModel, batch: TaskBatch) -> TaskBatch:
    """A batch with the model's own answers, for circuits to match."""
    whole = Evaluator(dataclasses.replace(gated, draws=None), batch, NO_TOKENS)
    return batch._replace(foil_share=foil_shares(whole.full_logits()))


def _batches(
    gated: GatedModel, samples: TaskSamples, train: TaskBatch, settings: PruneConfig
) -> tuple[TaskBatch, Evaluator, Evaluator]:
    """Training samples, and evaluators on selection and on held-out samples, of few lengths so that the same programs
    serve both. What is searched and selected on has the model's answers, where these are to be matched."""
    context, validation = gated.model.config.context, samples.validation

    def widened(*batches: TaskBatch) -> list[TaskBatch]:
        length = rounded(max(batch.tokens.shape[1] for batch in batches), context)
        return [padded(batch, length) for batch in batches]

    further = rows(train, slice(samples.further))
    chosen = by_task_and_length(joined(widened(validation, further)))
    (heldout,) = widened(samples.heldout)
    tokens, scale = shift_tokens(train), settings.largest_scale
    if settings.objective == "match":
        train, chosen = _with_answers(gated, train), _with_answers(gated, chosen)
    one_set = dataclasses.replace(gated, draws=None)
    # Where a mean of selection_margin times the target is asked for, the upper end may reach the target itself.
    upper = settings.selection_margin if settings.search == "path" else 0.0
    selection = Evaluator(gated, chosen, tokens, largest_scale=scale, upper_share=upper)
    selection = _allowing(selection, samples, settings, settings.selection_margin * settings.target_loss)
    return train, selection, Evaluator(one_set, by_length(heldout), tokens, largest_scale=scale)


def _as_wide(evaluator: Evaluator, other: Evaluator) -> Evaluator:
    """An evaluator whose prompts are padded to those of another, unless they are longer, so that gradients are taken by
    the same program."""
    length = max(batch.tokens.shape[1] for batch in (evaluator.batch, other.batch))
    return dataclasses.replace(evaluator, batch=padded(evaluator.batch, length))


def _ablation_values(
    config: Config, params: Params, train: TaskBatch, activations: GateArrays | None
) -> tuple[GateArrays, GateArrays | None, GateArrays | None]:
    """Values (n_layer, width) per site; with resample ablation also the sets that search and selection use cyclically,
    and those for evidence, (draws, n_layer, width) each."""
    ablation = config.prune.ablation
    if ablation == "zero":
        return empty(config.model), None, None
    if ablation == "task_mean":
        gated = gated_model(config, params, empty(config.model))
        return task_means(gated.model, gated.params, train), None, None
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
    cyclic, further = ({site: value[part] for site, value in activations.items()} for part in parts)
    return {site: value[0] for site, value in activations.items()}, cyclic, further
