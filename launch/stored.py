"""--init_from for scripts that work on a finished model: a stored one becomes the workdir first."""

from pathlib import Path

from absl import flags

import sparse_gpt
from launch import cli


def define_init_from() -> None:
    """--init_from."""
    folder = Path(sparse_gpt.__file__).parent / "stored"  # not sparse_gpt.stored.names(), which imports JAX
    names = ", ".join(sorted(path.stem for path in folder.glob("*.zip")))
    flags.DEFINE_string(
        "init_from", None, f"Fill a new --workdir from a stored model: {names}, or a file that launch.store wrote."
    )


def existing_workdir() -> Path:
    """The --workdir flag, holding a model: its own, or the one of --init_from. InputError if there is none."""
    if flags.FLAGS.init_from:
        from sparse_gpt import stored

        stored.unpack(flags.FLAGS.init_from, cli.workdir())
    return cli.existing_workdir()
