"""Experiments: circuits of a sparse model against those of a dense one of equal pretraining loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from sparse_gpt import stored
from sparse_gpt.data import Corpus
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, equal, finish, prune, reported
from sparse_gpt.experiments.measures import TARGET
from sparse_gpt.experiments.model_comparison import AT_TARGET, edges_at_target, find_common_tasks, searched_sizes
from sparse_gpt.io import Tree
from sparse_gpt.model.transformer import apply
from sparse_gpt.parameters import Params
from sparse_gpt.tasks import TASKS
from sparse_gpt.training.step import cross_entropy
from sparse_gpt.workdir import Workdir

PRESET = "quickstart"
STORED = {"sparse": "laptop", "sparse_half": "laptop_half", "dense": "laptop_dense"}
RATES = (0.1, 0.03, 0.01)  # learning rates for the dense models; the sparse one's was chosen among as many
NODES_ONLY = ("--config.prune.edges=false", "--config.prune.selection_margin=1.0")
FOUR_PENALTIES = {**AT_TARGET, "prune.seeds": 1, "prune.k_coefs": "3e-4,1e-3,3e-3,1e-2"}  # either side takes its best


def sparse_vs_dense(folder: Path) -> list[Check]:
    """Circuit sizes of a sparse model and of a dense one whose pretraining loss is within 2% of it."""
    sparse = folder / "sparse"
    finish("train", f"--preset={PRESET}", f"--workdir={sparse}")
    wanted = measures.validation_loss(sparse)
    dense, width = match_dense(folder, wanted, PRESET, 64, RATES, sparse / "corpus")
    tasks = find_common_tasks([sparse, dense])
    rows = _prune_all({"sparse": sparse, "dense": dense}, tasks)
    apart = abs(measures.validation_loss(dense) / wanted - 1)
    fewer, fewest = ([measures.minimal_size(workdir, task)[1] for task in tasks] for workdir in (dense, sparse))
    refined, *between = measures.ratio_with_interval(fewer, fewest)
    print(f"without every node that can go: ratio {refined:.1f}, {between[0]:.1f} to {between[1]:.1f}")
    return [
        at_most("pretraining losses apart by", apart, 0.02),
        *_compare(folder, rows, tasks, width),
        reported("the same ratio without every node that can go", refined),
    ]


def sparse_vs_dense_laptop(folder: Path) -> list[Check]:
    """The same for the stored models: a sparse and a dense one with as many block weights that are not zero, and, for
    those of their tasks that it solves, a sparse one with half of them. Only the search, for dense circuits of this
    size take hours to refine."""
    workdirs = {model: folder / model for model in STORED}
    for model, workdir in workdirs.items():
        stored.unpack(STORED[model], workdir)
    pair = find_common_tasks([workdirs["sparse"], workdirs["dense"]])
    few = find_common_tasks([workdirs["sparse_half"]], len(TASKS))
    tasks = {"sparse": pair, "dense": pair, "sparse_half": [task for task in pair if task in few]}
    rows = [
        {**row, "model": model}
        for model, chosen in tasks.items()
        for row in searched_sizes(workdirs[model], chosen, FOUR_PENALTIES)
    ]
    reached = [row["reached"] for row in rows if row["target_loss"] == TARGET]
    runs = {model: Workdir(workdir) for model, workdir in workdirs.items()}
    losses = {model: measure_loss(run, runs["sparse"].corpus) for model, run in runs.items()}
    return [
        at_most("pretraining losses apart by", abs(losses["dense"] / losses["sparse"] - 1), 0.02),
        *_compare(folder, rows, pair, runs["dense"].config.model.d_model),
        equal(f"searches that reached {TARGET}", sum(reached), len(reached)),
        *_half(rows, tasks["sparse_half"], losses["sparse_half"] / losses["sparse"]),
    ]


def _half(rows: list[Tree], tasks: Sequence[str], loss: float) -> list[Check]:
    """What half of the nonzeros change: a loss so many times the sparse model's, and edges of the tasks left."""
    few, *others = (edges_at_target(rows, model, tasks) for model in ("sparse_half", "sparse", "dense"))
    ratios = [measures.ratio_with_interval(many, few) for many in others]
    return [
        reported("with half of the nonzeros: loss, in times the sparse model's", loss),
        reported("with half of the nonzeros: tasks compared", len(tasks)),
        *(
            reported(
                f"edges {model} has, in times those with half of the nonzeros", f"{r:.1f} ({low:.1f} to {high:.1f})"
            )
            for model, (r, low, high) in zip(("sparse", "dense"), ratios, strict=True)
        ),
    ]


