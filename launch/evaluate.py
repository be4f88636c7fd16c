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
    """Evaluates the model of the workdir, unless that is done for its weights, and prints what was found."""
    from sparse_gpt.evaluation import tasks_solved
    from sparse_gpt.workdir import Workdir

    with stored.workdir() as folder:
        run = Workdir(folder)
        summary = tasks_solved.write(folder, run.config, run.params, run.params_sha256)
        if flags.FLAGS.families:
            print(tasks_solved.add_families(folder, run.config, run.params, run.tokenizer))
        print(summary)


if __name__ == "__main__":
    cli.run(define_flags, main)
