"""Bigram tables rounded before a model is stored: they are dense, and would be most of the file."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sparse_gpt import stored
from sparse_gpt.config import Config
from sparse_gpt.parameters import Params
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256, update


def copy_with_short_bigrams(folder: Path, config: Config, output: Path) -> Params:
    """Copies a workdir's model to a new folder, its bigram table rounded to the nearest bfloat16.

    Args:
      folder: the workdir.
      config: its configuration.
      output: receives what a stored model has, but no evaluation; its manifest names the fingerprint of the trained
        parameters, too.

    Returns:
      The rounded parameters.
    """
    params, step = load_params(folder, config.model)
    bigram = np.asarray(jnp.asarray(params["bigram"]).astype(jnp.bfloat16).astype(jnp.float32))
    rounded = {**params, "bigram": bigram}
    output.mkdir()
    for name in stored.FILES:
        if name != "evaluation.json" and (folder / name).is_file():
            shutil.copy(folder / name, output)
    shutil.copytree(folder / "tokenizer", output / "tokenizer")
    save_params(output, rounded, step)
    fingerprints = {"params_sha256": params_sha256(rounded), "trained_params_sha256": params_sha256(params)}
    update(output, fingerprints)
    return rounded
