"""The work of launch.store."""

import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.data import corpus_from_config
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.evaluation.heldout import heldout_rule
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256, update


def main(folder: Path, output: Path) -> None:
    """Prepares the small corpus, stores, and prints the size."""
    locks.refuse_while_written(folder)
    config = configs.load(folder)
    few = {"data.tokens": flags.FLAGS.tokens, "data.tokenizer": str(folder / "tokenizer"), "data.corpus": ""}
    data = configs.replace(config, few).data
    with tempfile.TemporaryDirectory() as scratch:
        reject, rule = heldout_rule()
        corpus_from_config(data, config.model.vocab_size, Path(scratch) / "corpus", reject, rule)
        if config.model.bigram:
            folder = with_short_bigrams(folder, config, Path(scratch) / "model")
        stored.store(folder, output, Path(scratch) / "corpus")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; params_sha256 {stored.fingerprint(str(output))}")


def with_short_bigrams(folder: Path, config: configs.Config, output: Path) -> Path:
    """Copies a workdir's model to `output`, its bigram table rounded to the nearest bfloat16, and evaluates it."""
    params, step = load_params(folder, config.model)
    bigram = np.asarray(jnp.asarray(params["bigram"]).astype(jnp.bfloat16).astype(jnp.float32))
    rounded = {**params, "bigram": bigram}
    output.mkdir()
    for name in stored.FILES:
        if name != "evaluation.json" and (folder / name).is_file():
            shutil.copy(folder / name, output)
    shutil.copytree(folder / "tokenizer", output / "tokenizer")
    save_params(output, rounded, step)
    trained = params_sha256(params)
    found = update(output, {"params_sha256": params_sha256(rounded), "trained_params_sha256": trained})
    print(tasks_solved.write(output, config, rounded, found.params_sha256 or ""))
    return output