def _compare(folder: Path, rows: list[Tree], tasks: Sequence[str], width: int) -> list[Check]:
    """Table, picture and ratio of the two sides' rows; `width` is the dense side's."""
    plots.write_csv(folder / "sparse-vs-dense.csv", rows)
    plots.draw(
        folder / "sparse-vs-dense.png",
        f"Circuits of a sparse model and of a dense one (d={width}) of equal pretraining loss",
        "target task loss (nats)",
        "edges of the circuit",
        lambda axes: plots.sizes_against_targets(rows, axes),
    )
    for task in tasks:
        edges = {row["model"]: row["edges"] for row in rows if (row["task"], row["target_loss"]) == (task, TARGET)}
        print(f"{task:28}edges: {', '.join(f'{model} {count}' for model, count in edges.items())}")
    ours, theirs = (edges_at_target(rows, model, tasks) for model in ("sparse", "dense"))
    ratio, low, high = measures.ratio_with_interval(theirs, ours)
    print(f"edges at {TARGET}: dense {measures.geometric_mean(theirs):.0f}, sparse {measures.geometric_mean(ours):.0f}")
    print(f"ratio {ratio:.1f}, 95% interval over tasks {low:.1f} to {high:.1f}")
    return [
        at_least("tasks compared", len(tasks), 3),
        at_least(f"ratio of edges at {TARGET} (geometric mean over tasks)", ratio, 16),
        reported("its 95% interval over tasks", f"{low:.1f} to {high:.1f}"),
    ]


def measure_loss(run: Workdir, corpus: Corpus) -> float:
    """Mean loss (nats per token) on a corpus's validation tokens, as many as training evaluates on."""
    c = run.config

    @jax.jit
    def loss(params: Params, tokens: jax.Array) -> jax.Array:
        logits = apply(run.model, params, tokens[:, :-1])
        return cross_entropy(logits, tokens[:, 1:])

    batches = (
        corpus.batch("validation", c.data.seed, step, c.train.batch_size, c.model.context).astype(np.int32)
        for step in range(c.train.eval_batches)
    )
    return float(np.mean([loss(run.params, batch) for batch in batches]))


ATTEMPTS = 6  # widths of a dense model


def match_dense(
    folder: Path, wanted: float, preset: str, first: int, rates: Sequence[float], corpus: Path
) -> tuple[Path, int]:
    """A dense model whose validation loss is within 2% of `wanted`, else the nearest of ATTEMPTS; and its width. The
    one of width `first` decides which learning rate is the best."""
    at_first = {rate: train_dense(folder, preset, first, rate, corpus) for rate in rates}
    rate = min(rates, key=lambda rate: at_first[rate])
    tried = {first: at_first[rate]}
    while len(tried) < ATTEMPTS and not any(abs(loss / wanted - 1) <= 0.02 for loss in tried.values()):
        other = 2 * first if tried[first] > wanted else first // 2
        width = measures.next_width(tried, wanted) if len(tried) > 1 else other
        tried[width] = train_dense(folder, preset, width, rate, corpus)
        print(f"dense model of width {width}: validation loss {tried[width]:.4f}, wanted {wanted:.4f}")
    nearest = min(tried, key=lambda w: abs(tried[w] - wanted))
    return dense_folder(folder, nearest, rate), nearest


def dense_folder(folder: Path, width: int, rate: float) -> Path:
    return folder / f"dense_{width}_rate_{rate:g}"


def train_dense(folder: Path, preset: str, width: int, rate: float, corpus: Path) -> float:
    """Validation loss of a dense model, which is trained first."""
    finish(
        "train",
        f"--preset={preset}",
        f"--workdir={dense_folder(folder, width, rate)}",
        f"--config.data.corpus={corpus}",
        f"--config.model.d_model={width}",
        f"--config.model.n_head={max(2, round(width / 16))}",
        f"--config.model.d_mlp={4 * width}",
        f"--config.optimizer.learning_rate={rate}",
        "--config.sparsity.density=1",
        "--config.sparsity.embedding_density=1",
        "--config.sparsity.activation_fraction=0",
    )
    return measures.validation_loss(dense_folder(folder, width, rate))


def _prune_all(models: Mapping[str, Path], tasks: Sequence[str]) -> list[Tree]:
    """A row per model, task and target loss: sizes after a search with the same settings for all."""
    rows = []
    for task in tasks:
        for model, workdir in models.items():
            prune(workdir, task, *NODES_ONLY)
            rows += [{"model": model, "task": task, **point.tree()} for point in measures.target_points(workdir, task)]
    return rows
