"""Experiment: pretraining loss against circuit size over widths and numbers of nonzeros, and kurtosis."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from sparse_gpt import presets
from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, equal, finish
from sparse_gpt.experiments.measures import TARGET
from sparse_gpt.experiments.model_comparison import edges_at_target, find_common_tasks, searched_sizes
from sparse_gpt.io import Json
from sparse_gpt.model.taps import recorder
from sparse_gpt.parameters import Params
from sparse_gpt.workdir import Workdir

PRESET = "quickstart"
WIDTHS, NONZEROS = (64, 96, 128), (12_288, 24_576, 49_152)  # of the frontier; nonzeros of all block matrices together


def frontier(folder: Path) -> list[Check]:
    """Pretraining loss against circuit size, and kurtosis, for all of WIDTHS x NONZEROS."""
    runs = {place: _train_best(folder, *place) for place in itertools.product(WIDTHS, NONZEROS)}
    tasks = find_common_tasks(list(runs.values()))
    sizes = {place: searched_sizes(workdir, tasks) for place, workdir in runs.items()}
    rows = [
        {
            "width": width,
            "nonzeros": nonzeros,
            "val_loss": measures.validation_loss(workdir),
            "edges": measures.geometric_mean(edges_at_target(sizes[width, nonzeros], "", tasks)),
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
    checks = [
        at_least("tasks compared", len(tasks), 3),
        equal(f"searches that reached {TARGET}", sum(reached), len(reached)),
    ]
    for nonzeros in NONZEROS:
        narrow, wide = (
            next(row for row in rows if (row["width"], row["nonzeros"]) == (width, nonzeros))
            for width in (WIDTHS[0], WIDTHS[-1])
        )
        pair = f"width {WIDTHS[-1]} against {WIDTHS[0]}, {nonzeros:,} nonzeros"
        checks += [
            at_most(f"{pair}: loss, difference", wide["val_loss"] - narrow["val_loss"], 0),
            at_most(f"{pair}: edges, ratio", wide["edges"] / narrow["edges"], 1),
        ]
    return checks


def _train_best(folder: Path, width: int, nonzeros: int) -> Path:
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
    return min(runs, key=measures.validation_loss)


def kurtosis(run: Workdir, batches: int = 4) -> float:
    """Fourth standardized moment over the channels of the residual stream after each layer, averaged over validation
    tokens and layers. A normal distribution has 3; a few channels that stand out make it larger."""

    @jax.jit
    def moments(params: Params, tokens: jax.Array) -> jax.Array:
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


def _lines(rows: Sequence[Mapping[str, Json]], x: str, y: str, axes: Axes) -> None:
    """One line per number of nonzeros (equal L0) through widths, and a thin one per width (equal parameters)."""
    axes.set_yscale("linear")  # all of it is within one decade
    _series(axes, rows, (x, y), "nonzeros", "{:,} nonzeros", 2.0)
    _series(axes, rows, (x, y), "width", "width {}", 0.7)


def _kurtosis_lines(rows: Sequence[Mapping[str, Json]], axes: Axes) -> None:
    """Kurtosis against nonzeros, a line per width."""
    axes.set_yscale("linear")
    axes.minorticks_off()
    axes.set_xticks(NONZEROS, [f"{nonzeros:,}" for nonzeros in NONZEROS])
    _series(axes, rows, ("nonzeros", "kurtosis"), "width", "width {}", 2.0)


def _series(
    axes: Axes, rows: Sequence[Mapping[str, Json]], columns: tuple[str, str], key: str, label: str, width: float
) -> None:
    """Two columns of the rows, a line for every value of `key`."""
    for value in sorted({row[key] for row in rows}):
        points = [[row[name] for name in columns] for row in rows if row[key] == value]
        marker = "o" if width > 1 else None
        axes.plot(*zip(*points, strict=True), linewidth=width, marker=marker, label=label.format(value))
