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
    """Imports and prints what was found."""
    workdir, source, given = cli.new_workdir(), Path(flags.FLAGS.source).expanduser(), flags.FLAGS.tokenizer
    layouts.check_folder(source)
    from sparse_gpt.interop.workdirs import describe, import_openai

    model = import_openai(source, workdir, Path(given).expanduser() if given else None, say=print)
    print(describe(model, workdir))


if __name__ == "__main__":
    cli.run(define_flags, main)
