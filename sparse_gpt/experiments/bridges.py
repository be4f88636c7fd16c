"""The experiment on bridges: hybrids against both controls, steering, and circuits transported."""

from pathlib import Path
from typing import Any

from sparse_gpt.errors import InputError
from sparse_gpt.experiments import bridge_plots, plots
from sparse_gpt.experiments.runs import Figure, at_least, at_most, equal, finish, prune, reported
from sparse_gpt.io import read_json
from sparse_gpt.records import schemas

PRESET = "bridge_laptop"
TASKS = ("single_double_quote", "while_return_true")
WAYS = ("to_sparse", "to_dense")

Json = dict[str, Any]


def bridge(folder: Path, preset: str = PRESET, sparse_preset: str = "") -> list[Figure]:
    """A bridged pair, circuits of two tasks, and what they do in the dense model. The sparse model starts as the one
    that `preset` names, or as one that is trained first, by `sparse_preset`."""
    bridged, sparse, given = folder / "bridged", folder / "sparse", []
    if sparse_preset:
        finish("train", f"--preset={sparse_preset}", f"--workdir={sparse}")
        given = [f"--config.bridge.init_from={sparse}", f"--config.data.corpus={sparse / 'corpus'}"]
    finish("bridge", f"--preset={preset}", f"--workdir={bridged}", *given)
    held = read_json(bridged / "bridge.json", schemas.BRIDGE)
    results = {task: _carried(bridged, task) for task in TASKS}
    found = [*filter(None, results.values())]
    write_tables(folder, held, found)
    finish("report", f"--workdir={bridged}")
    drawn = ", ".join(path.name for path in bridge_plots.write(folder, held, found))
    print(f"{bridged / 'report' / 'index.html'}; tables: {folder}/*.csv; figures: {drawn}")
    return hybrid_figures(held) + [x for task, found in results.items() for x in task_figures(task, found)]


def _carried(bridged: Path, task: str) -> tuple[Json, Json] | None:
    """steering.json and transport.json of a task; None when the sparse model has no circuit for it."""
    try:
        prune(bridged, task)
    except InputError as error:
        print(f"left out: {task}: {error}")
        return None
    finish("steer", f"--workdir={bridged}", f"--task={task}")
    place = bridged / "circuits" / task
    steering, transport = (
        read_json(place / f"{kind}.json", schema)
        for kind, schema in (("steering", schemas.STEERING), ("transport", schemas.TRANSPORT))
    )
    return steering, transport


def above_dense(held: Json, kind: str) -> list[float]:
    """How far each single-switch hybrid's loss lies above the dense model's, in nats."""
    return [each[kind][f"loss_{way}"] - held["dense_loss"] for each in held["bridges"] for way in WAYS]


def hybrid_figures(held: Json) -> list[Figure]:
    """What bridge.json must show: every single-switch hybrid near the dense model, and much nearer than untrained."""
    trained, untrained = above_dense(held, "trained"), above_dense(held, "untrained")
    closer = min(theirs / max(ours, 1e-9) for ours, theirs in zip(trained, untrained, strict=True))
    return [
        at_most("furthest single-switch hybrid above the dense model's loss, nats", max(trained), 0.15),
        at_least("times closer than untrained bridges, at the least", closer, 5),
    ]


def task_figures(task: str, found: tuple[Json, Json] | None) -> list[Figure]:
    """What a task's circuit must show in the dense model."""
    if found is None:
        return [equal(f"{task}: the bridged sparse model has a circuit", False, True)]
    steering, transport = found
    curves, random = steering["curves"], [draw["task_loss"] for draw in transport["random"]]
    without = (transport["image"] or transport["dense"])["task_loss"]
    lost = without - sum(random) / len(random) if random else 0.0
    return [
        at_least(f"{task}: steered dense model's probability of the foil", curves["dense"]["foil"][-1], 0.5),
        at_most(f"{task}: the same in random directions", max(draw["foil"][-1] for draw in curves["random"]), 0.1),
        at_least(f"{task}: dense task loss without the image above that without random ones", lost, 0.1),
        reported(f"{task}: that probability with the stream changed", curves["stream"]["foil"][-1]),
        reported(f"{task}: foil's share of both answers, one read changed", curves["dense"]["share"][-1]),
        reported(f"{task}: the share with the stream changed", curves["stream"]["share"][-1]),
        reported(f"{task}: the share in random directions", max(x["share"][-1] for x in curves["random_stream"])),
    ]


def write_tables(folder: Path, held: Json, found: list[tuple[Json, Json]]) -> None:
    """bridges.csv, mixtures.csv, steering.csv and transport.csv."""
    kinds = ("trained", "untrained", "linear")
    plots.write_csv(
        folder / "bridges.csv",
        [
            {"dense": each["dense"], "sparse": each["sparse"], "bridges": kind, **each[kind]}
            for each in held["bridges"]
            for kind in kinds
            if each[kind]
        ],
    )
    plots.write_csv(folder / "mixtures.csv", held["mixtures"]["paths"])
    if not found:
        return
    curves = [
        {"task": steering["task"], "curve": kind, "strength": strength, **{key: curve[key][i] for key in curve}}
        for steering, _ in found
        for kind, curve in _curves(steering)
        for i, strength in enumerate(steering["strengths"])
    ]
    outcomes = [
        {"task": transport["task"], "ablated": kind, **outcome}
        for _, transport in found
        for kind, outcome in (
            ("nothing", transport["dense"]),
            ("image", transport["image"]),
            *(("random", draw) for draw in transport["random"]),
        )
        if outcome
    ]
    plots.write_csv(folder / "steering.csv", curves)
    plots.write_csv(folder / "transport.csv", outcomes)


def _curves(steering: Json) -> list[tuple[str, Json]]:
    """(name, curve); the random ones have one name."""
    found = []
    for name, held in steering["curves"].items():
        found += [(name, curve) for curve in (held if isinstance(held, list) else [held])]
    return found
