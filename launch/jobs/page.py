"""The work of launch.page."""

from absl import flags

from sparse_gpt import tasks
from sparse_gpt.page import build_pages
from sparse_gpt.workdir import Workdir

from .. import stored


def main() -> None:
    """Builds the page of each circuit and prints where it is."""
    chosen = [
        [task for name in names.split("+") for task in tasks.select(name)] for names in flags.FLAGS.task.split(",")
    ]
    with stored.workdir() as folder:
        for path in build_pages(Workdir(folder), chosen):
            print(f"{path.parent.name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
