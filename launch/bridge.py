"""Trains a sparse model with bridges to a dense one, or resumes the run in --workdir.

python -m launch.bridge --workdir=runs/bridge                          # trains the dense model first
python -m launch.bridge --workdir=runs/bridge --dense=runs/dense       # a trained or imported model
python -m launch.bridge --workdir=runs/bridge --independent=runs/apart # and a control, see --help
python -m launch.bridge --workdir=runs/bridge --preset=bridge_laptop   # the sparse model starts from the stored one

A finished run is only evaluated again.
"""

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_config()
    cli.define_distributed()
    cli.define_path("dense", "Workdir of a trained or imported dense model; default: train one in WORKDIR/dense.")
    cli.define_path(
        "independent",
        "Workdir of a sparse model trained without bridges on the same tokenizer; the best linear maps to it are the "
        "second control in bridge.json. Default: the model of config.bridge.init_from; without it, none.",
    )


def main() -> int:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.new_workdir()
    config = cli.new_config("bridge_quickstart")
    from .jobs import bridge as job

    return job.main(config)


if __name__ == "__main__":
    cli.run(define_flags, main)
