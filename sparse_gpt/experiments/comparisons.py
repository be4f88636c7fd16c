"""Experiments that compare circuits between models: sparse against dense, and over widths and numbers of nonzeros."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from sparse_gpt import config as configs
from sparse_gpt import presets, stored
from sparse_gpt.circuits.evidence.curves import loss_versus_size, size_versus_target
from sparse_gpt.circuits.problem import Problem, full_task_loss
from sparse_gpt.circuits.search import populations
from sparse_gpt.data import Corpus
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.experiments import plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, equal, finish, prune, reported
from sparse_gpt.experiments.plots import TARGET
from sparse_gpt.model.taps import recorder
from sparse_gpt.records import Record
from sparse_gpt.records.base import Nats, Plain, older
from sparse_gpt.records.search import TargetPoint
from sparse_gpt.tasks import TaskError, find
from sparse_gpt.training.step import cross_entropy
from sparse_gpt.workdir import Workdir

PRESET, LAPTOP = "quickstart", "laptop"
RATES = (0.1, 0.03, 0.01)  # learning rates for the dense models; the sparse one's was chosen among as many
MOST_TASKS = 6  # compared: the first of the suite that every model solves
AT_TARGET: Mapping[str, Any] = {"prune.selection_margin": 1.0}  # of searches without refinement
NODES_ONLY = ("--config.prune.edges=false", "--config.prune.selection_margin=1.0")
FOUR_PENALTIES = {**AT_TARGET, "prune.seeds": 1, "prune.k_coefs": "3e-4,1e-3,3e-3,1e-2"}  # either side takes its best
WIDTHS, NONZEROS = (64, 96, 128), (12_288, 24_576, 49_152)  # of the frontier; nonzeros of all block matrices together


def sparse_vs_dense(folder: Path) -> list[Check]:
    """Circuit sizes of a sparse model and of a dense one whose pretraining loss is within 2% of it."""
    sparse = folder / "sparse"
    finish("train", f"--preset={PRESET}", f"--workdir={sparse}")
    wanted = plots.validation_loss(sparse)
    dense, width = _matched(folder, wanted, PRESET, 64, RATES, sparse / "corpus")
    tasks = _common([sparse, dense])
    rows = _pruned({"sparse": sparse, "dense": dense}, tasks)
    apart = abs(plots.validation_loss(dense) / wanted - 1)
    fewer, fewest = ([plots.minimal_size(workdir, task)[1] for task in tasks] for workdir in (dense, sparse))
    refined, *between = plots.ratio_with_interval(fewer, fewest)
    print(f"without every node that can go: ratio {refined:.1f}, {between[0]:.1f} to {between[1]:.1f}")
    return [
        at_most("pretraining losses apart by", apart, 0.02),
        *_compared(folder, rows, tasks, width),
        reported("the same ratio without every node that can go", refined),
    ]


def sparse_vs_dense_laptop(folder: Path) -> list[Check]:
    """The same for the stored laptop model and a dense one that was trained for as many steps: only the search, for
    dense circuits of this size take hours to refine."""
    sparse, corpus = folder / "sparse", folder / "corpus"
    stored.unpack(LAPTOP, sparse)
    finish("data", f"--preset={LAPTOP}", f"--workdir={folder}", f"--config.data.tokenizer={sparse / 'tokenizer'}")
    wanted = _loss_on(Workdir(sparse), Corpus.open(corpus))
    dense, width = _matched(folder, wanted, LAPTOP, 48, (0.03,), corpus)  # the rate: quickstart's dense models' best
    tasks = _common([sparse, dense])
    rows = [
        {**row, "model": model}
        for model, workdir in (("sparse", sparse), ("dense", dense))
        for row in searched_sizes(workdir, tasks, FOUR_PENALTIES)
    ]
    reached = [row["reached"] for row in rows if row["target_loss"] == TARGET]
    apart = abs(_loss_on(Workdir(dense), Corpus.open(corpus)) / wanted - 1)
    return [
        at_most("pretraining losses apart by", apart, 0.02),
        *_compared(folder, rows, tasks, width),
        equal(f"searches that reached {TARGET}", sum(reached), len(reached)),
    ]


def _compared(folder: Path, rows: list[dict[str, Any]], tasks: Sequence[str], width: int) -> list[Check]:
    """Table, picture and ratio of the two sides' rows; `width` is the dense side's."""
    plots.write_csv(folder / "sparse-vs-dense.csv", rows)
    plots.draw(
        folder / "sparse-vs-dense.png",
        f"Circuits of a sparse model and of a dense one (d={width}) of equal pretraining loss",
        "target task loss (nats)",
        "edges of the circuit",
        lambda axes: plots.sizes_against_targets(rows, axes),
    )
    ours, theirs = (_edges(rows, model, tasks) for model in ("sparse", "dense"))
    ratio, low, high = plots.ratio_with_interval(theirs, ours)
    for task, few, many in zip(tasks, ours, theirs, strict=True):
        print(f"{task:28}{few:6} edges sparse{many:6} dense")
    print(f"edges at {TARGET}: dense {plots.geometric_mean(theirs):.0f}, sparse {plots.geometric_mean(ours):.0f}")
    print(f"ratio {ratio:.1f}, 95% interval over tasks {low:.1f} to {high:.1f}")
    return [
        at_least("tasks compared", len(tasks), 3),
        at_least(f"ratio of edges at {TARGET} (geometric mean over tasks)", ratio, 16),
        reported("its 95% interval over tasks", f"{low:.1f} to {high:.1f}"),
    ]


def _loss_on(run: Workdir, corpus: Corpus) -> float:
    """Mean loss (nats per token) on a corpus's validation tokens, as many as training evaluates on."""
    c = run.config

    @jax.jit
    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        logits: Any = run.model.apply({"params": params}, tokens[:, :-1])
        return cross_entropy(logits, tokens[:, 1:])

    batches = (
        corpus.batch("validation", c.data.seed, step, c.train.batch_size, c.model.context).astype(np.int32)
        for step in range(c.train.eval_batches)
    )
    return float(np.mean([loss(run.params, batch) for batch in batches]))


