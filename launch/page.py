"""Writes a circuit's own page, WORKDIR/circuits/TASK/page.html: one file that opens offline and runs the model in it.

Without --task: the pages of all circuits, and WORKDIR/circuits/index.html, which compares them. A report that is there
is made again where it does not lead to them yet.

python -m launch.page --workdir=runs/quickstart --task=single_double_quote
python -m launch.page --workdir=runs/quickstart --twin=runs/dense
python -m launch.page --workdir=runs/quickstart --gallery
"""

from absl import flags

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    flags.DEFINE_string(
        "task",
        "",
        "Task, file of own pairs, or comma list of these; TASK+TASK for a shared circuit. Without, or as all: every "
        "circuit of the twenty tasks that is there.",
    )
    flags.DEFINE_bool(
        "gallery", False, "One file with all these circuits and the minimal ones inside them: circuits/gallery.html."
    )
    cli.define_path("twin", "Workdir of another model, to show beside this one in circuits/index.html.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    from .jobs import page as job

    job.main()


if __name__ == "__main__":
    cli.run(define_flags, main)
