"""The path search beside the paper's search, on one model, task by task in one process."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.search import populations
from sparse_gpt.circuits.search.ranking import Trials
from sparse_gpt.circuits.search.select import Selected, select
from sparse_gpt.circuits.solved import require_solved
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, reported
from sparse_gpt.experiments.rankings import open_workdir
from sparse_gpt.io import Tree
from sparse_gpt.records import Record
from sparse_gpt.records.base import Plain
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

TABLE = "path-vs-paper.csv"
PATH: Mapping[str, object] = {
    "prune.search": "path",
    "prune.steps": 160,
    "prune.batch_pairs": 16,
    "prune.seeds": 1,
    "prune.refine_trials": 1,
}
PAPER: Mapping[str, object] = {
    "prune.search": "paper",
    "prune.steps": 200,
    "prune.batch_pairs": 32,
    "prune.learning_rate": 5e-3,
    "prune.seeds": 2,
    "prune.k_coefs": "1e-3,3e-3",
    "prune.refine_trials": 1,
}
SEARCHES = {"paper": PAPER, "path": PATH}


class Row(Record):
    """One search of one task, kept while the others run."""

    made_for: dict[str, Plain]
    """Weights, and settings of the search."""
    row: dict[str, Plain]
    """Of the table."""


def path_vs_paper(folder: Path, model: str, chosen: list[AnyTask]) -> list[Check]:
    """Edges of the truncated ranking and after refinement, held-out loss and seconds of both searches."""
    workdir = open_workdir(folder, model)
    rows = [_kept(folder, workdir, task, name) for task in chosen for name in SEARCHES]
    plots.write_csv(folder / TABLE, rows)
    for row in rows:
        print(
            f"{row['task']:24}{row['search']:7}cut {row['cut_nodes']:4} nodes{row['cut_edges']:5} edges, held-out "
            f"{row['cut_loss']:.3f}; refined {row['nodes']:4} nodes{row['edges']:5} edges, {row['loss']:.3f}; "
            f"{row['search_seconds']:.0f} + {row['refine_seconds']:.0f} s"
        )
    figures = []
    for key, what in (("cut_edges", "of the truncated ranking"), ("edges", "after refinement")):
        paper, path = ([row[key] for row in rows if row["search"] == name] for name in SEARCHES)
        figures.append(at_least(f"edges {what}, paper's over path's", measures.geometric_mean(paper) / _mean(path), 1))
    seconds = [
        sum(row["search_seconds"] + row["refine_seconds"] for row in rows if row["search"] == s) for s in SEARCHES
    ]
    return [*figures, reported("seconds of all tasks, paper's over path's", seconds[0] / seconds[1])]


def _mean(values: list[int]) -> float:
    return measures.geometric_mean(values)


def _kept(folder: Path, workdir: Path, task: AnyTask, name: str) -> Tree:
    """A row, of an earlier call if it was for the same weights and settings."""
    config = configs.replace(configs.load(workdir), SEARCHES[name])
    run = Workdir(workdir, config)
    made_for = {"params_sha256": run.params_sha256, **configs.group_to_dict(config.prune)}
    path = folder / "rows" / f"{task.name} {name}.json"
    kept = Row.read_if_any(path)
    if kept is None or kept.made_for != made_for:
        kept = Row(made_for=made_for, row=measured(run, task, name))
        kept.write(path)
    return dict(kept.row)


def measured(run: Workdir, task: AnyTask, name: str) -> Tree:
    """A row: one population, its best ranking truncated at the target, and refined. Seconds include compilation."""
    samples = task_samples(task, run.tokenizer, run.config)
    require_solved(run, task.name, samples.validation)
    problem = Problem.build(run, samples, run.pretraining_activations())
    stages, started = Stages(), _clocks()
    trials = populations.search(problem, stages, progress=False).trials
    searched = _clocks()
    selected = select(problem, trials, {}, stages)
    refined = _clocks()
    return {
        "task": task.name,
        "search": name,
        "reached": int(np.sum(trials.reached)),
        "searches": len(trials.reached),
        **_sizes(problem, trials, selected),
        **_elapsed("search", started, searched),
        **_elapsed("refine", searched, refined),
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _elapsed(what: str, since: tuple[float, float], until: tuple[float, float]) -> dict[str, float]:
    """Seconds by the clock, and of processor time of all cores, which other processes lengthen less."""
    names = (f"{what}_seconds", f"{what}_processor_seconds")
    return {name: round(end - start, 1) for name, start, end in zip(names, since, until, strict=True)}


def _sizes(problem: Problem, trials: Trials, selected: Selected) -> Tree:
    """Sizes and held-out losses: of the best search of the truncated ranking, and at the end."""
    best, support = selected.best_trial, selected.support
    candidate = support.candidates
    cut, end = Candidates(trials.gates[[best]]), problem.selecting_on(selected.joined).selection(candidate)
    scores = problem.selection(cut)
    return {
        "cut_nodes": int(trials.sizes[best]),
        "cut_edges": int(trials.edges[best]),
        "cut_loss": float(problem.heldout.losses(cut, scores.calibration)[0]),
        "nodes": support.size,
        "edges": len(support.edges),
        "loss": float(problem.heldout.losses(candidate, end.calibration)[0]),
        "scale": float(end.calibration.scale[0]),
    }
