"""The work of launch.store."""

import tempfile
from pathlib import Path

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer, as_prepared, corpus_folder, corpus_from_config
from sparse_gpt.data.files import sha256_file
from sparse_gpt.data.shards import MANIFEST
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.evaluation.heldout import heldout_rule
from sparse_gpt.stored.rounding import copy_with_short_bigrams
from sparse_gpt.training import manifest
from sparse_gpt.training.manifest import params_sha256


def main(folder: Path, output: Path) -> None:
    """Prepares the small corpus, stores, and prints the size."""
    locks.refuse_while_written(folder)
    config, tokenizer = configs.load(folder), folder / "tokenizer"
    few = {"data.tokens": flags.FLAGS.tokens, "data.tokenizer": str(tokenizer), "data.corpus": ""}
    data = configs.replace(_as_trained(folder, config), few).data
    entries = Tokenizer.load(tokenizer).vocab_size  # an imported model may have room for more
    with tempfile.TemporaryDirectory() as scratch:
        corpus_from_config(data, entries, Path(scratch) / "corpus", heldout_rule())
        if config.model.bigram:
            rounded = copy_with_short_bigrams(folder, config, Path(scratch) / "model")
            folder = Path(scratch) / "model"
            print(tasks_solved.write(folder, config, rounded, params_sha256(rounded)))
        stored.store(folder, output, Path(scratch) / "corpus")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; params_sha256 {stored.fingerprint(str(output))}")


def _as_trained(folder: Path, config: Config) -> Config:
    """The configuration with the sources of the corpus that the model was trained on. InputError where it names another
    corpus, or one that is gone: its own sources are then those of a preset, and may be of other texts."""
    corpus, trained = corpus_folder(folder, config), manifest.read(folder).corpus_sha256
    held = corpus / MANIFEST
    if not config.data.corpus:  # prepared in the workdir, by this configuration or by flags of launch.data
        return as_prepared(corpus, config) if held.is_file() else config
    if not held.is_file():
        problem = "no corpus there any more"
    elif trained not in (None, sha256_file(held)):
        problem = "not the corpus that the model was trained on"
    else:
        return as_prepared(corpus, config)
    raise InputError(
        f"{folder}: data.corpus={corpus}: {problem}, and the texts to store must be of its sources; run launch.train "
        "in this workdir with --config.data.corpus=FOLDER, the corpus's place now"
    )
