"""Logits, and node activations on request, of any trained or imported model on given tokens.

python -m launch.logits --workdir=runs/quickstart --tokens=tokens.npy --logits=logits.npy
python -m launch.logits --workdir=runs/yolo --tokens=tokens.npy --logits=logits.npy --activations=all --names=openai
"""

import os
from pathlib import Path

from absl import flags

from sparse_gpt import paths
from sparse_gpt.errors import InputError

from . import cli, stored


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    cli.define_path("tokens", "An .npy file of integer token ids, shape (sequences, time).", required=True)
    cli.define_path(
        "logits", "Where to write float32 logits (sequences, time, vocabulary), an .npy file.", required=True
    )
    flags.DEFINE_list(
        "activations", [], "Activations to write too: sites (attn_in, ...), LAYER.SITE, hook names, or all."
    )
    cli.define_path("activations_out", "Where to write them, an .npz file (default: beside --logits).")
    flags.DEFINE_enum(
        "names", "sparse_gpt", ["sparse_gpt", "openai"], "Names in the .npz: ours or the reference's hooks."
    )
    flags.DEFINE_integer("batch_size", 32, "Sequences per forward pass.", lower_bound=1)


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    logits = paths.output_file("logits", flags.FLAGS.logits)
    beside = logits.with_name(f"{logits.stem}.activations.npz")
    activations = paths.output_file("activations_out", flags.FLAGS.activations_out or str(beside))
    wanted = flags.FLAGS.activations or flags.FLAGS.activations_out
    _refuse_one_file_twice({"logits": logits, **({"activations_out": activations} if wanted else {})})
    from .jobs import logits as job

    job.main(logits, activations)


def _refuse_one_file_twice(outputs: dict[str, Path]) -> None:
    """InputError if an output is also read, or written twice: one of the two would be lost."""
    read = {"--tokens": flags.FLAGS.tokens, "--init_from": flags.FLAGS.init_from}
    taken = {Path(os.path.realpath(Path(path).expanduser())): flag for flag, path in read.items() if path}
    taken |= {Path(os.path.realpath(cli.workdir() / name)): "--workdir" for name in ("config.json", "checkpoints")}
    for name, path in outputs.items():
        place = Path(os.path.realpath(path))
        if other := next((taken[each] for each in (place, *place.parents) if each in taken), ""):
            raise InputError(f"--{name}={path}: is a file of {other} too; name another file")
        taken[place] = f"--{name}"


if __name__ == "__main__":
    cli.run(define_flags, main)