def _matched(
    folder: Path, wanted: float, preset: str, first: int, rates: Sequence[float], corpus: Path, attempts: int = 6
) -> tuple[Path, int]:
    """A dense model whose validation loss is within 2% of `wanted`, else the nearest of `attempts`; and its width. The
    one of width `first` decides which learning rate is the best."""
    at_first = {rate: _dense_loss(folder, preset, first, rate, corpus) for rate in rates}
    rate = min(rates, key=lambda rate: at_first[rate])
    tried = {first: at_first[rate]}
    while len(tried) < attempts and not any(abs(loss / wanted - 1) <= 0.02 for loss in tried.values()):
        other = 2 * first if tried[first] > wanted else first // 2
        width = plots.next_width(tried, wanted) if len(tried) > 1 else other
        tried[width] = _dense_loss(folder, preset, width, rate, corpus)
        print(f"dense model of width {width}: validation loss {tried[width]:.4f}, wanted {wanted:.4f}")
    nearest = min(tried, key=lambda w: abs(tried[w] - wanted))
    return _dense(folder, nearest, rate), nearest


def _dense(folder: Path, width: int, rate: float) -> Path:
    return folder / f"dense_{width}_rate_{rate:g}"


def _dense_loss(folder: Path, preset: str, width: int, rate: float, corpus: Path) -> float:
    """Validation loss of a dense model, which is trained first."""
    finish(
        "train",
        f"--preset={preset}",
        f"--workdir={_dense(folder, width, rate)}",
        f"--config.data.corpus={corpus}",
        f"--config.model.d_model={width}",
        f"--config.model.n_head={max(2, round(width / 16))}",
        f"--config.model.d_mlp={4 * width}",
        f"--config.optimizer.learning_rate={rate}",
        "--config.sparsity.density=1",
        "--config.sparsity.embedding_density=1",
        "--config.sparsity.activation_fraction=0",
    )
    return plots.validation_loss(_dense(folder, width, rate))


