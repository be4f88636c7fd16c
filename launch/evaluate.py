"""Held-out losses of a finished model on every task it can express, and with --families on every template family.

python -m launch.evaluate --workdir=runs/quickstart
python -m launch.evaluate --workdir=runs/laptop --init_from=laptop --families

Writes WORKDIR/evaluation.json, as the end of a training does, and prints tables in Markdown.
"""

from absl import flags

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    flags.DEFINE_bool("families", False, "Every template family of every task too.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    from .jobs import evaluate as job

    job.main(flags.FLAGS.families)


if __name__ == "__main__":
    cli.run(define_flags, main)
