"""What a search says about itself, which search.json holds."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from sparse_gpt.circuits.evidence import controls, curves
from sparse_gpt.circuits.evidence.baselines import Baselines
from sparse_gpt.circuits.evidence.seed_overlap import overlap
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import LARGEST
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.search.mask_search import SearchResult
from sparse_gpt.circuits.search.populations import Searches
from sparse_gpt.circuits.search.select import Selected
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES, group_to_dict, kinds
from sparse_gpt.records import Search
from sparse_gpt.records.search import (
    Control,
    CurvePoint,
    HistoryPoint,
    Importance,
    SizeVersusTarget,
    Stage,
    Trial,
)

HISTORY_POINTS = 100
T = TypeVar("T")


def search_record(
    problem: Problem,
    searches: Searches,
    baselines: Baselines,
    selected: Selected,
    candidate: Candidate,
    stages: Stages,
) -> Search:
    """All but the seconds that everything took."""
    settings, graph, order = problem.settings, problem.graph, searches.trials.orders[selected.best_trial]
    inside = problem.within(candidate.support)
    untuned = settings.seeds * kinds(settings)  # tuned searches share their seed
    inputs = {"nodes": np.flatnonzero(candidate.support.gates).tolist(), "best_trial": selected.best_trial}
    if (edges := candidate.support.edges) is not None:
        inputs["edges"] = [[*edge.source, *edge.target] for edge in edges]

    def stage(name: str, kind: type[T], function: Callable[[], T]) -> T:
        return stages.run_record(name, inputs, kind, function)

    drawn = stage("random_circuit", Control, lambda: controls.random_circuits(inside, candidate.support))
    redrawn = stage("redrawn_values", Control, lambda: controls.redrawn_weights(inside, candidate.support))
    importance = stage("importance", Importance, lambda: controls.leave_one_out(inside, candidate))
    curve = stage("loss_versus_size", tuple[CurvePoint, ...], lambda: curves.loss_versus_size(problem, order))
    resampled = None
    if (values := problem.further_values) is not None:
        resampled = stage("resampled", Control, lambda: controls.resampled_values(inside, candidate, values))
    sizes = stage("size_versus_target", SizeVersusTarget, lambda: curves.size_versus_target(problem, order, curve))
    return Search(
        task=problem.task,
        params_sha256=problem.model.params_sha256,
        samples_sha256=problem.samples.sha256,
        steps=settings.steps,
        batch_pairs=settings.batch_pairs,
        hyperparameters=group_to_dict(settings),
        trials=trial_records(problem, searches),
        best_trial=selected.best_trial,
        refined_from=selected.start,
        reached=candidate.reached,
        allowed=allowed_losses(problem),
        stages=stage_records(problem, selected),
        fresh=selected.checks,
        history=history(searches.found),
        size_versus_target=sizes,
        baselines=tuple(baselines.records),
        overlap=overlap(searches.trials.gates[:untuned], graph.config, settings.seed, graph.tie_qk),
        random_circuit=drawn,
        redrawn_values=redrawn,
        importance=importance,
        loss_versus_size=curve,
        resampled=resampled,
    )


def allowed_losses(problem: Problem) -> dict[str, float]:
    """See `Search.allowed`."""
    found = dict(zip(problem.samples.parts, problem.selection.allowance, strict=False))  # of the paper's search, none
    return {name: problem.selection_target + allowance for name, allowance in found.items() if allowance > 0}


def trial_records(problem: Problem, searches: Searches) -> tuple[Trial, ...]:
    """One entry per search: hyperparameters, size at the target before minimization, held-out loss."""
    trials, scores = searches.trials, searches.trials.scores
    losses = problem.heldout.losses(Masks(trials.gates), scores.calibration)
    numbers = {name: values for name, values in searches.h._asdict().items() if name not in ("concrete", "ranked")}
    opened = sum(np.sum(searches.found.tau[site] > 0, axis=(1, 2)) for site in NODE_SITES)
    return tuple(
        Trial(
            trial=i,
            **{name: np.asarray(values)[i].item() for name, values in numbers.items()},
            start="integrated_gradients" if searches.h.ranked[i] else "flat",
            gates="concrete" if searches.h.concrete[i] else "heaviside",
            open_nodes=int(np.asarray(opened)[i]),
            feasible=bool(searches.found.feasible[i]),
            nodes=int(trials.sizes[i]),
            edges=int(trials.edges[i]),
            task_loss=float(losses[i]),
            reached=bool(trials.reached[i]),
        )
        for i in range(len(trials.orders))
    )


def history(found: SearchResult) -> tuple[HistoryPoint, ...]:
    """At most HISTORY_POINTS steps of all searches: loss of the step's training batch (LARGEST where it is not finite),
    open gates."""
    steps, loss = found.loss.shape[1], np.nan_to_num(found.loss, nan=LARGEST, posinf=LARGEST)
    at = np.unique(np.linspace(0, steps - 1, min(steps, HISTORY_POINTS)).round().astype(int))
    opened = found.open_nodes.astype(int)
    return tuple(
        HistoryPoint(step=int(s), loss=tuple(loss[:, s].tolist()), open_nodes=tuple(opened[:, s].tolist())) for s in at
    )


def stage_records(problem: Problem, selected: Selected) -> tuple[Stage, ...]:
    """Size and held-out loss of the circuit after the search and after each minimization, each calibrated anew."""
    entries = []
    for name, support in selected.supports.items():
        mask = support.masks
        scores = problem.selection(mask)
        loss = float(problem.heldout.losses(mask, scores.calibration)[0])
        entries.append(Stage(stage=name, nodes=support.size, edges=len(support.edges), task_loss=loss))
    return tuple(entries)
