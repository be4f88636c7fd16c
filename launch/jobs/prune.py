"""The work of launch.prune."""

from pathlib import Path

from absl import flags

from sparse_gpt import estimate
from sparse_gpt.circuits import TaskSamples, storage
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.run.samples import joint_sha256, share
from sparse_gpt.circuits.summary import describe
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import require_shareable, solved_samples
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir

from .. import cli, stored


def main(chosen: list[AnyTask], all_that_work: bool) -> None:
    """Checks everything, then searches circuit after circuit and writes WORKDIR/circuits/TASK/.

    With `all_that_work`, those of the `chosen` tasks that the model does not solve are left out.
    """
    with stored.workdir() as folder:
        run, activations, solved = _asked(folder, chosen, all_that_work)
    for name, samples in solved.items():
        print(f"{describe(run.search_circuit(samples, activations))}\n  -> {run.folder / 'circuits' / name}")


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
    solved = solved_samples([task for members in todo.values() for task in members], run, skip=all_that_work)
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
    require_shareable(chosen, config)
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
