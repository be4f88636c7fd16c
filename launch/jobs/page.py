"""The work of launch.page."""

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.errors import InputError
from sparse_gpt.page import build_gallery, build_site
from sparse_gpt.workdir import Workdir

from .. import stored


def main() -> None:
    """Builds the pages and prints where they are."""
    named, twin = flags.FLAGS.task, flags.FLAGS.twin
    chosen = tasks.select_circuits(named) if named else []
    if flags.FLAGS.gallery and twin:
        raise InputError("--twin goes with the page of all circuits, not with --gallery; leave one of them out")
    if chosen and twin:
        raise InputError("--twin goes with the page of all circuits; leave --task out")
    with stored.workdir() as folder:
        run, other = Workdir(folder), Workdir(twin) if twin else None
        if flags.FLAGS.gallery:
            path = build_gallery(run, chosen or tasks.every_circuit(folder))
            print(f"gallery: {path} ({path.stat().st_size / 1e6:.1f} MB)")
            return
        for line in build_site(run, chosen, other):
            print(line)
