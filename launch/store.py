"""Writes a workdir's model into one small file that --init_from of other scripts takes.

python -m launch.store --workdir=runs/laptop --output=laptop.zip
"""

import tempfile
from pathlib import Path

from absl import flags

from launch import cli
from launch.heldout import heldout_rule
from sparse_gpt import config as configs
from sparse_gpt import stored
from sparse_gpt.data import corpus_from_config

cli.define_workdir()
flags.DEFINE_string("output", None, "The file to write, ending in .zip.")
flags.DEFINE_integer("tokens", 400_000, "Tokens of the same sources to store beside it.", lower_bound=1)
flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
    """Prepares the small corpus, stores, and prints the size."""
    del argv
    folder, output = cli.existing_workdir(), Path(flags.FLAGS.output).expanduser()
    config = configs.load(folder)
    few = {"data.tokens": flags.FLAGS.tokens, "data.tokenizer": str(folder / "tokenizer"), "data.corpus": ""}
    data = configs.replace(config, few).data
    with tempfile.TemporaryDirectory() as scratch:
        reject, rule = heldout_rule()
        corpus_from_config(data, config.model.vocab_size, Path(scratch) / "corpus", reject, rule)
        stored.store(folder, output, Path(scratch) / "corpus")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; params_sha256 {stored.fingerprint(str(output))}")


if __name__ == "__main__":
    cli.run(main)
