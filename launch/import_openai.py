"""Makes a workdir of a model in the reference's format (beeg_config.json and final_model.pt), without PyTorch.

python -m launch.import_openai --source=csp_yolo1 --workdir=runs/csp_yolo1
"""

from pathlib import Path

import numpy as np
from absl import flags

from launch import cli
from sparse_gpt.interop.workdirs import import_openai
from sparse_gpt.model.parameters import flatten

cli.define_workdir()
flags.DEFINE_string("source", None, "Folder with beeg_config.json and final_model.pt.")
flags.DEFINE_string("tokenizer", None, "Folder with encoder.json and vocab.bpe, unless they are in --source.")
flags.mark_flag_as_required("source")


def main(argv: list[str]) -> None:
    """Imports and prints what was found."""
    del argv
    given = flags.FLAGS.tokenizer
    source = Path(flags.FLAGS.source).expanduser()
    model = import_openai(source, cli.workdir(), Path(given).expanduser() if given else None)
    sizes = [(leaf.size, int(np.count_nonzero(leaf))) for leaf in flatten(model.params).values()]
    total, kept = (sum(column) for column in zip(*sizes, strict=True))
    m = model.config.model
    print(
        f"{flags.FLAGS.source}: {m.n_layer} layers of width {m.d_model}, vocabulary {m.vocab_size}, context {m.context}"
    )
    print(f"{total:,} parameters, {kept:,} of them nonzero, in {len(sizes)} tensors -> {cli.workdir()}")
    for note in model.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    cli.run(main)
