"""The work of launch.data."""

import time

from absl import flags

from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, corpus_from_config, with_tokenizer_of
from sparse_gpt.data.inspection import construct_table, samples, summary
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.heldout import heldout_rule

from .. import cli


def main(config: Config) -> None:
    """Flags to calls; everything it does is in sparse_gpt.data."""
    f, folder = flags.FLAGS, cli.workdir() / "corpus"
    if not f.preset:
        config = with_tokenizer_of(cli.workdir(), config)
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
