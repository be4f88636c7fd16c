"""The experiment on bridges: hybrids against both controls, steering, and circuits transported."""

import math
from collections.abc import Iterable
from pathlib import Path

from sparse_gpt.experiments import bridge_plots, plots
from sparse_gpt.experiments.harness import Check, at_least, at_most, equal, finish, prune, reported
from sparse_gpt.experiments.model_comparison import is_solved
from sparse_gpt.records import Bridge, Steering, Transport
from sparse_gpt.records.bridge import Curve, Measures, SteeringCurves
from sparse_gpt.workdir import Workdir

PRESET = "bridge_laptop"
TASKS = ("single_double_quote", "while_return_true")


def bridge(folder: Path, preset: str = PRESET, sparse_preset: str = "") -> list[Check]:
    """A bridged pair, circuits of two tasks, and what they do in the dense model. The sparse model starts as the one
    that `preset` names, or as one that is trained first, by `sparse_preset`."""
    bridged, sparse, given = folder / "bridged", folder / "sparse", []
    if sparse_preset:
        finish("train", f"--preset={sparse_preset}", f"--workdir={sparse}")
        given = [f"--config.bridge.init_from={sparse}", f"--config.data.corpus={sparse / 'corpus'}"]
    finish("bridge", f"--preset={preset}", f"--workdir={bridged}", *given)
    record = Bridge.read(bridged / Bridge.FILE)
    results = {task: _transfer(bridged, task) for task in TASKS}
    carried = [*filter(None, results.values())]
    write_tables(folder, record, carried)
    finish("report", f"--workdir={bridged}")
    drawn = ", ".join(path.name for path in bridge_plots.write(folder, record, carried))
    print(f"{bridged / 'report' / 'index.html'}; tables: {folder}/*.csv; figures: {drawn}")
    return check_hybrids(record) + [x for task, records in results.items() for x in check_task(task, records)]


def _transfer(bridged: Path, task: str) -> tuple[Steering, Transport] | None:
    """steering.json and transport.json of a task; None when the sparse model does not solve it, and has no circuit."""
    run = Workdir(bridged)
    if not is_solved(run, task, run.config.prune.target_loss):  # every failure of launch.prune has the same exit code
        print(f"left out: {task}: the sparse model does not solve it")
        return None
    prune(bridged, task)
    finish("steer", f"--workdir={bridged}", f"--task={task}")
    place = bridged / "circuits" / task
    return Steering.read(place / "steering.json"), Transport.read(place / "transport.json")


def above_dense(record: Bridge, bridges: Iterable[Measures]) -> list[float]:
    """How far each single-switch hybrid's loss is above the dense model's, in nats; infinite where it is not known,
    since it was not finite."""
    losses = [loss for each in bridges for loss in (each.loss_to_sparse, each.loss_to_dense)]
    return [math.inf if loss is None else loss - record.dense_loss for loss in losses]


def check_hybrids(record: Bridge) -> list[Check]:
    """What bridge.json must show: every single-switch hybrid near the dense model, and much nearer than untrained."""
    trained = above_dense(record, (each.trained for each in record.bridges))
    untrained = above_dense(record, (each.untrained for each in record.bridges))
    closer = min(  # what is not known of a trained one is no closer, whatever the untrained one is
        theirs / max(ours, 1e-9) if math.isfinite(ours) else 0.0
        for ours, theirs in zip(trained, untrained, strict=True)
    )
    return [
        at_most("furthest single-switch hybrid above the dense model's loss, nats", max(trained), 0.15),
        at_least("times closer than untrained bridges, at the least", closer, 5),
    ]


def check_task(task: str, records: tuple[Steering, Transport] | None) -> list[Check]:
    """What a task's circuit must show in the dense model."""
    if records is None:
        return [equal(f"{task}: the bridged sparse model has a circuit", False, True)]
    steering, transport = records
    curves, random = steering.curves, [draw.task_loss for draw in transport.random]
    without = (transport.image or transport.dense).task_loss
    lost = without - sum(random) / len(random) if random else 0.0
    return [
        at_least(f"{task}: steered dense model's probability of the foil", curves.dense.foil[-1], 0.5),
        at_most(f"{task}: the same in random directions", max(draw.foil[-1] for draw in curves.random), 0.1),
        at_least(f"{task}: dense task loss without the image above that without random ones", lost, 0.1),
        reported(f"{task}: that probability with the stream changed", curves.stream.foil[-1]),
        reported(f"{task}: foil's share of both answers, one read changed", curves.dense.share[-1]),
        reported(f"{task}: the share with the stream changed", curves.stream.share[-1]),
        reported(f"{task}: the share in random directions", max(x.share[-1] for x in curves.random_stream)),
    ]


def write_tables(folder: Path, record: Bridge, carried: list[tuple[Steering, Transport]]) -> None:
    """bridges.csv, mixtures.csv, steering.csv and transport.csv."""
    plots.write_csv(
        folder / "bridges.csv",
        [
            {"dense": each.dense, "sparse": each.sparse, "bridges": kind, **measures.tree()}
            for each in record.bridges
            for kind, measures in (("trained", each.trained), ("untrained", each.untrained), ("linear", each.linear))
            if measures
        ],
    )
    plots.write_csv(folder / "mixtures.csv", [path.tree() for path in record.mixtures.paths])
    if not carried:
        return
    curves = [
        {"task": steering.task, "curve": kind, "strength": strength, "answer": answer, "foil": foil, "share": share}
        for steering, _ in carried
        for kind, curve in _curves(steering.curves)
        for strength, answer, foil, share in zip(steering.strengths, curve.answer, curve.foil, curve.share, strict=True)
    ]
    outcomes = [
        {"task": transport.task, "ablated": kind, **outcome.tree()}
        for _, transport in carried
        for kind, outcome in (
            ("nothing", transport.dense),
            ("image", transport.image),
            *(("random", draw) for draw in transport.random),
        )
        if outcome
    ]
    plots.write_csv(folder / "steering.csv", curves)
    plots.write_csv(folder / "transport.csv", outcomes)


def _curves(curves: SteeringCurves) -> list[tuple[str, Curve]]:
    """(name, curve); the random ones have one name."""
    return [
        ("sparse", curves.sparse),
        ("dense", curves.dense),
        *(("random", curve) for curve in curves.random),
        ("stream", curves.stream),
        *(("random_stream", curve) for curve in curves.random_stream),
    ]
