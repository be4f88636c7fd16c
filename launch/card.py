"""Judges circuits that are there: the report card, in the terminal and as WORKDIR/circuits/TASK/card.json.

python -m launch.card --workdir=runs/quickstart --task=single_double_quote
python -m launch.card --workdir=runs/quickstart --task=single_double_quote --rows=adversary,restoration
python -m launch.card --workdir=runs/quickstart --task=single_double_quote --full

Without --rows all rows that search nothing are measured, in a minute or a few; --full adds those that search again,
which take as long as `launch.prune` several times.
"""

from absl import flags

from sparse_gpt import tasks

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    flags.DEFINE_string(
        "task",
        None,
        "Task, file of own pairs, or comma list of these; TASK+TASK for a shared circuit; all: every circuit of the "
        "twenty tasks that is there.",
        required=True,
    )
    flags.DEFINE_list("rows", [], "Rows to measure; others that are in the card already stay (default: see above).")
    flags.DEFINE_bool("full", False, "All rows, also those that search again.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    chosen = tasks.select_circuits(flags.FLAGS.task)
    from .jobs import card as job

    job.main(chosen)


if __name__ == "__main__":
    cli.run(define_flags, main)
