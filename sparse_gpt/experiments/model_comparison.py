"""What experiments share that compare circuits between models: common tasks, and sizes by the same search."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.circuits.evidence.curves import loss_versus_size, size_versus_target
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.search import populations
from sparse_gpt.circuits.solved import full_task_loss
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.experiments import measures
from sparse_gpt.experiments.measures import TARGET
from sparse_gpt.io import Json, Tree
from sparse_gpt.records import Record
from sparse_gpt.records.base import Nats, Plain, older
from sparse_gpt.records.search import TargetPoint
from sparse_gpt.tasks import TaskError, find
from sparse_gpt.workdir import Workdir

MOST_TASKS = 6  # compared: the first of the suite that every model solves
AT_TARGET: Mapping[str, Json] = {"prune.selection_margin": 1.0}  # of searches without refinement


class Sizes(Record):
    """WORKDIR/sizes/TASK.json."""

    made_for: dict[str, Plain | list[Plain]]
    """Fingerprint of the weights, and settings of the search."""
    points: tuple[TargetPoint, ...]
    """One per target loss."""
    area: float | None = older(None)
    """As in search.json."""
    mean_edges: float | None = older(None)
    """As in search.json."""
    lowest_target: Nats | None = older(None)
    """As in search.json."""


def searched_sizes(workdir: Path, tasks: Sequence[str], settings: Mapping[str, Json] = AT_TARGET) -> list[Tree]:
    """A row per task and target loss: how much of the best search's ranking it takes, as `measures.target_points` has
    it. What launch.prune does besides is not done. Kept in WORKDIR/sizes/TASK.json, for these weights and settings."""
    config = configs.replace(configs.load(workdir), settings)
    run = Workdir(workdir, config)
    made_for = {"params_sha256": run.params_sha256, **configs.group_to_dict(config.prune)}
    paths = {task: workdir / "sizes" / f"{task}.json" for task in tasks}
    kept = {task: Sizes.read_if_any(path) for task, path in paths.items()}
    missing = {task: paths[task] for task, sizes in kept.items() if sizes is None or sizes.made_for != made_for}
    activations = run.pretraining_activations() if missing else None
    for task, path in missing.items():
        samples = task_samples(find(task), run.tokenizer, config)
        problem = Problem.build(run, samples, activations)
        trials = populations.search(problem).trials
        badness = np.where(trials.reached, trials.edges, np.inf)  # without any that reaches it, the lowest loss
        order = trials.orders[np.argmin(badness if trials.reached.any() else trials.scores.loss)]
        sizes = size_versus_target(problem, order, loss_versus_size(problem, order))
        Sizes(made_for=made_for, **msgspec.structs.asdict(sizes)).write(path)
    found = {task: Sizes.read(path).points for task, path in paths.items()}
    return [{"model": "", "task": task, **point.tree()} for task, points in found.items() for point in points]


def find_common_tasks(workdirs: Sequence[Path], most: int = MOST_TASKS) -> list[str]:
    """The first `most` tasks that all models solve: on held-out samples, and on those that launch.prune looks at."""
    able = [measures.solved(workdir, TARGET) for workdir in workdirs]
    tasks = (task for task in able[0] if all(task in others for others in able))
    runs = [Workdir(workdir) for workdir in workdirs]
    found = list(itertools.islice((task for task in tasks if all(is_solved(run, task) for run in runs)), most))
    if not found:
        raise InputError(f"{workdirs[0].parent}: no task is solved by all models; nothing to compare")
    return found


def is_solved(run: Workdir, task: str, target: float = TARGET) -> bool:
    """Whether the model solves a task on its validation samples; not so where the tokenizer allows none."""
    try:
        samples = task_samples(find(task), run.tokenizer, run.config)
    except TaskError:
        return False
    return full_task_loss(run.config, run.params, samples.validation) <= target


def edges_at_target(rows: Sequence[Mapping[str, Json]], model: str, tasks: Sequence[str]) -> list[int]:
    """Edges at TARGET, in the order of `tasks`."""
    found = {row["task"]: row["edges"] for row in rows if row["model"] == model and row["target_loss"] == TARGET}
    return [found[task] for task in tasks]
