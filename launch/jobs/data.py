"""The work of launch.data."""

import time
from pathlib import Path

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer, corpus_from_config
from sparse_gpt.data.inspection import construct_table, samples, summary
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.heldout import heldout_rule

from .. import cli


def main(config: Config) -> None:
    """Flags to calls; everything it does is in sparse_gpt.data."""
    f, folder = flags.FLAGS, cli.workdir() / "corpus"
    config = _with_tokenizer(config, cli.workdir())
    if f.inspect:
        corpus = Corpus.open(config.data.corpus or folder, verify="full" if f.verify else "auto")
        print(summary(corpus))
        print(construct_table(corpus))
        for sample in samples(corpus, f.split, f.show, config.model.context, config.data.seed):
            print(sample)
        return
    if config.data.corpus:
        raise InputError(f"--config.data.corpus={config.data.corpus}: names a prepared corpus; add --inspect to see it")
    cli.hold(cli.workdir())
    started = time.monotonic()
    corpus = corpus_from_config(config.data, config.model.vocab_size, folder, heldout_rule())
    if f.verify:
        Corpus.open(folder, verify="full")
    print(summary(corpus))
    print(f"{folder}: ready after {time.monotonic() - started:.1f} s; SHA-256 of its manifest {corpus.sha256}")


def _with_tokenizer(config: Config, workdir: Path) -> Config:
    """In the workdir of a model, its configuration with the tokenizer that is there."""
    tokenizer = workdir / "tokenizer"
    if flags.FLAGS.preset or config.data.tokenizer or not (workdir / "config.json").is_file() or not tokenizer.is_dir():
        return config
    entries = Tokenizer.load(tokenizer).vocab_size  # an imported model may have room for more
    return configs.replace(config, {"data.tokenizer": str(tokenizer), "model.vocab_size": entries})
