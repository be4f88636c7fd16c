"""How a circuit came about: circuits of a task at the run's kept checkpoints, in WORKDIR/circuits/TASK/formation.json.

python -m launch.formation --workdir=runs/quickstart --task=single_double_quote

The circuit of the trained model must be there (`launch.prune`), and the run must have kept earlier checkpoints
(`launch.train --config.train.keep_every=400`). Beside the numbers stands a picture, formation.png, and the page of the
circuit (`launch.page`) gets a slider over training. Killed and started again, it goes on.
"""

from absl import flags

from sparse_gpt import tasks

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string(
        "task",
        None,
        "Task, file of own pairs, or comma list of these; TASK+TASK for a shared circuit; all: every circuit of the "
        "twenty tasks that is there.",
        required=True,
    )


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    chosen, folder = tasks.select_circuits(flags.FLAGS.task), cli.hold(cli.existing_workdir(written=True))
    from .jobs import formation as job

    job.main(chosen, folder)


if __name__ == "__main__":
    cli.run(define_flags, main)
