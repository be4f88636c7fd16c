"""Rows that search again, with the same stages, settings and budget: on a task that means nothing, in a model that
knows nothing, on other samples."""

import dataclasses
import math

import numpy as np

from sparse_gpt.circuits.evidence.card.subject import (
    Measurement,
    Samples,
    Subject,
    losses,
    not_applicable,
)
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.ablation_values import task_means
from sparse_gpt.circuits.run.calibration import MAX_SHIFTED, calibrate
from sparse_gpt.circuits.run.gated_model import gated_model
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.run.task_batch import TaskBatch, rows
from sparse_gpt.config import Config
from sparse_gpt.io import Json, Tree
from sparse_gpt.parameters import EMBEDDING, MATRIX, Params, flatten, parameter_table, unflatten

HALVES = 4  # searches on halves of the samples

_RESAMPLED = "a search with resample ablation would need further draws of pretraining text"
_NO_SEARCH = "no search was given"


def nonsense(subject: Subject, samples: Samples) -> Measurement:
    """Edges of the circuit, divided by those of circuits that make the model answer the same prompts with two unrelated
    tokens, in both orientations. A nonsense circuit that misses the target counts as infinitely large."""
    del samples
    problem = subject.problem
    if (why := _impossible(subject)) is not None:
        return not_applicable(why)
    answers = np.unique(np.concatenate([problem.train.answer, problem.train.foil]))
    if len(answers) > MAX_SHIFTED:
        return not_applicable("the task has too many answers to give each an unrelated token")
    unrelated = unrelated_tokens(problem, len(answers))
    found = []
    for orientation in ("one way", "the other way"):
        tokens = unrelated if orientation == "one way" else unrelated[::-1]
        renamed = dict(zip(answers.tolist(), tokens.tolist(), strict=True))
        other = _rebuilt(problem, _on_the_task(problem), problem.model.params, relabeled(problem.samples, renamed))
        found.append({"orientation": orientation, **_judged(other, _find(subject, other))})
    return _ratio(subject, found, tokens=_texts(problem, unrelated))


def permuted_weights(subject: Subject, samples: Samples) -> Measurement:
    """Edges of the circuit, divided by those of the circuit that the search finds in the model with the nonzero entries
    of each matrix permuted; closed nodes take their means over the task, for there is no pretraining text here."""
    del samples
    problem = subject.problem
    if (why := _impossible(subject)) is not None:
        return not_applicable(why)
    params = permuted(problem.model.config, problem.model.params, subject.seed)
    other = _rebuilt(problem, _on_the_task(problem), params, problem.samples, own_means=True)
    return _ratio(subject, [_judged(other, _find(subject, other))])


def stability(subject: Subject, samples: Samples) -> Measurement:
    """Mean share of the circuit's nodes that searches on random halves of the training and validation pairs, with other
    seeds, find again; and how often each node was found."""
    del samples
    problem = subject.problem
    if (why := _impossible(subject)) is not None:
        return not_applicable(why)
    nodes = np.flatnonzero(subject.gates)
    if not len(nodes):
        return not_applicable("the circuit has no nodes")
    rng, found = np.random.default_rng(subject.seed), []
    for i in range(HALVES):
        prune = dataclasses.replace(problem.settings, seed=problem.settings.seed + 1 + i)
        config = dataclasses.replace(problem.model.config, prune=prune)
        some = _halved(problem.samples, rng)
        found.append(_find(subject, _rebuilt(problem, config, problem.model.params, some)).support.gates)
    again = np.array(found)[:, nodes] > 0
    union = np.maximum(np.array(found), subject.gates).sum(axis=1)
    details = {
        "found_in": again.sum(axis=0).tolist(),
        "searches": HALVES,
        "jaccard": (again.sum(axis=1) / union).tolist(),
        "always": int(again.all(axis=0).sum()),
        "never": int((~again.any(axis=0)).sum()),
    }
    return Measurement(float(again.mean()), details=details)


def relabeled(samples: TaskSamples, renamed: dict[int, int]) -> TaskSamples:
    """Samples with other tokens as answers and foils; prompts as they are."""

    def other(batch: TaskBatch) -> TaskBatch:
        answer, foil = (
            np.array([renamed.get(int(t), int(t)) for t in tokens], np.int32) for tokens in (batch.answer, batch.foil)
        )
        return batch._replace(answer=answer, foil=foil)

    train, validation, heldout = map(other, (samples.train, samples.validation, samples.heldout))
    return dataclasses.replace(samples, train=train, validation=validation, heldout=heldout, shifted=None)


