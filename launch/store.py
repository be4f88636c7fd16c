"""Writes a workdir's model into one small file that --init_from of other scripts takes.

python -m launch.store --workdir=runs/laptop --output=laptop.zip

A bigram table is dense and would be most of the file: it is stored to the nearest bfloat16. The stored model then has
a fingerprint and an evaluation of its own, and its manifest names the fingerprint of the trained one.
"""

import json
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags

from launch import cli, evaluation
from launch.heldout import heldout_rule
from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.data import corpus_from_config
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256, update

cli.define_workdir()
flags.DEFINE_string("output", None, "The file to write, ending in .zip.")
flags.DEFINE_integer("tokens", 400_000, "Tokens of the same sources to store beside it.", lower_bound=1)
flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
    """Prepares the small corpus, stores, and prints the size."""
    del argv
    folder, output = cli.existing_workdir(), Path(flags.FLAGS.output).expanduser()
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
    trained = json.loads((folder / "manifest.json").read_text())["params_sha256"]
    found = update(output, {"params_sha256": params_sha256(rounded), "trained_params_sha256": trained})
    print(evaluation.write(output, config, rounded, found["params_sha256"]))
    return output


if __name__ == "__main__":
    cli.run(main)
