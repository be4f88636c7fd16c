"""Experiments on one model: the mask search against rankings that nobody searched, and what is left without a circuit.

Both take a finished workdir, or a stored model that is unpacked into the experiment's folder. Circuits that are there
are taken as they are; a task without one is searched first. What takes long is kept beside the circuit.
"""

import dataclasses
from pathlib import Path

from matplotlib.axes import Axes

from sparse_gpt import config as configs
from sparse_gpt import stored
from sparse_gpt.circuits.evidence import baselines
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.config import PruneConfig
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, circuit, finish
from sparse_gpt.experiments.measures import TARGET
from sparse_gpt.io import Tree
from sparse_gpt.records import Rankings, Search, converted
from sparse_gpt.records.base import CHANCE
from sparse_gpt.records.search import CurvePoint, RankingSizes
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

SEARCH = "mask search"
QUICK = ("--config.prune.edges=false", "--config.prune.refine_trials=1")  # rankings are compared before refinement
Row = Tree  # of a table


def attribution_vs_learned(folder: Path, model: str, chosen: list[AnyTask]) -> list[Check]:
    """Edges that each ranking of nodes needs for target losses from 0.5 to 0.005."""
    workdir = open_workdir(folder, model)
    rows = [row for task in chosen for row in find_sizes(workdir, task)]
    plots.write_csv(folder / "attribution-vs-learned.csv", rows)
    plots.draw(
        folder / "attribution-vs-learned.png",
        "Circuits by the mask search and by rankings that nobody searched",
        "target task loss (nats)",
        "edges of the circuit",
        lambda axes: plots.sizes_against_targets(rows, axes),
    )
    finish("report", f"--workdir={workdir}")
    return check_ratios(rows)


def check_ratios(rows: list[Row]) -> list[Check]:
    """Edges of every other ranking over those of the mask search at TARGET: geometric mean over the tasks for which
    both reach it."""
    edges = {
        (row["model"], row["task"]): row["edges"] for row in rows if row["target_loss"] == TARGET and row["reached"]
    }
    checks = []
    for ranking in dict.fromkeys(row["model"] for row in rows if row["model"] != SEARCH):
        both = [task for name, task in edges if name == SEARCH and (ranking, task) in edges]
        theirs, ours = ([edges[name, task] for task in both] for name in (ranking, SEARCH))
        ratio = measures.ratio_with_interval(theirs, ours)[0] if both else 0.0
        checks.append(at_least(f"edges at {TARGET} by {ranking} over the mask search's ({len(both)} tasks)", ratio, 1))
    return checks


def necessity(folder: Path, model: str, chosen: list[AnyTask]) -> list[Check]:
    """Task loss of the model without the first nodes of each ranking."""
    workdir = open_workdir(folder, model)
    searches = {task.name: find_search(workdir, task) for task in chosen}
    rows = [row for task, search in searches.items() for row in losses_without(search, task)]
    plots.write_csv(folder / "necessity.csv", rows)
    plots.draw(
        folder / "necessity.png",
        "What is left of the model without a circuit of growing size",
        "nodes ablated, most important first",
        "task loss (nats)",
        lambda axes: _losses_against_sizes(rows, axes),
        logarithmic=False,
    )
    finish("report", f"--workdir={workdir}")
    return [check for task, search in searches.items() for check in check_necessity(search, task, workdir)]


def losses_without(search: Search, task: str) -> list[Row]:
    """Rows of the table: loss after ablating the first nodes of the mask search's and of the other rankings.

    Raises:
      InputError: the search was recorded before there were such losses.
    """
    curves: dict[str, tuple[CurvePoint, ...]] = {SEARCH: search.loss_versus_size}
    curves |= {_spaced(entry.ranking): entry.loss_versus_size for entry in search.baselines}
    if any(point.ablated_task_loss is None for curve in curves.values() for point in curve):
        raise InputError(
            f"circuits/{task}/search.json: has no losses after ablation; delete the folder to search again"
        )
    keys = ("nodes", "edges", "ablated_task_loss")
    return [
        {"ranking": ranking, "task": task, **{key: getattr(point, key) for key in keys}}
        for ranking, curve in curves.items()
        for point in curve
    ]


