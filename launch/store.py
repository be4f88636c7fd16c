"""Writes a workdir's model into one small file that --init_from of other scripts takes.

python -m launch.store --workdir=runs/laptop --output=laptop.zip

A bigram table is dense and would be most of the file: it is stored to the nearest 1/32 of a nat. The stored model then
has a fingerprint and an evaluation of its own, and its manifest names the fingerprint of the trained one.
"""

from absl import flags

from sparse_gpt import paths
from sparse_gpt.errors import InputError

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_path("output", "The file to write, ending in .zip.", required=True)
    flags.DEFINE_integer("tokens", 400_000, "Tokens of the same sources to store beside it.", lower_bound=1)


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    folder, output = cli.existing_workdir(), paths.output_file("output", flags.FLAGS.output, ".zip")
    if output.exists() or output.suffix != ".zip":
        raise InputError(f"--output={output}: must be a new .zip file")
    from .jobs import store as job

    job.main(folder, output)


if __name__ == "__main__":
    cli.run(define_flags, main)
