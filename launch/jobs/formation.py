"""The work of launch.formation."""

from pathlib import Path

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.circuits import keep_solved
from sparse_gpt.circuits.circuit import load
from sparse_gpt.circuits.run.samples import share
from sparse_gpt.circuits.summary import describe_formation
from sparse_gpt.evaluation.samples import task_samples
from sparse_gpt.experiments import formation_plot
from sparse_gpt.workdir import Workdir

from .card import searched


def main(folder: Path) -> None:
    """Searches the circuits of each task at the kept checkpoints, prints what was found, writes and draws it."""
    run = Workdir(folder)
    for names in flags.FLAGS.task.split(","):
        members = [task for name in names.split("+") for task in tasks.select(name)]
        place = folder / "circuits" / "+".join(task.name for task in members)
        load(place, run.params_sha256)  # before anything that takes time
        config = searched(run.config, place)
        workdir = Workdir(folder, config)
        found = {task.name: keep_solved(workdir, task_samples(task, workdir.tokenizer, config)) for task in members}
        formation = workdir.formation(share(found) if len(found) > 1 else next(iter(found.values())))
        picture = formation_plot.write(place / "formation.png", formation)
        files = f"  -> {place / 'formation.json'}, {picture.name}"
        print(
            "\n".join(
                [f"{formation.task}, circuits while the model was trained:", *describe_formation(formation), files]
            )
        )