def frontier(folder: Path) -> list[Check]:
    """Pretraining loss against circuit size, and kurtosis, for all of WIDTHS x NONZEROS."""
    runs = {place: _trained(folder, *place) for place in itertools.product(WIDTHS, NONZEROS)}
    tasks = _common(list(runs.values()))
    sizes = {place: searched_sizes(workdir, tasks) for place, workdir in runs.items()}
    rows = [
        {
            "width": width,
            "nonzeros": nonzeros,
            "val_loss": plots.validation_loss(workdir),
            "edges": plots.geometric_mean(_edges(sizes[width, nonzeros], "", tasks)),
            "kurtosis": kurtosis(Workdir(workdir)),
        }
        for (width, nonzeros), workdir in runs.items()
    ]
    plots.write_csv(folder / "frontier.csv", rows)
    plots.draw(
        folder / "frontier.png",
        f"Pretraining loss and circuits of {len(tasks)} tasks, over width and number of nonzeros",
        f"edges of the circuit at {TARGET} (geometric mean)",
        "pretraining loss (nats per token)",
        lambda axes: _lines(rows, "edges", "val_loss", axes),
    )
    plots.draw(
        folder / "kurtosis.png",
        "Kurtosis of the residual stream",
        "nonzero weights in all block matrices",
        "kurtosis over channels (3: normal)",
        lambda axes: _kurtosis_lines(rows, axes),
    )
    reached = [row["reached"] for each in sizes.values() for row in each if row["target_loss"] == TARGET]
    found = [
        at_least("tasks compared", len(tasks), 3),
        equal(f"searches that reached {TARGET}", sum(reached), len(reached)),
    ]
    for nonzeros in NONZEROS:
        narrow, wide = (
            next(row for row in rows if (row["width"], row["nonzeros"]) == (width, nonzeros))
            for width in (WIDTHS[0], WIDTHS[-1])
        )
        said = f"width {WIDTHS[-1]} against {WIDTHS[0]}, {nonzeros:,} nonzeros"
        found += [
            at_most(f"{said}: loss, difference", wide["val_loss"] - narrow["val_loss"], 0),
            at_most(f"{said}: edges, ratio", wide["edges"] / narrow["edges"], 1),
        ]
    return found


class Sizes(Record):
    """WORKDIR/sizes/TASK.json."""

    made_for: dict[str, Plain]
    """Fingerprint of the weights, and settings of the search."""
    points: tuple[TargetPoint, ...]
    """One per target loss."""
    area: float | None = older(None)
    """As in search.json."""
    mean_edges: float | None = older(None)
    """As in search.json."""
    lowest_target: Nats | None = older(None)
    """As in search.json."""


def searched_sizes(
    workdir: Path, tasks: Sequence[str], settings: Mapping[str, Any] = AT_TARGET
) -> list[dict[str, Any]]:
    """A row per task and target loss: how much of the best search's ranking it takes, as `plots.points` has it. What
    launch.prune does besides is not done. Kept in WORKDIR/sizes/TASK.json, for these weights and settings."""
    config = configs.replace(configs.load(workdir), settings)
    run = Workdir(workdir, config)
    made_for = {"params_sha256": run.params_sha256, **dataclasses.asdict(config.prune)}
    paths = {task: workdir / "sizes" / f"{task}.json" for task in tasks}
    kept = {task: Sizes.read_if_any(path) for task, path in paths.items()}
    missing = {task: paths[task] for task, sizes in kept.items() if sizes is None or sizes.made_for != made_for}
    activations = run.pretraining_activations() if missing else None
    for task, path in missing.items():
        samples = task_samples(find(task), run.tokenizer, config)
        problem = Problem.build(run, samples, activations)
        trials = populations.search(problem).trials
        badness = np.where(trials.reached, trials.edges, np.inf)  # without any that reaches it, the lowest loss
        order = trials.orders[np.argmin(badness if trials.reached.any() else trials.scores.calibrated)]
        sizes = size_versus_target(problem, order, loss_versus_size(problem, order))
        Sizes.from_tree({"made_for": made_for, **sizes}).write(path)
    found = {task: Sizes.read(path).points for task, path in paths.items()}
    return [{"model": "", "task": task, **point.tree()} for task, points in found.items() for point in points]


def _trained(folder: Path, width: int, nonzeros: int) -> Path:
    """A model of the frontier: `nonzeros` in all block matrices together, as many per token in every embedding.

    The preset's learning rate was chosen at the preset's density, and denser models may want a lower one: so a model
    is the best of several, one more at half the rate for every doubling of that density.
    """
    base, corpus = presets.preset(PRESET), folder / f"d{WIDTHS[0]}_n{NONZEROS[0]}" / "corpus"  # that of the first model
    density = nonzeros / (12 * width * width * base.model.n_layer)
    embedding = min(1.0, base.sparsity.embedding_density * base.model.d_model / width)
    doublings = max(0, math.floor(math.log2(density / base.sparsity.density)))
    rates = [base.optimizer.learning_rate / 2**times for times in range(doublings + 1)]
    first = folder / f"d{width}_n{nonzeros}"
    runs = {first: rates[0], **{first.with_name(f"{first.name}_rate_{rate:g}"): rate for rate in rates[1:]}}
    for workdir, rate in runs.items():
        finish(
            "train",
            f"--preset={PRESET}",
            f"--workdir={workdir}",
            *([] if workdir == corpus.parent else [f"--config.data.corpus={corpus}"]),
            f"--config.model.d_model={width}",
            f"--config.model.n_head={width // 16}",
            f"--config.model.d_mlp={4 * width}",
            f"--config.optimizer.learning_rate={rate}",
            f"--config.sparsity.density={density}",
            f"--config.sparsity.embedding_density={embedding}",
            "--config.sparsity.min_alive=2",
        )
    return min(runs, key=plots.validation_loss)


