"""Writes a model in the reference's format, readable by PyTorch, with safetensors, config.json and a model card.

python -m launch.export_openai --workdir=runs/quickstart --output=exported
"""

from pathlib import Path

from absl import flags

from sparse_gpt import locks, paths

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_path("output", "New folder for the exported files.", required=True)
    flags.DEFINE_bool("safetensors", True, "Also write model.safetensors (the same tensors a second time).")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    folder = cli.existing_workdir()
    output = paths.writable_folder("output", Path(flags.FLAGS.output).expanduser().absolute())
    from sparse_gpt.interop.workdirs import export_openai

    locks.refuse_while_written(folder)
    export_openai(folder, output, flags.FLAGS.safetensors, say=print)
    for path in sorted(output.iterdir()):
        print(f"{path.stat().st_size:>15,}  {path}")


if __name__ == "__main__":
    cli.run(define_flags, main)
