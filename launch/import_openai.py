"""Makes a workdir of a model in the reference's format (beeg_config.json and final_model.pt), without PyTorch.

python -m launch.import_openai --source=csp_yolo1 --workdir=runs/csp_yolo1
"""

from pathlib import Path

from absl import flags

from sparse_gpt.interop import layouts

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_path("source", "Folder with beeg_config.json and final_model.pt.", required=True)
    cli.define_path("tokenizer", "Folder with encoder.json and vocab.bpe, unless they are in --source.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.new_workdir()
    layouts.check_folder(Path(flags.FLAGS.source).expanduser())
    from .jobs import import_openai as job

    job.main()


if __name__ == "__main__":
    cli.run(define_flags, main)
