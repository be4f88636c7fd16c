"""Bigram tables rounded before a model is stored: they are dense, and would be most of the file."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sparse_gpt import stored
from sparse_gpt.config import Config
from sparse_gpt.parameters import Leaf, Params
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import nonzeros, params_sha256, update

STEPS = 32  # of a bigram table per nat


def copy_with_short_bigrams(folder: Path, config: Config, output: Path) -> Params:
    """Copies a workdir's model to a new folder, its bigram table as `rounded` has it.

    Args:
      folder: the workdir.
      config: its configuration.
      output: receives what a stored model has, but no evaluation; its manifest names the fingerprint of the trained
        parameters, too.

    Returns:
      The rounded parameters.
    """
    params, step = load_params(folder, config.model)
    short = {**params, "bigram": rounded(params["bigram"])}
    output.mkdir()
    for name in stored.FILES:
        if name != "evaluation.json" and (folder / name).is_file():
            shutil.copy(folder / name, output)
    shutil.copytree(folder / "tokenizer", output / "tokenizer")
    save_params(output, short, step)
    fingerprints = {"params_sha256": params_sha256(short), "trained_params_sha256": params_sha256(params)}
    update(output, {**fingerprints, "nonzeros": nonzeros(short)})  # small entries of the table are zero now
    return short


def rounded(table: Leaf) -> np.ndarray:
    """The nearest multiples of 1/STEPS, in bfloat16 from eight nats on, where its steps are wider; no negative zeros.

    All of them are bfloat16 numbers, so a page can carry two bytes of each, and few of them are different.
    """
    exact = np.asarray(table, np.float64)  # the largest numbers of float32 times STEPS would be infinite
    multiples = np.rint(exact * STEPS) / STEPS + 0.0
    return np.asarray(jnp.asarray(multiples, jnp.float32).astype(jnp.bfloat16).astype(jnp.float32))