def check_necessity(search: Search, task: str, workdir: Path) -> list[Check]:
    """Whether the task is gone without the circuit, and without the first nodes that reach TARGET by themselves."""
    enough = next(point.nodes for point in measures.target_points(workdir, task) if point.target_loss == TARGET)
    curve = search.loss_versus_size
    row = next((point for point in curve if point.nodes >= enough), curve[-1])
    found = circuit(workdir, task)
    named = (
        (f"its circuit of {len(found.nodes)} nodes", found.metrics.ablated_task_loss),
        (f"the first {row.nodes} nodes", row.ablated_task_loss),
    )
    return [at_least(f"{task}: task loss without {what}", loss, 0.69) for what, loss in named]


def _losses_against_sizes(rows: list[Row], axes: Axes) -> None:
    """A line per ranking and task; the mask search's are thick."""
    axes.set(xscale="log")
    for i, (ranking, task) in enumerate(dict.fromkeys((row["ranking"], row["task"]) for row in rows)):
        points = [row for row in rows if (row["ranking"], row["task"]) == (ranking, task)]
        line = [(max(1, row["nodes"]), row["ablated_task_loss"]) for row in points]
        first = not any(row["ranking"] == ranking for row in rows[: rows.index(points[0])])
        axes.plot(
            *zip(*line, strict=True),
            color=plots.RANKING_COLORS[ranking],
            linewidth=2.0 if ranking == SEARCH else 0.9,
            zorder=100 - i,
            label=ranking if first else None,
        )
    axes.axhline(CHANCE, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)


def open_workdir(folder: Path, model: str) -> Path:
    """The model's workdir: its own, or one in the experiment's folder for a stored model."""
    path = Path(model).expanduser().absolute()
    if path.is_dir():
        return path
    if model not in stored.names() and path.suffix != stored.SUFFIX:
        raise InputError(f"--model={model}: no such folder; stored models are {', '.join(stored.names()) or 'none'}")
    stored.unpack(model, folder / path.stem)
    return folder / path.stem


def find_search(workdir: Path, task: AnyTask) -> Search:
    """search.json of a task's circuit, after a search if there is none of the model's weights as they are, on the
    task's file as it is. InputError if the circuit is older than sizes at target losses."""
    path = workdir / "circuits" / task.name / "search.json"
    kept, wanted = Search.read_if_any(path), (Workdir(workdir).params_sha256, task.samples_sha256)
    if kept is None or (kept.params_sha256, kept.samples_sha256) != wanted:
        finish("prune", f"--workdir={workdir}", f"--task={task.source}", *QUICK)
    measures.target_points(workdir, task.name)  # before hours are spent on what compares them
    return Search.read(path)


def find_sizes(workdir: Path, task: AnyTask) -> list[Row]:
    """A row per ranking and target; rankings.json beside the circuit holds what it took to find them."""
    search, path = find_search(workdir, task), workdir / "circuits" / task.name / "rankings.json"
    made_for = search.task, search.params_sha256, search.samples_sha256, search.hyperparameters
    record = Rankings.read_if_any(path)
    if record is None or (record.task, record.params_sha256, record.samples_sha256, record.hyperparameters) != made_for:
        record = Rankings(
            task=search.task,
            params_sha256=search.params_sha256,
            samples_sha256=search.samples_sha256,
            hyperparameters=search.hyperparameters,
            rankings=rank(workdir, search, task),
        )
        record.write(path)
    return [
        {"model": _spaced(entry.ranking), "task": task.name, **point.tree()}
        for entry in record.rankings
        for point in entry.points
    ]


def rank(workdir: Path, search: Search, task: AnyTask) -> tuple[RankingSizes, ...]:
    """Sizes at every target loss by the search's ranking, and by the others on the same samples and settings."""
    plain = dataclasses.replace(configs.load(workdir), prune=PruneConfig())
    settings = {f"prune.{name}": value for name, value in search.hyperparameters.items()}
    config = configs.replace(plain, settings, f"{workdir}: search.json of {search.task}: ")
    run = Workdir(workdir, config)
    if run.params_sha256 != search.params_sha256:
        raise InputError(f"{workdir}: its circuit of {search.task} belongs to other weights; prune this model")
    samples = task_samples(task, run.tokenizer, config)
    others = baselines.at_targets(Problem.build(run, samples, run.pretraining_activations()))
    sizes = search.size_versus_target.tree() if search.size_versus_target else {"points": []}
    return tuple(converted(entry, RankingSizes) for entry in ({"ranking": SEARCH, **sizes}, *others))


def _spaced(ranking: str) -> str:
    return ranking.replace("_", " ")
