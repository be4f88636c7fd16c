"""The work of launch.prune."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sparse_gpt import estimate
from sparse_gpt.circuits import FoundCircuit, TaskSamples, keep_solved, storage
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.run.samples import joint_sha256, refuse_mixture, share
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.records import FamilyLosses, Search
from sparse_gpt.tasks import AnyTask, TaskError, searched_families
from sparse_gpt.workdir import Workdir

from .. import cli, stored
from . import card


def main(chosen: list[AnyTask], all_that_work: bool) -> None:
    """Checks everything, then searches circuit after circuit and writes WORKDIR/circuits/TASK/.

    With `all_that_work`, those of the `chosen` tasks that the model does not solve are left out.
    """
    with stored.workdir() as folder:
        run, activations, solved = _asked(folder, chosen, all_that_work)
    for name, samples in solved.items():
        _print_summary(run.search_circuit(samples, activations), run.folder / "circuits" / name)


def _asked(
    folder: Path, chosen: list[AnyTask], all_that_work: bool
) -> tuple[Workdir, GateArrays | None, dict[str, TaskSamples]]:
    """What flags ask for, checked: the model, its activations on pretraining text, and the samples of every circuit
    that is not there yet."""
    config = cli.stored_config(folder, ("prune",))
    estimate.check_here(config, "prune")
    wanted = _wanted(chosen, config)
    run = Workdir(folder, config)
    todo = {name: members for name, members in wanted.items() if not _kept(name, members, run)}
    if not todo:
        return run, None, {}
    activations = run.pretraining_activations()
    solved = _solved([task for members in todo.values() for task in members], run, skip=all_that_work)
    if not solved and len(todo) == len(wanted):
        raise InputError(
            f"--task={flags.FLAGS.task}: the model solves none of the {len(wanted)} tasks; train it longer"
        )
    if flags.FLAGS.shared:
        solved = {name: share({task.name: solved[task.name] for task in members}) for name, members in todo.items()}
    return run, activations, solved


def _wanted(chosen: list[AnyTask], config: Config) -> dict[str, list[AnyTask]]:
    """Name of each circuit to find -> its tasks. InputError when --shared asks for what cannot be."""
    if not flags.FLAGS.shared:
        return {task.name: [task] for task in chosen}
    for task in chosen:
        refuse_mixture(task.name, searched_families(task, config.prune.families))
    if config.prune.batch_pairs % len(chosen):
        raise InputError(
            f"--config.prune.batch_pairs={config.prune.batch_pairs}: must be a multiple of the {len(chosen)} tasks "
            "that are --shared, so that every batch has equally many pairs of each"
        )
    return {"+".join(task.name for task in chosen): chosen}


def _kept(name: str, members: list[AnyTask], run: Workdir) -> bool:
    """Whether the circuit of a task, or of several, is there already; says so."""
    folder, samples = run.folder / "circuits" / name, joint_sha256([task.samples_sha256 for task in members])
    complete = storage.is_complete(folder, run.params_sha256, run.config.prune, samples)
    if complete:
        print(f"{name}: {folder} is complete for these weights and settings; delete it to search again")
        if run.config.prune.card != "none" and not (folder / "card.json").is_file():
            print(f"  it has no report card; make one by python -m launch.card --workdir={run.folder} --task={name}")
    return complete


def _solved(chosen: list[AnyTask], run: Workdir, skip: bool) -> dict[str, TaskSamples]:
    """Samples of the tasks that the tokenizer can express and the model can do; the others raise, or are told and
    skipped."""
    found = {}
    for task in chosen:
        try:
            samples = task_samples(task, run.tokenizer, run.config)
            found[task.name] = keep_solved(run, samples)
        except (InputError, TaskError) as error:
            if not skip:
                raise
            print(f"left out: {error}")
    return found


def _print_summary(result: FoundCircuit, folder: Path) -> None:
    circuit, m = result.circuit, result.circuit.metrics
    if not result.reached:
        print(f"{circuit.task}: no circuit reached task loss {circuit.target_loss:g}; this is the best found")
    elif len(result.search.stages) == 1:
        print(f"{circuit.task}: not refined, for {_why_not_refined(m['nodes'], result.search.hyperparameters)}")
    for line in search_problems(result.search):
        print(f"{circuit.task}: {line}")
    each = "".join(f"  {x.task}: held-out task loss {x.task_loss:.3f}\n" for x in circuit.tasks)
    shifted = ""
    if "shifted_task_loss" in m:
        shifted = (
            f"  other templates: task loss {m['shifted_task_loss']:.3f} (full model "
            f"{m['shifted_full_model_task_loss']:.3f}), agreement {m['shifted_agreement']:.3f}\n"
        )
    print(
        f"{circuit.task}: {m['nodes']} nodes, {m['edges']} edges ({m['embedding_edges']} embedding, "
        f"{m['unembedding_edges']} unembedding), found in {result.search.seconds:.0f} s\n"
        f"  held-out task loss {m['task_loss']:.3f} (uncalibrated {m['task_loss_uncalibrated']:.3f}, "
        f"logits scaled by {circuit.scale:.3g}, full model {m['full_model_task_loss']:.3f}), "
        f"accuracy {m['accuracy']:.3f}, agreement with the full model {m['agreement']:.3f}\n"
        f"{each}{shifted}  circuit ablated {m['ablated_task_loss']:.3f}, random circuits of its size "
        f"{m['random_circuit_task_loss']:.3f} (chance 0.693)\n{_families(circuit.families)}",
        end="",
    )
    if circuit.minimal is not None:
        inner = circuit.minimal.metrics
        print(
            f"  minimal circuit inside, for one family: {inner['nodes']} nodes, {inner['edges']} edges, held-out task "
            f"loss {inner['task_loss']:.3f}"
        )
    if result.card is not None:
        print("\n".join([f"  {card.summary(result.card)}", *card.table(result.card)]))
    print(f"  -> {folder}")


def _families(families: Sequence[FamilyLosses]) -> str:
    """A line per template family."""
    if not families:
        return ""
    lines = [f"  {'family':16}{'':12}{'task loss':>10}{'full model':>12}{'accuracy':>10}{'agreement':>11}"]
    for each in families:
        lines.append(
            f"  {each.family:16}{each.role:12}{each.task_loss:10.3f}{each.full_model_task_loss:12.3f}"
            f"{each.accuracy:10.3f}{each.agreement:11.3f}"
        )
    return "\n".join(lines) + "\n"


def search_problems(search: Search) -> list[str]:
    """A line for everything about the searches that a reader must know before he believes in the circuit."""
    trials, origin = search.trials, search.refined_from
    closed = sum(not trial.open_nodes for trial in trials)
    above = sum(not trial.feasible and bool(trial.open_nodes) for trial in trials)
    short = sum(not trial.reached for trial in trials)
    lines = []
    if closed:
        lines.append(f"{closed} of {len(trials)} searches closed every node; lower --config.prune.k_coefs")
    if above:
        lines.append(f"{above} of {len(trials)} searches never were at the target; the model may hardly do the task")
    if short == len(trials) and not origin.startswith("trial"):
        lines.append(f"no search's ranking reached the target; the circuit comes from {origin}, which nobody searched")
    return lines


def _why_not_refined(nodes: float, prune: Mapping[str, Any]) -> str:
    if nodes > prune["refine_most"]:
        return f"it has more than --config.prune.refine_most={prune['refine_most']} nodes"
    return f"nothing reached {prune['selection_margin'] * prune['target_loss']:g} on the samples it was chosen on"