def unrelated_tokens(problem: Problem, count: int) -> np.ndarray:
    """(count,) tokens that occur in no prompt, answer or foil; words where tokens have texts."""
    batches = (problem.samples.train, problem.samples.validation, problem.samples.heldout)
    used = np.unique(np.concatenate([np.ravel(part) for b in batches for part in (b.tokens, b.answer, b.foil)]))
    free = np.setdiff1d(np.arange(problem.graph.config.vocab_size), used)
    if (text := problem.model.token_text) is not None:
        wordlike = [int(t) for t in free if len(text(int(t)).strip()) > 3 and text(int(t)).strip().isalpha()]
        free = np.array(wordlike) if len(wordlike) >= count else free
    if len(free) < count:
        free = np.arange(problem.graph.config.vocab_size)
    return np.random.default_rng(problem.settings.seed).choice(free, count, replace=False)


def permuted(config: Config, params: Params, seed: int) -> Params:
    """Weights with the nonzero entries of each projected matrix in another order; zeros stay where they are."""
    rng, leaves = np.random.default_rng(seed), {path: np.array(value) for path, value in flatten(params).items()}
    for path, spec in parameter_table(config.model).items():
        if spec.kind in (MATRIX, EMBEDDING) and path in leaves:
            nonzero = leaves[path] != 0
            leaves[path][nonzero] = rng.permutation(leaves[path][nonzero])
    return unflatten(leaves)


def _impossible(subject: Subject) -> str | None:
    if subject.find is None:
        return _NO_SEARCH
    return _RESAMPLED if subject.problem.settings.ablation == "resample" else None


def _on_the_task(problem: Problem) -> Config:
    """The configuration for searches that ought to fail: they have to do the task, at the target itself. To match what
    this model answers, or to be allowed its own loss, would be no null: it knows nothing, and nothing would do."""
    config = problem.model.config
    alone = dataclasses.replace(config.prune, objective="task", above_model=-math.inf, above_natural=0.0)
    return dataclasses.replace(config, prune=alone)


def _find(subject: Subject, problem: Problem) -> Candidate:
    assert subject.find is not None
    return subject.find(problem)


def _rebuilt(
    problem: Problem, config: Config, params: Params, samples: TaskSamples, own_means: bool = False
) -> Problem:
    """A problem with other weights, samples or settings; closed nodes as in the old one, or with `own_means`."""
    model = LoadedModel(config, params, token_text=problem.model.token_text)
    values: GateArrays = {site: np.asarray(value) for site, value in problem.gated.ablation.items()}
    if own_means:
        gated = gated_model(config, params, values)
        values = task_means(gated.model, gated.params, problem.train)
    if problem.settings.ablation != "mean":
        return Problem.build(model, samples)
    return Problem.build(model, samples, values)


def _judged(problem: Problem, candidate: Candidate) -> Tree:
    """Size and held-out results of a circuit that should not exist."""
    support, heldout = candidate.support, problem.heldout
    logits = calibrate(heldout.logits(support.masks)[0], candidate.calibration, heldout.index)
    ablated = heldout.logits(Masks(1 - support.gates[None]))[0]
    return {
        "reached": candidate.reached,
        "nodes": support.size,
        "edges": len(support.edges),
        "task_loss": float(losses(logits).mean()),
        "accuracy": float(np.mean(logits[:, 0] > logits[:, 1])),
        "ablated_task_loss": float(losses(ablated).mean()),
        "scale": float(np.asarray(candidate.calibration.scale)),
    }


def _ratio(subject: Subject, found: list[Tree], **details: Json) -> Measurement:
    own = len(subject.candidate.support.edges)
    sizes = [entry["edges"] for entry in found if entry["reached"]]
    note = "" if sizes else "no such circuit reached the target"
    return Measurement(
        own / max(1, min(sizes)) if sizes else 0.0, details={"edges": own, "found": found, **details}, note=note
    )


def _halved(samples: TaskSamples, rng: np.random.Generator) -> TaskSamples:
    """A random half of the pairs for training and of those for validation, the same number of every task or family."""
    families = {
        name: family._replace(validation=_half(family.validation, rng, 1)) for name, family in samples.families.items()
    }
    train, validation = (_half(batch, rng, len(samples.parts)) for batch in (samples.train, samples.validation))
    return dataclasses.replace(samples, train=train, validation=validation, families=families)


def _half(batch: TaskBatch, rng: np.random.Generator, parts: int) -> TaskBatch:
    """Half of the pairs of a batch that has those of its parts in turn."""
    turns = len(batch.positions) // 2 // parts
    some = np.sort(rng.choice(turns, max(1, turns // 2), replace=False))
    return rows(batch, (2 * parts * some[:, None] + np.arange(2 * parts)).reshape(-1))


def _texts(problem: Problem, tokens: np.ndarray) -> list[int | str]:
    text = problem.model.token_text
    return [int(token) if text is None else text(int(token)) for token in tokens]
