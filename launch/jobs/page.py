"""The work of launch.page."""

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.page import build_page
from sparse_gpt.workdir import Workdir

from .. import stored


def main() -> None:
    """Builds the page of each task and prints where it is."""
    chosen = [
        [task for name in names.split("+") for task in tasks.select(name)] for names in flags.FLAGS.task.split(",")
    ]
    with stored.workdir() as folder:
        run = Workdir(folder)
        for members in chosen:
            path = build_page(run, members)
            print(f"{'+'.join(task.name for task in members)}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
