"""--init_from for scripts that work on a finished model: a stored one becomes the workdir first."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from sparse_gpt.folders import Snapshot

from . import cli


def define_init_from() -> None:
    """--init_from."""
    names = ", ".join(cli.stored_names())
    cli.define_path(
        "init_from", f"Fill a new --workdir from a stored model: {names}, or a file that launch.store wrote."
    )


def existing_workdir(written: bool = False) -> Path:
    """The --workdir flag, holding a model: its own, or the one of --init_from. InputError if there is none, or if it is
    to be `written` to and cannot be."""
    _fill()
    return cli.existing_workdir(written)


@contextlib.contextmanager
def workdir() -> Iterator[Path]:
    """`existing_workdir` for scripts that write to it, which they hold until they end. One that --init_from has filled
    just now goes again if the body refuses its input."""
    before, filled = Snapshot(cli.workdir()), _fill()
    folder = cli.hold(cli.existing_workdir(written=True))
    with before.restore_if_refused(lambda: not filled):
        yield folder


def _fill() -> bool:
    """Unpacks what --init_from names; False if nothing had to be done."""
    if not flags.FLAGS.init_from:
        return False
    from sparse_gpt import stored

    return stored.unpack(flags.FLAGS.init_from, cli.new_workdir())
