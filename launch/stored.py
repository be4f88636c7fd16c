"""--init_from for scripts that work on a finished model: a stored one becomes the workdir first."""

from pathlib import Path

from absl import flags

from launch import cli
from sparse_gpt import stored

flags.DEFINE_string(
    "init_from",
    None,
    f"Fill a new --workdir from a stored model: {', '.join(stored.names())}, or a file that launch.store wrote.",
)
flags.adopt_module_key_flags(cli)


def existing_workdir() -> Path:
    """The --workdir flag, holding a model: its own, or the one of --init_from. InputError if there is none."""
    if flags.FLAGS.init_from:
        stored.unpack(flags.FLAGS.init_from, cli.workdir())
    return cli.existing_workdir()
