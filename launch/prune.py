"""Finds the circuit of a task in a trained model: mask search, minimality, calibration, controls.

python -m launch.prune --workdir=runs/quickstart
python -m launch.prune --workdir=runs/quickstart --task=bracket_counting,for_while --config.prune.target_loss=0.05
python -m launch.prune --workdir=runs/quickstart --task=all-that-work --config.prune.tune_trials=32
python -m launch.prune --workdir=runs/quickstart --task=for_while,else_elif --shared
python -m launch.prune --workdir=runs/quickstart --task=my/pairs.csv

Killed and started again, it goes on: finished circuits of these weights and settings are kept (delete the folder to
search again), and an unfinished search continues from the populations in WORKDIR/searches/TASK/.
"""

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.errors import InputError

from . import cli, stored

ALL = "all-that-work"


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    cli.define_config()
    flags.DEFINE_bool("shared", False, "One circuit that all tasks of --task share, in WORKDIR/circuits/TASK+TASK.")
    flags.DEFINE_string(
        "task",
        "single_double_quote",
        f"Task, file of own pairs (.jsonl, .csv), comma list of these, or {ALL}: every task the model solves.",
    )


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.check_overrides(("prune",))
    chosen, everything = tasks.select(flags.FLAGS.task, ALL), flags.FLAGS.task == ALL
    if flags.FLAGS.shared and (everything or len(chosen) < 2):
        raise InputError(f"--shared: needs a list of two or more tasks, but --task={flags.FLAGS.task}")
    families = configs.replace(configs.Config(), cli.overrides()).prune.families
    for task in () if everything else chosen:
        tasks.searched_families(task, families)
    from .jobs import prune as job

    job.main(chosen, everything)


if __name__ == "__main__":
    cli.run(define_flags, main)
