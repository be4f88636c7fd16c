"""Trains a (sparse) transformer on a corpus, or resumes the run in --workdir.

python -m launch.train --preset=quickstart --workdir=runs/quickstart
python -m launch.train --preset=quickstart --workdir=runs/wide --config.model.d_model=256 --config.model.d_mlp=1024
"""

from absl import flags

from sparse_gpt import paths
from sparse_gpt.errors import InputError

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_config()
    cli.define_path(
        "init_from", "Initial parameters: another workdir, a stored model, or an .npz under the reference's names."
    )
    cli.define_path("batches", "An .npy of token ids (steps, batch, time + 1) to train on instead of a corpus.")
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Short for --config.train.dtype.")
    cli.define_path("params_out", "Write the parameters, under the reference's names, to this .npz file ...")
    flags.DEFINE_integer(
        "params_at", None, "... after this many steps; 0: the initial ones (default: at the end).", lower_bound=0
    )
    cli.define_distributed()


def main() -> int:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.new_workdir()
    config, params_at = cli.new_config(), flags.FLAGS.params_at
    params_out = paths.output_file("params_out", flags.FLAGS.params_out, ".npz") if flags.FLAGS.params_out else None
    if params_out is not None:
        read = [(name, flags.FLAGS[name].value) for name in ("init_from", "batches")]
        paths.refuse_one_file_twice({"params_out": params_out}, read)
    if params_at is not None and params_out is None:
        raise InputError(f"--params_at={params_at}: needs --params_out=FILE.npz")
    from .jobs import train as job

    return job.main(config, params_out)


if __name__ == "__main__":
    cli.run(define_flags, main)
