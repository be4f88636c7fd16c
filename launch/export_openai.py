"""Writes a model in the reference's format, readable by PyTorch, with safetensors, config.json and a model card.

python -m launch.export_openai --workdir=runs/quickstart --output=exported
"""

from absl import flags

from launch import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string("output", None, "New folder for the exported files.")
    flags.DEFINE_bool("safetensors", True, "Also write model.safetensors (the same tensors a second time).")
    flags.mark_flag_as_required("output")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    folder = cli.existing_workdir()
    from launch.jobs import export_openai as job

    job.main(folder)


if __name__ == "__main__":
    cli.run(define_flags, main)
