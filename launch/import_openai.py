"""Makes a workdir of a model in the reference's format (beeg_config.json and final_model.pt), without PyTorch.

python -m launch.import_openai --source=csp_yolo1 --workdir=runs/csp_yolo1
"""

from absl import flags

from launch import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string("source", None, "Folder with beeg_config.json and final_model.pt.")
    flags.DEFINE_string("tokenizer", None, "Folder with encoder.json and vocab.bpe, unless they are in --source.")
    flags.mark_flag_as_required("source")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    from launch.jobs import import_openai as job

    job.main()


if __name__ == "__main__":
    cli.run(define_flags, main)
