"""Circuits of a bridged sparse model in the dense model: steering through one node, and ablation of their images.

Writes steering.json and transport.json beside each circuit, in WORKDIR/circuits/TASK/.
"""

from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.bridges import image_ablation, steering
from sparse_gpt.bridges.models import load_models
from sparse_gpt.bridges.steering import Models, Node
from sparse_gpt.circuits import TaskBatch
from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.data import Corpus, corpus_folder
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import equally_long_samples, require_same_pairs
from sparse_gpt.records import Search, Steering, Transport
from sparse_gpt.records.bridge import Curve
from sparse_gpt.tasks import AnyTask

MEAN_BATCHES = 16  # of pretraining text


def transfer_circuits(folder: Path, chosen: list[AnyTask], node: Node | None) -> None:
    """Writes both files for every circuit, and prints a summary of each.

    Args:
      folder: workdir of a finished bridged run.
      chosen: tasks whose circuits are taken; empty: all of the suite that have one.
      node: steered through, (layer, site, channel); None: the best one of each circuit.

    Raises:
      InputError: the workdir holds no bridged run, or a circuit is missing, of other weights or of other samples.
    """
    config = configs.load(folder)
    chosen = chosen or find_tasks(folder)
    models = load_models(folder, config)
    circuits = {task.name: load_circuit(folder, task, models.params_sha256, config.model) for task in chosen}
    corpus = Corpus.open(corpus_folder(folder, config))
    means = image_ablation.means(models, [_text(config, corpus, "train", s)[:, :-1] for s in range(MEAN_BATCHES)])
    text = _text(config, corpus, "validation", 0)
    for task in chosen:
        circuit, place = circuits[task.name], folder / "circuits" / task.name
        samples = equally_long_samples(task, corpus.tokenizer, config)
        steered = steer(models, circuit, place, samples, node)
        carried = image_ablation.transport(models, circuit, means, samples["heldout"], text, config.prune.seed)
        for record in (steered, carried):
            record.write(folder / record.FILE.replace("TASK", task.name))
        print(describe(steered, carried, place))


def find_tasks(folder: Path) -> list[AnyTask]:
    """The tasks that have a circuit of their own in the workdir; InputError when there are none."""
    found = [members[0] for members in tasks.circuits_in(folder) if len(members) == 1]
    if not found:
        raise InputError(
            f"--workdir={folder}: no circuits; python -m launch.prune --workdir={folder} --task=single_double_quote "
            "finds one"
        )
    return found


def load_circuit(folder: Path, task: AnyTask, params_sha256: str, model: ModelConfig) -> Circuit:
    """The circuit of a task; InputError unless it is of these weights, fits the model, and was searched on the task's
    file as it is."""
    place = folder / "circuits" / task.name
    circuit = load(place, params_sha256, model)
    require_same_pairs(folder, [task], Search.read_if_any(place / "search.json"))
    return circuit


def _text(config: Config, corpus: Corpus, split: str, step: int) -> np.ndarray:
    return corpus.batch(split, config.data.seed, step, config.train.batch_size, config.model.context)


def steer(models: Models, circuit: Circuit, place: Path, samples: dict[str, TaskBatch], node: Node | None) -> Steering:
    """steering.json: the candidates on validation samples, the curves of one node on held-out ones."""
    validation, heldout = (steering.Steering(models, samples[split]) for split in ("validation", "heldout"))
    tried = steering.candidates(validation, circuit.nodes, read_importance(place, circuit))
    if node is None:
        if not tried:
            raise InputError(f"--task={circuit.task}: no node of its circuit is at a bridged read; name one by --node")
        node = tried[0].node
    return steering.steer(heldout, circuit.task, node, 0, tried)


def read_importance(place: Path, circuit: Circuit) -> dict[Node, float]:
    """What the task loss gains without each node, from search.json; {} when that, or the circuit's own loss, is not
    known."""
    search = Search.read_if_any(place / "search.json")
    entries = search.importance.nodes if search else ()
    loss = search.importance.task_loss if search else None
    if loss is None:  # an older file: on other samples then
        loss = circuit.metrics.get("task_loss")
    if loss is None:
        return {}
    return {entry.node: entry.task_loss - loss for entry in entries if entry.task_loss is not None}


def describe(steered: Steering, carried: Transport, place: Path) -> str:
    """A few lines for a person about one task, whose files are in `place`."""
    curves = steered.curves

    def moved(curve: Curve) -> str:
        return f"{curve.share[0]:.3f} -> {curve.share[-1]:.3f}"

    random = max(curve.share[-1] for curve in (*curves.random, *curves.random_stream))
    losses = [f"{carried.dense.task_loss:.3f} as it is"]
    if carried.image:
        losses.append(f"{carried.image.task_loss:.3f} without the circuit's image")
    if carried.random:
        losses.append(f"{np.mean([draw.task_loss for draw in carried.random]):.3f} without random images")
    return (
        f"{steered.task}: node {steered.node.node.key} steered on {steered.pairs} held-out pairs, foil's share of both "
        f"answers {moved(curves.sparse)} in the sparse model, {moved(curves.stream)} in the dense one by its stream, "
        f"{moved(curves.dense)} by one read, at most {random:.3f} in random directions\n"
        f"  task loss of the dense model {', '.join(losses)}\n"
        f"  -> {place}"
    )
