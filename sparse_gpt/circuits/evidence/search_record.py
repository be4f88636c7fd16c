"""What a search says about itself: the contents of search.json ("sparse_gpt.search/1")."""

import dataclasses
from typing import Any

import numpy as np

from sparse_gpt.circuits.evidence import controls, curves
from sparse_gpt.circuits.evidence.baselines import Baselines
from sparse_gpt.circuits.evidence.leave_one_out import leave_one_out
from sparse_gpt.circuits.evidence.seed_overlap import overlap
from sparse_gpt.circuits.problem import Candidate, Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.evaluator import LARGEST
from sparse_gpt.circuits.search.mask_search import SearchResult
from sparse_gpt.circuits.search.populations import Searches
from sparse_gpt.circuits.search.select import Selected
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES, kinds

FORMAT = "sparse_gpt.search/1"
HISTORY_POINTS = 100


def search_record(
    problem: Problem,
    searches: Searches,
    baselines: Baselines,
    selected: Selected,
    candidate: Candidate,
    stages: Stages,
) -> dict[str, Any]:
    """The object in search.json, but for the seconds that everything took."""
    settings, graph, order = problem.settings, problem.graph, searches.trials.orders[selected.best_trial]
    untuned = settings.seeds * kinds(settings)  # tuned searches share their seed
    inputs = {"nodes": np.flatnonzero(candidate.support.gates).tolist(), "best_trial": selected.best_trial}
    if (edges := candidate.support.edges) is not None:
        inputs["edges"] = [[*edge.source, *edge.target] for edge in edges]
    measured = {
        "random_circuit": lambda: controls.random_circuits(problem, candidate.support),
        "redrawn_values": lambda: controls.redrawn_weights(problem, candidate.support),
        "importance": lambda: leave_one_out(problem, candidate),
        "loss_versus_size": lambda: curves.loss_versus_size(problem, order),
    }
    if (values := problem.further_values) is not None:
        measured["resampled"] = lambda: controls.resampled_values(problem, candidate, values)
    evidence = {name: stages.run(name, inputs, stage) for name, stage in measured.items()}
    curve = evidence["loss_versus_size"]
    sizes = stages.run("size_versus_target", inputs, lambda: curves.size_versus_target(problem, order, curve))
    return {
        "format": FORMAT,
        "task": problem.task,
        "params_sha256": problem.model.params_sha256,
        **({"samples_sha256": problem.samples.sha256} if problem.samples.sha256 else {}),
        "steps": settings.steps,
        "batch_pairs": settings.batch_pairs,
        "hyperparameters": dataclasses.asdict(settings),
        "trials": trial_records(problem, searches),
        "best_trial": selected.best_trial,
        "refined_from": selected.start,
        "reached": candidate.reached,
        "stages": stage_records(problem, selected),
        "history": history(searches.found),
        "size_versus_target": sizes,
        "baselines": baselines.records,
        "overlap": overlap(searches.trials.gates[:untuned], graph.config, settings.seed, graph.tie_qk),
        **evidence,
    }


def trial_records(problem: Problem, searches: Searches) -> list[dict[str, Any]]:
    """One entry per search: hyperparameters, size at the target before minimisation, held-out loss."""
    trials, scores = searches.trials, searches.trials.scores
    losses = problem.heldout.losses(Candidates(trials.gates), scores.scale, scores.shift)
    numbers = {name: values for name, values in searches.h._asdict().items() if name not in ("concrete", "ranked")}
    opened = sum(np.sum(searches.found.tau[site] > 0, axis=(1, 2)) for site in NODE_SITES)
    return [
        {
            "trial": i,
            **{name: np.asarray(values)[i].item() for name, values in numbers.items()},
            "start": "integrated_gradients" if searches.h.ranked[i] else "flat",
            "gates": "concrete" if searches.h.concrete[i] else "heaviside",
            "open_nodes": int(np.asarray(opened)[i]),
            "feasible": bool(searches.found.feasible[i]),
            "nodes": int(trials.sizes[i]),
            "edges": int(trials.edges[i]),
            "task_loss": float(losses[i]),
            "reached": bool(trials.reached[i]),
        }
        for i in range(len(trials.orders))
    ]


def history(found: SearchResult) -> list[dict[str, Any]]:
    """At most HISTORY_POINTS steps of all searches: loss of the step's training batch (LARGEST where it is not finite),
    open gates."""
    steps, loss = found.loss.shape[1], np.nan_to_num(found.loss, nan=LARGEST, posinf=LARGEST)
    at = np.unique(np.linspace(0, steps - 1, min(steps, HISTORY_POINTS)).round().astype(int))
    return [
        {"step": int(s), "loss": loss[:, s].tolist(), "open_nodes": found.open_nodes[:, s].astype(int).tolist()}
        for s in at
    ]


def stage_records(problem: Problem, selected: Selected) -> list[dict[str, Any]]:
    """Size and held-out loss of the circuit after the search and after each minimisation, each calibrated anew."""
    entries = []
    for name, support in selected.supports.items():
        candidate = support.candidates(problem.graph)
        scores = problem.selection(candidate)
        loss = float(problem.heldout.losses(candidate, scores.scale, scores.shift)[0])
        size = {"nodes": support.size, "edges": len(support.kept_edges(problem.graph))}
        entries.append({"stage": name, **size, "task_loss": loss})
    return entries
