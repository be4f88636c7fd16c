"""The path search beside the paper's search and rankings that nobody searched, on one model, task by task and seed by
seed in one process."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.circuits.evidence.baselines import truncate_baselines
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.masks import Masks
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
RANKED: Mapping[str, object] = {
    **PATH,
    "prune.starts": "integrated_gradients",
    "prune.gates": "heaviside",
    "prune.seeds": 2,
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
SEARCHES = {"paper": PAPER, "path": PATH, "ranked": RANKED}  # ranked: all path searches start from integrated gradients
RANKINGS = "rankings"  # of a row that has the smallest circuit that a ranking makes, on the path search's samples
SEEDS = range(3)


class Row(Record):
    """One search of one task, kept while the others run."""

    made_for: dict[str, Plain | list[Plain]]
    """Weights, the file of the samples ("" for a task of the table), and settings of the search."""
    row: dict[str, Plain]
    """Of the table."""


def path_vs_paper(folder: Path, model: str, chosen: list[AnyTask]) -> list[Check]:
    """Edges of the truncated ranking and after refinement, held-out loss and seconds of both searches, and the fewest
    edges of any ranking, for every task and seed."""
    workdir = open_workdir(folder, model)
    run, names = _with_settings(workdir, PATH), (*SEARCHES, RANKINGS)
    for task in chosen:  # what cannot be searched is said before hours are spent on the others
        require_solved(run, task.name, task_samples(task, run.tokenizer, run.config).validation)
    # Every task before another seed: what is stopped early says something of all of them.
    rows = [_kept(folder, workdir, task, name, seed) for seed in SEEDS for task in chosen for name in names]
    columns = dict.fromkeys(column for row in rows for column in row)
    plots.write_csv(folder / TABLE, [{column: row.get(column) for column in columns} for row in rows])
    for row in rows:
        print(_line(row))
    return checks(rows)


def checks(rows: list[Tree]) -> list[Check]:
    """Of each kind of path search: geometric means of edges beside the paper's search, how often it leaves at most what
    a ranking does, and seconds. What has not reached the target has no size there: it is ahead of nothing, and sizes
    are compared where both searches have reached it."""
    by_search = {name: [row for row in rows if row["search"] == name] for name in (*SEARCHES, RANKINGS)}
    seconds = {name: sum(row["search_seconds"] + row["refine_seconds"] for row in by_search[name]) for name in SEARCHES}
    others = [row["cut_edges"] if row["reached"] else math.inf for row in by_search[RANKINGS]]
    found = []
    for name in SEARCHES:
        own, paper = by_search[name], by_search["paper"]
        missed = sum(not row["reached"] for row in own)
        found.append(reported(f"{name}: did not reach the target, of {len(own)} tasks and seeds", missed))
        if name == "paper":
            continue
        ahead = sum(row["reached"] and row["cut_edges"] <= other for row, other in zip(own, others, strict=True))
        both = [pair for pair in zip(paper, own, strict=True) if all(row["reached"] for row in pair)]
        found += [
            at_least(f"{name}: edges straight from the search, times fewer", _times_fewer(both, "cut_edges"), 2),
            at_least(f"{name}: share with at most the edges of any ranking", ahead / len(others), 0.9),
            at_least(f"{name}: edges after refinement, times fewer", _times_fewer(both, "edges"), 1),
            reported(f"{name}: seconds of all tasks, times fewer", seconds["paper"] / seconds[name]),
        ]
    return found


def _times_fewer(both: list[tuple[Tree, Tree]], key: str) -> float | None:
    """Geometric mean of the first rows over that of the second; None without any."""
    first, second = ([pair[i][key] for pair in both] for i in (0, 1))
    return measures.geometric_mean(first) / measures.geometric_mean(second) if both else None


def _line(row: Tree) -> str:
    """A row as a person reads it."""
    cut = f"cut {row['cut_nodes']:4} nodes{row['cut_edges']:6} edges, held-out {row['cut_loss']:.3f}"
    begin = f"{row['task']:24}seed {row['seed']} {row['search']:9}{cut}{'' if row['reached'] else ', target missed'}"
    if row["search"] == RANKINGS:
        return f"{begin} ({row['ranking']})"
    refined = f"refined {row['nodes']:4} nodes{row['edges']:5} edges, {row['loss']:.3f}"
    return f"{begin}; {refined}; {row['search_seconds']:.0f} + {row['refine_seconds']:.0f} s"


def _kept(folder: Path, workdir: Path, task: AnyTask, name: str, seed: int) -> Tree:
    """A row, of an earlier call if it was for the same weights, samples and settings."""
    run = _with_settings(workdir, {**SEARCHES.get(name, PATH), "prune.seed": seed})
    hashes = {"params_sha256": run.params_sha256, "samples_sha256": task.samples_sha256}
    made_for = {**hashes, **configs.group_to_dict(run.config.prune)}
    path = folder / "rows" / f"{task.name} {name} {seed}.json"
    kept = Row.read_if_any(path)
    # Older rows do not say of which file their samples are: those of the table's tasks are of none.
    if kept is None or {"samples_sha256": "", **kept.made_for} != made_for:
        samples = task_samples(task, run.tokenizer, run.config)
        problem = Problem.build(run, samples, run.pretraining_activations())
        found = smallest_ranking(problem) if name == RANKINGS else measured(problem)
        kept = Row(made_for=made_for, row={"task": task.name, "search": name, "seed": seed, **found})
        kept.write(path)
    return dict(kept.row)


def _with_settings(workdir: Path, settings: Mapping[str, object]) -> Workdir:
    """The model under other settings than its own."""
    return Workdir(workdir, configs.replace(configs.load(workdir), settings))


def smallest_ranking(problem: Problem) -> Tree:
    """Sizes and held-out loss of the ranking that reaches the target with the fewest edges, or, where none does, of
    the one that comes closest."""
    records = truncate_baselines(problem).records
    best = min(records, key=lambda record: (not record.reached, record.edges if record.reached else record.task_loss))
    return {
        "ranking": best.ranking,
        "cut_nodes": best.nodes,
        "cut_edges": best.edges,
        "cut_loss": best.task_loss,
        "reached": int(bool(best.reached)),
    }


def measured(problem: Problem) -> Tree:
    """Sizes, losses and seconds of a search: one population, its best ranking truncated at the target, and refined.
    Seconds include compilation, of what no earlier task of this process has compiled."""
    stages, started = Stages(), _clocks()
    problem = populations.within_start(problem, stages)
    trials = populations.search(problem, stages, progress=False).trials
    searched = _clocks()
    selected = select(problem, trials, {}, stages)
    refined = _clocks()
    return {
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
    """Sizes and held-out losses: of the best search of the truncated ranking, and at the end; edges of every search."""
    best, support = selected.best_trial, selected.support
    mask = support.masks
    cut, end = Masks(trials.gates[[best]]), problem.selecting_on(selected.joined).selection(mask)
    scores = problem.selection(cut)
    return {
        "cut_nodes": int(trials.sizes[best]),
        "cut_edges": int(trials.edges[best]),
        "cut_loss": float(problem.heldout.losses(cut, scores.calibration)[0]),
        "each_cut_edges": " ".join(map(str, trials.edges)),
        "nodes": support.size,
        "edges": len(support.edges),
        "loss": float(problem.heldout.losses(mask, end.calibration)[0]),
        "scale": float(end.calibration.scale[0]),
    }
