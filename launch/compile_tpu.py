"""Compiles the train step, that of a bridged run or the mask search for a TPU slice, without having one, and says
whether it fits and how fast it could be. Exit code 2 when it does not fit. Needs the TPU compiler:

bash launch/environment.sh requirements-tpu.txt .venv-tpu
.venv-tpu/bin/python -m launch.compile_tpu --preset=paper_475m --topology=v5e:16x16
.venv-tpu/bin/python -m launch.compile_tpu --preset=paper_475m --topology=v5e:16x16 --program=search
.venv-tpu/bin/python -m launch.compile_tpu --preset=paper_bridge --topology=v5e:16x16 --program=bridge

With --workdir, DIR/compile_tpu.json holds everything; without --preset, that workdir's model is compiled.
"""

import os

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.costs import chips

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir(required=False)
    cli.define_config()
    flags.DEFINE_string("topology", "v5e:16x16", "Slice to compile for: v5e:16x16, v5p:4x4x8, v6e:16x16, ...")
    flags.DEFINE_integer("slices", 1, "How many of them, joined by the data-center network.", lower_bound=1)
    flags.DEFINE_string("mesh", None, "Short for --config.train.mesh, such as data=16,fsdp=16.")
    flags.DEFINE_enum(
        "program",
        "train",
        ["train", "bridge", "search"],
        "The train step, that of a bridged run (with a dense model of bridge.dense_d_model), or one of the search.",
    )
    flags.DEFINE_integer("searches", 0, "Population of the mask search; 0: one per chip.", lower_bound=0)
    flags.DEFINE_integer("tokens", 64, "Tokens per sample of the mask search.", lower_bound=1)
    flags.DEFINE_bool("compare", False, "Compile the train step a second time without the projection, and tell both.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    if flags.FLAGS.workdir:
        cli.new_workdir()
    chip, config = chips.chip(flags.FLAGS.topology), _config()
    # Arrays, if any, live on the host; programs for absent chips cannot be read back from a cache.
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    from .jobs import compile_tpu as job

    job.main(config, chip)


def _config() -> Config:
    """The preset, or the workdir's own configuration, with overrides."""
    config, mesh = cli.any_config(("train", "prune")), flags.FLAGS.mesh
    return config if mesh is None else configs.replace(config, {"train.mesh": mesh})


if __name__ == "__main__":
    cli.run(define_flags, main)
