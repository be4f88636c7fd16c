"""The work of launch.steer."""

from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.bridges import dense as dense_models
from sparse_gpt.bridges import image_ablation, steering
from sparse_gpt.bridges.steering import Models, Node
from sparse_gpt.bridges.training import BridgeProgram, restore
from sparse_gpt.circuits import TaskBatch, task_batch
from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.circuits.run.task_batch import padded, rows, without_longest
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.records import Manifest, Search, Steering, Transport
from sparse_gpt.records.bridge import Curve
from sparse_gpt.tasks import AnyTask
from sparse_gpt.training.manifest import params_sha256

from .. import cli

PAIRS = 64  # of validation samples, on which a node is chosen, and of held-out ones
DRAWN = 2 * PAIRS  # so that enough are left without the longest and those of unequal length
MEAN_BATCHES = 16  # of pretraining text


def main(folder: Path, chosen: list[AnyTask], node: Node | None) -> None:
    """The `chosen` tasks, or all that have a circuit; steered through `node`, or the best one of each circuit."""
    cli.hold(folder)
    config = configs.load(folder)
    chosen = chosen or _tasks(folder)
    models = _models(folder, config)
    circuits = {task.name: _circuit(folder, task, models.params_sha256) for task in chosen}
    corpus = Corpus.open(config.data.corpus or folder / "corpus")
    found = image_ablation.means(models, [_text(config, corpus, "train", s)[:, :-1] for s in range(MEAN_BATCHES)])
    text = _text(config, corpus, "validation", 0)
    for task in chosen:
        circuit, place = circuits[task.name], folder / "circuits" / task.name
        samples = _samples(task, corpus.tokenizer, config)
        steered = _steer(models, circuit, place, samples, node)
        carried = image_ablation.transport(models, circuit, found, samples["heldout"], text, config.prune.seed)
        for result in (steered, carried):
            result.write(folder / result.FILE.replace("TASK", task.name))
        print(_describe(steered, carried, place))


def _tasks(folder: Path) -> list[AnyTask]:
    """Of all circuits of one task in the workdir; InputError when there are none."""
    found = sorted(path.parent.name for path in (folder / "circuits").glob("*/circuit.json"))
    found = [name for name in found if name in tasks.TASKS]  # not those of several tasks, nor of files
    if not found:
        raise InputError(
            f"--workdir={folder}: no circuits; python -m launch.prune --workdir={folder} --task=single_double_quote "
            "finds one"
        )
    return [tasks.find(name) for name in found]


def _circuit(folder: Path, task: AnyTask, params_sha256: str) -> Circuit:
    """The circuit of a task; InputError unless it is of these weights, and was searched on the task's file as it is."""
    place = folder / "circuits" / task.name
    circuit = load(place, params_sha256)
    search = Search.read_if_any(place / "search.json")
    if (search.samples_sha256 if search else "") != task.samples_sha256:
        raise InputError(
            f"--task={task.source}: {place} was searched on other pairs; python -m launch.prune --workdir={folder} "
            f"--task={task.source} searches on these"
        )
    return circuit


def _models(folder: Path, config: Config) -> Models:
    """The two models of a finished bridged run and the bridges."""
    held = Manifest.read_if_any(folder / Manifest.FILE) or Manifest()
    if held.dense_params_sha256 is None:
        raise InputError(f"--workdir={folder}: not a bridged run; python -m launch.bridge makes one")
    beside = folder / "dense"  # still right when the folder has been moved
    dense = dense_models.load_dense(beside if beside.is_dir() else Path(held.dense or ""), config)
    if dense.params_sha256 != held.dense_params_sha256:
        raise InputError(f"--workdir={folder}: the dense model in {held.dense} is not the one it was bridged to")
    program = BridgeProgram(config, None, dense.config)
    _, state = restore(folder, program)
    return Models(
        program.bridged,
        program.place(dense.params),
        state.params,
        state.optimizer.bridges,
        params_sha256(state.params),
        dense.params_sha256,
    )


def _text(config: Config, corpus: Corpus, split: str, step: int) -> np.ndarray:
    return corpus.batch(split, config.data.seed, step, config.train.batch_size, config.model.context)


def _samples(task: AnyTask, tokenizer: Tokenizer, config: Config) -> dict[str, TaskBatch]:
    """Pairs of a task whose prompts have one length, by split; of one shape, so that both splits share programs.

    TaskError if the tokenizer or the context does not allow the task.
    """
    seed, context = config.prune.seed, config.model.context
    tasks.check(task, tokenizer)
    found = {
        split: task_batch(tasks.sample(task, tokenizer, split, DRAWN, seed, context=context))
        for split in ("validation", "heldout")
    }
    kept = {split: steering.comparable(without_longest(batch), task.name) for split, batch in found.items()}
    length = max(batch.tokens.shape[1] for batch in kept.values())
    return {split: padded(rows(batch, slice(2 * PAIRS)), length) for split, batch in kept.items()}


def _steer(
    models: Models, circuit: Circuit, place: Path, samples: dict[str, TaskBatch], chosen: Node | None
) -> Steering:
    """steering.json: the candidates on validation samples, the curves of one node on held-out ones."""
    trial, final = (steering.Steering(models, samples[split]) for split in ("validation", "heldout"))
    tried = steering.candidates(trial, circuit.nodes, _importance(place, circuit))
    if chosen is None:
        if not tried:
            raise InputError(
                f"--task={circuit.task}: no node of its circuit lies at a bridged read; name one by --node"
            )
        chosen = tried[0].node
    return steering.steer(final, circuit.task, chosen, 0, tried)


def _importance(place: Path, circuit: Circuit) -> dict[Node, float]:
    """What the task loss gains without each node, from search.json; {} when it is not there."""
    search = Search.read_if_any(place / "search.json")
    entries = search.importance.nodes if search else ()
    whole = circuit.metrics["task_loss"]
    return {entry.node: entry.task_loss - whole for entry in entries if entry.task_loss is not None}


def _describe(steered: Steering, carried: Transport, place: Path) -> str:
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
