"""Circuits that are to hold wherever the behavior occurs: searched on template families and on training text, judged
where they were not chosen (two novel families, validation text), and by the report card. One model, task by task."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sparse_gpt.experiments import measures, plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, finish, reported
from sparse_gpt.experiments.rankings import open_workdir
from sparse_gpt.io import Tree
from sparse_gpt.records import Card, Circuit, Search
from sparse_gpt.tasks import AnyTask

TABLE = "complete-circuits.csv"
FLAGS = (
    "--config.prune.search=path",
    "--config.prune.families=all,natural",
    "--config.prune.starts=integrated_gradients",
    "--config.prune.seeds=1",
    "--config.prune.steps=200",
    "--config.prune.batch_pairs=20",
    "--config.prune.restored=0.5",
    "--config.prune.largest_scale=1",
    "--config.prune.above_model=0.05",
    "--config.prune.above_natural=0.1",
    "--config.prune.evaluation_pairs=64",
    "--config.prune.refine_trials=1",
    "--config.prune.random_draws=8",
)
LOSS, WORST, ACCURACY, AGREEMENT, CHANCE = 0.15, 0.5, 0.95, 0.9, 0.69  # what holds where nothing was chosen
SHARE = 0.75  # of the tasks for which it must, as 9 of 12


def complete_circuits(folder: Path, model: str, chosen: list[AnyTask]) -> list[Check]:
    """Sizes, held-out losses by family, agreement on natural text, and what the card says. One process searches all
    tasks, so that they share compiled programs."""
    workdir = open_workdir(folder, model)
    finish("prune", f"--workdir={workdir}", f"--task={','.join(task.source for task in chosen)}", *FLAGS)
    finish("report", f"--workdir={workdir}")
    rows = [read_row(workdir / "circuits" / task.name) for task in chosen]
    plots.write_csv(folder / TABLE, rows)
    for row in rows:
        print("  ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    return checks(rows)


def read_row(folder: Path) -> Tree:
    """One task's row: None where a task has no such samples."""
    circuit, search = Circuit.read(folder / "circuit.json"), Search.read(folder / "search.json")
    card, metrics, families = Card.read_if_any(folder / "card.json"), circuit.metrics, circuit.families
    searched, novel = ([f for f in families if f.role == role] for role in ("searched", "novel"))
    text = next((f for f in families if f.role == "wild"), None)
    judged = [row for row in card.rows if row.verdict != "not applicable"] if card else []
    integrated = next((b for b in search.baselines if b.ranking == "integrated_gradients" and b.reached), None)
    return {
        "task": circuit.task,
        "nodes": metrics.nodes,
        "edges": metrics.edges,
        "minimal_edges": None if circuit.minimal is None else circuit.minimal.metrics.edges,
        "cut_edges": min((t.edges for t in search.trials if t.reached and t.edges is not None), default=None),
        "integrated_gradients_edges": None if integrated is None else integrated.edges,
        "scale": circuit.calibration.scale,
        "task_loss": metrics.task_loss,
        "full_model_task_loss": metrics.full_model_task_loss,
        "searched_worst": _extreme(max, [f.task_loss for f in searched]),
        "novel_worst": _extreme(max, [f.task_loss for f in novel]),
        "novel_accuracy": _extreme(min, [f.accuracy for f in novel]),
        "text_agreement": None if text is None else text.agreement,
        "ablated_least": _extreme(min, [f.ablated_task_loss for f in (*searched, *novel)]),
        "card_passed": sum(row.verdict == "pass" for row in judged),
        "card_judged": len(judged),
        "seconds": round(search.seconds or 0),
    }


def _extreme(which: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    """The largest, or smallest, of some values; None where there are none. What was not finite is worse than all."""
    worst = which([-math.inf, math.inf])
    return which([worst if value is None else value for value in values]) if values else None


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def checks(rows: list[Tree]) -> list[Check]:
    """Over all tasks of the table; of those alone that have them, where samples are judged."""

    def enough(name: str, key: str, limit: float, most: bool, share: float = SHARE) -> Check:
        """Whether so large a share of the tasks is within a limit."""
        known = [row[key] for row in rows if row[key] is not None]
        if not known:
            return reported(f"{name}: no task has samples for it", None)
        held = sum(value <= limit if most else value >= limit for value in known)
        return at_least(f"{name} (of {len(known)})", float(held), share * len(known))

    minimal = [row["minimal_edges"] for row in rows if row["minimal_edges"] is not None]
    straight = [(row["cut_edges"], row["integrated_gradients_edges"]) for row in rows]
    smaller = sum(ours is not None and (theirs is None or ours <= theirs) for ours, theirs in straight)
    return [
        at_most("edges of complete circuits, geometric mean", measures.geometric_mean([r["edges"] for r in rows]), 120),
        at_most("edges of minimal circuits, geometric mean", measures.geometric_mean(minimal) if minimal else None, 45),
        at_least("tasks whose search leaves no more edges than integrated gradients", smaller, 0.9 * len(rows)),
        at_most("largest calibration scale", max(row["scale"] for row in rows), 6),
        enough(f"tasks at {LOSS:g} on every searched family", "searched_worst", LOSS, True),
        enough(f"tasks at {LOSS:g} on novel families", "novel_worst", LOSS, True),
        enough(f"tasks below {WORST:g} on novel families", "novel_worst", WORST, True, share=1),
        enough(f"tasks right in {ACCURACY:g} of novel samples", "novel_accuracy", ACCURACY, False),
        enough(
            f"tasks that agree with the model in {AGREEMENT:g} of natural places", "text_agreement", AGREEMENT, False
        ),
        enough("tasks that are gone without the circuit, on every family", "ablated_least", CHANCE, False, share=1),
        at_most("seconds a task, mean", sum(row["seconds"] for row in rows) / len(rows), 180),
    ]
