"""The work of launch.formation."""

from pathlib import Path

from sparse_gpt.circuits.summary import describe_formation
from sparse_gpt.evaluation.samples import searched_samples
from sparse_gpt.experiments import formation_plot
from sparse_gpt.tasks import AnyTask, every_circuit
from sparse_gpt.workdir import Workdir


def main(chosen: list[list[AnyTask]], folder: Path) -> None:
    """Searches the circuits of each task (of all circuits that are there, if none is `chosen`) at the kept checkpoints,
    prints what was found, writes and draws it."""
    run = Workdir(folder)
    for members in chosen or every_circuit(folder):
        workdir, samples, place = searched_samples(run, members)
        found = workdir.formation(samples)
        picture = formation_plot.write(place / "formation.png", found)
        print(f"{found.task}, circuits while the model was trained:", *describe_formation(found), sep="\n")
        print(f"  -> {place / 'formation.json'}, {picture.name}")
