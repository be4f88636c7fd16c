"""The work of launch.tasks."""

import sys
from pathlib import Path

from absl import flags

from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.evaluation import listing
from sparse_gpt.tasks import AnyTask


def main(chosen: list[AnyTask], folder: Path, target: Path | None) -> None:
    """Checks the tasks against the tokenizer in `folder`, shows samples, and exports them to `target`."""
    f, tokenizer = flags.FLAGS, Tokenizer.load(folder)
    listing.require_all(chosen, tokenizer, folder)
    if f.show is None and target is None:
        for task in chosen:
            print(f"{task.name:28}{task.description}")
            print(f"{'':28}families {', '.join(task.families)}; novel {', '.join(task.novel) or 'none'}")
    for task in chosen if f.show else ():
        split = "heldout" if f.variant in task.novel else f.split
        pairs = task.pairs(split, f.show, f.seed, f.variant, tokenizer)
        print(listing.show(task, pairs, f"{split}, {f.variant}", tokenizer, sys.stdout.isatty()))
    if target:
        count = listing.write(target, listing.objects(chosen, tokenizer, f.pairs, f.seed))
        print(f"{target}: {count:,} samples of {len(chosen)} tasks")
