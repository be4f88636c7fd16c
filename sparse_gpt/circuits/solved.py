"""Whether the model itself can do a task, or a template family of it: what it cannot do has no circuit."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from sparse_gpt.circuits.nodes import empty
from sparse_gpt.circuits.problem import Problem, TrainedModel
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.objective import losses_by_task, task_loss
from sparse_gpt.circuits.run.samples import TaskSamples, mixture
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_task_and_length, joined, padded
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.parameters import Params


def require_solved(model: TrainedModel, task: str, batch: TaskBatch) -> None:
    """InputError unless the model itself has at most the target loss on `batch`: what it cannot do has no circuit."""
    _require_target(full_task_loss(model.config, model.params, batch), task, model.config.prune.target_loss)


def _require_target(loss: float, task: str, target: float) -> None:
    if not loss <= target:
        raise InputError(
            f"task {task}: the model itself has task loss {loss:.4g} (chance is {math.log(2):.3f}), above "
            f"--config.prune.target_loss={target:g}; train it longer or raise the target"
        )


def require_each_solved(problem: Problem) -> None:
    """`require_solved` on the validation samples of every task (or family of the one task) of a problem."""
    samples = problem.samples
    (first, *others), batch = samples.names, by_task_and_length(samples.validation)
    logits = Evaluator(problem.gated, batch, NO_TOKENS).full_logits()
    for part, loss in losses_by_task(logits, batch).items():
        one_of_several = batch.task is not None and not others
        said = f"{first}, family {samples.parts[part]}" if one_of_several else samples.names[part]
        _require_target(loss, said, problem.settings.target_loss)


def keep_solved(model: TrainedModel, samples: TaskSamples, report: Callable[[str], None] = print) -> TaskSamples:
    """Samples of one task without the families that the model cannot do: those are named with their loss.

    Raises:
        InputError: it can do none of them.
    """
    if len(samples.families) < 2:
        require_solved(model, samples.names[0], samples.validation)
        return samples
    target = model.config.prune.target_loss
    losses = _full_task_losses(model, {name: family.validation for name, family in samples.families.items()})
    found = ", ".join(f"{name} (the model has {loss:.3g})" for name, loss in losses.items() if not loss <= target)
    kept = {name: samples.families[name] for name, loss in losses.items() if loss <= target}
    said = f"task {samples.names[0]}: families above --config.prune.target_loss={target:g}"
    if not kept:
        raise InputError(f"{said} are all it was asked for: {found}; train it longer or raise the target")
    if found:
        report(f"{said} are left out: {found}")
        others = {name: samples.families[name].heldout for name in losses if name not in kept}
        samples = dataclasses.replace(samples, others={**others, **samples.others})
    return mixture(samples, kept)


def full_task_loss(config: Config, params: Params, batch: TaskBatch) -> float:
    """Task loss in nats of the model itself."""
    gated = gated_model(config, params, empty(config.model))
    return task_loss(Evaluator(gated, batch, NO_TOKENS).full_logits())


def _full_task_losses(model: TrainedModel, batches: Mapping[str, TaskBatch]) -> dict[str, float]:
    """`full_task_loss` of several batches, of which programs run parts together."""
    length = max(batch.tokens.shape[1] for batch in batches.values())
    together = joined([padded(batch, length) for batch in batches.values()])
    gated = gated_model(model.config, model.params, empty(model.config.model))
    logits = Evaluator(gated, together, NO_TOKENS).full_logits()
    ends = np.cumsum([len(batch.positions) for batch in batches.values()])
    return dict(zip(batches, map(task_loss, np.split(logits, ends[:-1])), strict=True))
