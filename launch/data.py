"""Prepare a corpus, or look at one.

python -m launch.data --workdir=DIR [--preset=P] [--config.data.field=value …]   prepares DIR/corpus (or continues)
python -m launch.data --workdir=DIR --inspect                                    statistics and samples of it
"""

import time

from absl import flags

from launch import cli
from launch.heldout import heldout_rule
from sparse_gpt.data import Corpus, corpus_from_config
from sparse_gpt.data.inspection import construct_table, samples, summary
from sparse_gpt.errors import InputError

cli.define_workdir()
cli.define_config()
INSPECT = flags.DEFINE_bool("inspect", False, "Show statistics and samples of the corpus instead of preparing one.")
SHOW = flags.DEFINE_integer("show", 3, "Number of samples that --inspect shows.", lower_bound=0)
SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation", "test"], "Split that --inspect takes samples of.")
VERIFY = flags.DEFINE_bool("verify", False, "Hash every shard, also those found right before.")


def main(argv: list[str]) -> None:
    """Flags to calls; everything it does is in sparse_gpt.data."""
    del argv
    config = cli.new_config()
    folder = cli.workdir() / "corpus"
    if INSPECT.value:
        corpus = Corpus.open(config.data.corpus or folder, verify="full" if VERIFY.value else "auto")
        print(summary(corpus))
        print(construct_table(corpus))
        for sample in samples(corpus, SPLIT.value, SHOW.value, config.model.context, config.data.seed):
            print(sample)
        return
    if config.data.corpus:
        raise InputError(f"--config.data.corpus={config.data.corpus}: names a prepared corpus; add --inspect to see it")
    started = time.monotonic()
    reject, rule = heldout_rule()
    corpus = corpus_from_config(config.data, config.model.vocab_size, folder, reject, rule)
    if VERIFY.value:
        Corpus.open(folder, verify="full")
    print(summary(corpus))
    print(f"{folder}: ready after {time.monotonic() - started:.1f} s; SHA-256 of its manifest {corpus.sha256}")


if __name__ == "__main__":
    cli.run(main)
