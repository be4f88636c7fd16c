"""Checks that a tokenizer can express the tasks, prints samples as a person reads them, and exports samples.

python -m launch.tasks --tokenizer=runs/quickstart/tokenizer --task=all --show=1
python -m launch.tasks --workdir=runs/quickstart --task=for_while,class_init --export=samples.jsonl --pairs=64
python -m launch.tasks --workdir=runs/quickstart --task=my/pairs.csv --show=4
python -m launch.tasks --workdir=runs/quickstart --task=for_while --show=2 --variant=broken

Without --show and --export it lists tasks and their template families. Novel families, which no search sees, have
held-out pairs alone; they are shown whatever --split says.

Exit code 2 if any chosen task cannot be expressed, after naming each of them; nothing is written then.
"""

from pathlib import Path

from absl import flags

from sparse_gpt import paths, tasks
from sparse_gpt.errors import InputError

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_path("tokenizer", "Folder of the tokenizer: tokenizer.json, or encoder.json and vocab.bpe.")
    cli.define_path("workdir", "Folder of a run, whose tokenizer is used (instead of --tokenizer).")
    flags.DEFINE_string("task", "all", "Task, file of own pairs (.jsonl, .csv), comma list of these, or all.")
    flags.DEFINE_integer("show", None, "Print this many pairs per task, token borders visible.", lower_bound=0)
    flags.DEFINE_enum("split", "train", tasks.SPLITS, "Split of the pairs shown.")
    flags.DEFINE_string("variant", "main", "Variant of the pairs shown: main, shifted, or a template family.")
    cli.define_path("export", "Write samples of every split and family to this .jsonl file, one JSON object a line.")
    flags.DEFINE_integer("pairs", 64, "Pairs per task, split, variant and family in --export.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the pairs shown and exported.")


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    chosen, folder, export = tasks.select(flags.FLAGS.task), _tokenizer_folder(), flags.FLAGS.export
    tasks.require_variant(chosen, flags.FLAGS.variant)
    target = paths.output_file("export", export, ".jsonl") if export else None
    if target is not None:
        paths.refuse_one_file_twice(
            {"export": target}, [("task", name.strip()) for name in flags.FLAGS.task.split(",")]
        )
    from .jobs import tasks as job

    job.main(chosen, folder, target)


def _tokenizer_folder() -> Path:
    given, workdir = flags.FLAGS.tokenizer, flags.FLAGS.workdir
    if bool(given) == bool(workdir):
        raise InputError(
            "give either --tokenizer=DIR, the folder of a tokenizer, or --workdir=DIR, the folder of a run"
        )
    return Path(given).expanduser() if given else cli.existing_workdir() / "tokenizer"


if __name__ == "__main__":
    cli.run(define_flags, main)
