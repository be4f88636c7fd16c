"""Prepare a corpus, or look at one.

python -m launch.data --workdir=DIR [--preset=P] [--config.data.field=value …]   prepares DIR/corpus (or continues)
python -m launch.data --workdir=DIR --inspect                                    statistics and samples of it

--config.data.sources is a list, a config.json's array or here with commas, of KIND[=LOCATION][#COLUMN][:WEIGHT]:
  idioms                       generated programs
  pinned_source                Python files of packages in requirements.txt, the same on every machine
  python_source[=FOLDER;…]     the .py files of folders, else of the standard library and of installed packages
  text=PATTERN                 text files, local or in a bucket (gs://, s3://)
  jsonl=PATTERN, parquet=PATTERN   rows of files; the document stands in #COLUMN (text)
  hf=NAME[@CONFIG][?data_dir=…&revision=…&split=…]   a dataset of the Hugging Face hub
A location with a comma or # in it goes in quotes: text="a, b/*.txt":0.5

In the workdir of a model, and without --preset, it takes the model's configuration and tokenizer.
"""

from absl import flags

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    cli.define_config()
    flags.DEFINE_bool("inspect", False, "Show statistics and samples of the corpus instead of preparing one.")
    flags.DEFINE_integer("show", 3, "Number of samples that --inspect shows.", lower_bound=0)
    flags.DEFINE_enum("split", "train", ["train", "validation", "test"], "Split that --inspect takes samples of.")
    flags.DEFINE_bool("verify", False, "Hash every shard, also those found right before.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    cli.new_workdir()
    config = cli.any_config(("data",))
    from .jobs import data as job

    job.main(config)


if __name__ == "__main__":
    cli.run(define_flags, main)
