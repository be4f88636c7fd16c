"""Runs a named experiment (or finishes it), prints expected against measured, and fails on a miss.

python -m launch.reproduce --list
python -m launch.reproduce --experiment=torture --workdir=runs/torture
"""

from absl import flags

from launch import cli
from launch.experiments import EXPERIMENTS
from launch.runs import settle
from sparse_gpt.errors import InputError

MISSED = 3  # exit code: everything ran, but a figure is not what it should be

flags.DEFINE_string("workdir", None, "Folder for the experiment's runs; what is finished there is not done again.")
flags.DEFINE_string("experiment", None, "Which experiment; --list shows them.")
flags.DEFINE_bool("list", False, "Show all experiments: what each proves and what it costs.")


def main(argv: list[str]) -> int:
    """Flags to one experiment and a table."""
    del argv
    f = flags.FLAGS
    if f.list:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:18}{experiment.cost:20}{experiment.proves}")
        return 0
    if f.experiment not in EXPERIMENTS:
        raise InputError(f"--experiment={f.experiment}: choose one of {', '.join(EXPERIMENTS)}")
    if not f.workdir:
        raise InputError("--workdir: missing; name a folder for the experiment's runs")
    figures = EXPERIMENTS[f.experiment].run(cli.workdir())
    return 0 if settle(f.experiment, figures, cli.workdir() / "reproduce.json") else MISSED


if __name__ == "__main__":
    cli.run(main)
