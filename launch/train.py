"""Trains a (sparse) transformer on a corpus, or resumes the run in --workdir.

python -m launch.train --preset=quickstart --workdir=runs/quickstart
python -m launch.train --preset=quickstart --workdir=runs/wide --config.model.d_model=256 --config.model.d_mlp=1024
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from launch import cli, corpus
from sparse_gpt import config as configs
from sparse_gpt.errors import InputError

flags.DEFINE_string("init_from", None, "Initial parameters: another workdir, or an .npz with the reference's names.")
flags.DEFINE_string("batches", None, "An .npy of token ids (steps, batch, context + 1) to train on instead of a corpus.")
flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Same as --config.train.dtype.")
flags.DEFINE_string("params_out", None, "Write parameters under the reference's names to this .npz after --params_at steps.")
flags.DEFINE_integer("params_at", None, "Number of finished steps after which --params_out is written.")