def kurtosis(run: Workdir, batches: int = 4) -> float:
    """Fourth standardised moment over the channels of the residual stream after each layer, averaged over validation
    tokens and layers. A normal distribution has 3; a few channels that stand out make it larger."""

    @jax.jit
    def moments(params: Any, tokens: jax.Array) -> jax.Array:
        seen: dict[tuple[str, int], jax.Array] = {}
        run.model.apply({"params": params}, tokens, tap=recorder(seen, ("resid_post_mlp",)))
        x = jnp.stack(list(seen.values()))
        x = x - x.mean(axis=-1, keepdims=True)
        return jnp.mean(jnp.mean(x**4, axis=-1) / jnp.square(jnp.mean(x**2, axis=-1)))

    c = run.config
    tokens = (
        run.corpus.batch("validation", c.data.seed, step, c.train.batch_size, c.model.context)[:, :-1].astype(np.int32)
        for step in range(batches)
    )
    return float(np.mean([moments(run.params, batch) for batch in tokens]))


def _common(workdirs: Sequence[Path], most: int = MOST_TASKS) -> list[str]:
    """The first `most` tasks that all models solve: on held-out samples, and on those that launch.prune looks at."""
    able = [plots.solved(workdir, TARGET) for workdir in workdirs]
    tasks = (task for task in able[0] if all(task in others for others in able))
    runs = [Workdir(workdir) for workdir in workdirs]
    found = list(itertools.islice((task for task in tasks if all(_validated(run, task) for run in runs)), most))
    if not found:
        raise InputError(f"{workdirs[0].parent}: no task is solved by all models; nothing to compare")
    return found


def _validated(run: Workdir, task: str) -> bool:
    """Whether the model solves a task on its validation samples; not so where the tokenizer allows none."""
    try:
        samples = task_samples(find(task), run.tokenizer, run.config)
    except TaskError:
        return False
    return full_task_loss(run.config, run.params, samples.validation) <= TARGET


def _pruned(models: Mapping[str, Path], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """A row per model, task and target loss: sizes after a search with the same settings for all."""
    rows = []
    for task in tasks:
        for model, workdir in models.items():
            prune(workdir, task, *NODES_ONLY)
            rows += [{"model": model, "task": task, **point.tree()} for point in plots.points(workdir, task)]
    return rows


def _edges(rows: Sequence[Mapping[str, Any]], model: str, tasks: Sequence[str]) -> list[int]:
    """Edges at TARGET, in the order of `tasks`."""
    found = {row["task"]: row["edges"] for row in rows if row["model"] == model and row["target_loss"] == TARGET}
    return [found[task] for task in tasks]


def _lines(rows: Sequence[Mapping[str, Any]], x: str, y: str, axes: Axes) -> None:
    """One line per number of nonzeros (equal L0) through widths, and a thin one per width (equal parameters)."""
    axes.set_yscale("linear")  # all of it is within one decade
    _series(rows, "nonzeros", lambda n: f"{n:,} nonzeros", 2.0, x, y, axes)
    _series(rows, "width", lambda w: f"width {w}", 0.7, x, y, axes)


def _kurtosis_lines(rows: Sequence[Mapping[str, Any]], axes: Axes) -> None:
    """Kurtosis against nonzeros, a line per width."""
    axes.set_yscale("linear")
    axes.minorticks_off()
    axes.set_xticks(NONZEROS, [f"{nonzeros:,}" for nonzeros in NONZEROS])
    _series(rows, "width", lambda w: f"width {w}", 2.0, "nonzeros", "kurtosis", axes)


def _series(
    rows: Sequence[Mapping[str, Any]], key: str, label: Callable[[Any], str], line: float, x: str, y: str, axes: Axes
) -> None:
    for value in sorted({row[key] for row in rows}):
        own = [(row[x], row[y]) for row in rows if row[key] == value]
        axes.plot(*zip(*own, strict=True), linewidth=line, marker="o" if line > 1 else None, label=label(value))
