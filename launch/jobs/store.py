"""The work of launch.store."""

import tempfile
from pathlib import Path

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.data import corpus_from_config
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.evaluation.heldout import heldout_rule
from sparse_gpt.stored.rounding import copy_with_short_bigrams
from sparse_gpt.training.manifest import params_sha256


def main(folder: Path, output: Path) -> None:
    """Prepares the small corpus, stores, and prints the size."""
    locks.refuse_while_written(folder)
    config = configs.load(folder)
    few = {"data.tokens": flags.FLAGS.tokens, "data.tokenizer": str(folder / "tokenizer"), "data.corpus": ""}
    data = configs.replace(config, few).data
    with tempfile.TemporaryDirectory() as scratch:
        corpus_from_config(data, config.model.vocab_size, Path(scratch) / "corpus", heldout_rule())
        if config.model.bigram:
            rounded = copy_with_short_bigrams(folder, config, Path(scratch) / "model")
            folder = Path(scratch) / "model"
            print(tasks_solved.write(folder, config, rounded, params_sha256(rounded)))
        stored.store(folder, output, Path(scratch) / "corpus")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; params_sha256 {stored.fingerprint(str(output))}")
