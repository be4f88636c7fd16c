"""Measures speed and memory on this machine and prints a table; the numbers go to WORKDIR/benchmark.json.

python -m launch.benchmark --workdir=runs/benchmark
python -m launch.benchmark --workdir=runs/benchmark --parts=selection --rounds=3
python -m launch.benchmark --workdir=runs/benchmark --parts=accelerator        (on a GPU or TPU; minutes)
"""

from absl import flags

from sparse_gpt.costs.sizes import SIZES
from sparse_gpt.errors import InputError

from . import cli

PARTS = ("train", "selection", "search", "circuit", "checkpoints", "data", "startup")

CHOICES = {
    "parts": (*PARTS, "quickstart", "accelerator"),
    "sizes": tuple(SIZES),
    "dtypes": ("float32", "bfloat16"),
}


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_list("parts", list(PARTS), f"What to measure: any of {', '.join(CHOICES['parts'])}.")
    flags.DEFINE_list("sizes", list(SIZES), f"Sizes of the train step: any of {', '.join(SIZES)}.")
    flags.DEFINE_list("dtypes", ["float32"], "Compute dtypes of the train step: float32, bfloat16.")
    flags.DEFINE_integer("rounds", 7, "Timed rounds; medians are reported.", lower_bound=1)


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.new_workdir()
    for flag, choices in CHOICES.items():
        for value in getattr(flags.FLAGS, flag):
            if value not in choices:
                raise InputError(f"--{flag}={value}: choose from {', '.join(choices)}")
    from .jobs import benchmark as job

    job.main(CHOICES["parts"])


if __name__ == "__main__":
    cli.run(define_flags, main)
