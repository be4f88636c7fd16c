"""What circuit.json reports of a circuit: its sizes, and losses on held-out samples."""

from collections.abc import Sequence

import numpy as np

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence.paths import path_statistics
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import accuracy, agreement, task_loss
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_length
from sparse_gpt.records import Search
from sparse_gpt.records.circuit import LEFT_ASIDE, NOVEL, SEARCHED, WILD, FamilyLosses, TaskLosses

Metrics = dict[str, float]


def measure(problem: Problem, candidate: Candidate) -> tuple[Metrics, list[TaskLosses]]:
    """Sizes and losses of a circuit; and the losses of each of several tasks, with its name."""
    heldout, support = problem.heldout, candidate.support
    logits, full = heldout.logits(support.masks)[0], heldout.full_logits()
    ablated = heldout.logits(Masks(1 - support.gates[None, :]))[0]
    calibrated = calibrate(logits, candidate.calibration, heldout.index)

    def losses(index: np.ndarray | slice) -> Metrics:
        return {
            "task_loss": task_loss(calibrated[index]),
            "task_loss_uncalibrated": task_loss(logits[index]),
            "accuracy": accuracy(calibrated[index]),
            "agreement": agreement(calibrated[index], full[index]),
            "full_model_task_loss": task_loss(full[index]),
            "ablated_task_loss": task_loss(ablated[index]),
        }

    sizes = {
        "nodes": support.size,
        "edges": len(support.edges),
        "embedding_edges": support.embedding_edges,
        "unembedding_edges": support.unembedding_edges,
    }
    names = problem.samples.names if len(problem.samples.names) > 1 else ()
    by_task = [TaskLosses(task=name, **losses(heldout.batch.task == i)) for i, name in enumerate(names)]
    return sizes | losses(slice(None)) | _shifted(problem, candidate), by_task


def _shifted(problem: Problem, candidate: Candidate) -> Metrics:
    """Whether the circuit does what the model does where the template is another (calibration and all unchanged)."""
    shifted = problem.shifted
    if shifted is None:
        return {}
    logits = shifted.logits(candidate.support.masks)[0]
    calibrated, full = calibrate(logits, candidate.calibration, shifted.index), shifted.full_logits()
    return {
        "shifted_task_loss": task_loss(calibrated),
        "shifted_accuracy": accuracy(calibrated),
        "shifted_agreement": agreement(calibrated, full),
        "shifted_full_model_task_loss": task_loss(full),
        "shifted_full_model_accuracy": accuracy(full),
    }


def by_family(problem: Problem, candidate: Candidate) -> list[FamilyLosses]:
    """Losses on held-out samples of every template family: of those searched on, those left aside, and novel ones;
    and of natural text."""
    samples = problem.samples
    batches = [(name, SEARCHED, family.heldout) for name, family in samples.families.items()]
    batches += [(name, LEFT_ASIDE, batch) for name, batch in samples.others.items()]
    batches += [(name, NOVEL, batch) for name, batch in samples.novel.items()]
    batches += [] if samples.wild is None else [("text", WILD, samples.wild)]
    found = []
    for name, role, batch in batches:
        evaluator = problem.on_heldout(_in_order(batch, role))
        logits = evaluator.logits(candidate.support.masks)[0]
        ablated = evaluator.logits(Masks(1 - candidate.support.gates[None, :]))[0]
        calibrated, full = calibrate(logits, candidate.calibration, evaluator.index), evaluator.full_logits()
        found.append(
            FamilyLosses(
                family=name,
                role=role,
                pairs=len(batch.positions) // 2,
                task_loss=task_loss(calibrated),
                accuracy=accuracy(calibrated),
                agreement=agreement(calibrated, full),
                full_model_task_loss=task_loss(full),
                full_model_accuracy=accuracy(full),
                ablated_task_loss=task_loss(ablated),
            )
        )
    return found


def _in_order(batch: TaskBatch, role: str) -> TaskBatch:
    """Pairs in order of length; natural samples, which are no pairs, as they are."""
    return batch if role == WILD else by_length(batch)


def medians(search: Search) -> Metrics:
    """What circuit.json repeats of the controls in search.json."""
    redrawn = search.redrawn_values
    found = {
        "random_circuit_task_loss": float(np.median(_known(search.random_circuit.task_loss))),
        "redrawn_values_task_loss": float(np.median(_known(redrawn.task_loss))),
        "redrawn_values_task_loss_calibrated": float(np.median(_known(redrawn.task_loss_calibrated))),
    }
    if search.resampled is not None:
        found["resampled_task_loss"] = float(np.mean(_known(search.resampled.task_loss)))
    return found


def _known(losses: Sequence[float | None]) -> list[float]:
    return [loss for loss in losses if loss is not None]


def describe(problem: Problem, candidate: Candidate, search: Search | None = None) -> Circuit:
    """The circuit with everything that circuit.json holds; medians of controls where a search is given."""
    metrics, by_task = measure(problem, candidate)
    support, heldout, settings = candidate.support, problem.heldout, problem.settings
    nodes, edges = support.nodes, support.edges
    batch = heldout.batch
    prompts = np.unique(batch.tokens[np.arange(batch.tokens.shape[1])[None, :] <= batch.positions[:, None]])
    answers = np.unique(np.concatenate([batch.answer, batch.foil]))
    shift = zip(heldout.shift_tokens, candidate.calibration.shift, strict=True)
    return Circuit(
        task=problem.task,
        params_sha256=problem.model.params_sha256,
        ablation=settings.ablation,
        norm=settings.norm,
        target_loss=settings.target_loss,
        scale=float(candidate.calibration.scale),
        shift=tuple((int(token), float(value)) for token, value in shift),
        edge_pruned=support.pruned_to is not None,
        nodes=nodes,
        edges=edges,
        metrics=metrics if search is None else metrics | medians(search),
        values={site: np.asarray(value) for site, value in heldout.gated.ablation.items()},
        path_statistics=path_statistics(nodes, edges, problem.graph, prompts, answers, problem.model.token_text),
        tie_qk=settings.tie_qk,
        tasks=tuple(by_task),
        families=tuple(by_family(problem, candidate)),
    )
