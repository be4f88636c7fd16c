"""Writes a circuit's own page, WORKDIR/circuits/TASK/page.html: one file that opens offline and runs the model in it.

python -m launch.page --workdir=runs/quickstart --task=single_double_quote
"""

from absl import flags

from sparse_gpt import tasks

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    flags.DEFINE_string(
        "task", None, "Task, file of own pairs, or comma list of these; TASK+TASK for a shared circuit.", required=True
    )


def main() -> None:
    """Builds the page of each circuit and prints where it is."""
    chosen = tasks.select_circuits(flags.FLAGS.task)
    from sparse_gpt.page import build_pages
    from sparse_gpt.workdir import Workdir

    with stored.workdir() as folder:
        for path in build_pages(Workdir(folder), chosen):
            print(f"{path.parent.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    cli.run(define_flags, main)
