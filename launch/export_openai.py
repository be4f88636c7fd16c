"""Writes a model in the reference's format, readable by PyTorch, with safetensors, config.json and a model card.

python -m launch.export_openai --workdir=runs/quickstart --output=exported
"""

from pathlib import Path

from absl import flags

from launch import cli
from sparse_gpt import locks
from sparse_gpt.interop.workdirs import export_openai

cli.define_workdir()
flags.DEFINE_string("output", None, "New folder for the exported files.")
flags.DEFINE_bool("safetensors", True, "Also write model.safetensors (the same tensors a second time).")
flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
    """Exports and lists the files."""
    del argv
    output = Path(flags.FLAGS.output).expanduser().absolute()
    locks.refuse_while_written(cli.existing_workdir())
    export_openai(cli.existing_workdir(), output, flags.FLAGS.safetensors, say=print)
    for path in sorted(output.iterdir()):
        print(f"{path.stat().st_size:>15,}  {path}")


if __name__ == "__main__":
    cli.run(main)
