"""Logits, and node activations on request, of any trained or imported model on given tokens.

python -m launch.logits --workdir=runs/quickstart --tokens=tokens.npy --logits=logits.npy
python -m launch.logits --workdir=runs/yolo --tokens=tokens.npy --logits=logits.npy --activations=all --names=openai
"""

from pathlib import Path

from absl import flags

from launch import cli, stored
from sparse_gpt.errors import InputError


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    stored.define_init_from()
    flags.DEFINE_string("tokens", None, "An .npy file of integer token ids, shape (sequences, time).")
    flags.DEFINE_string("logits", None, "Where to write float32 logits (sequences, time, vocabulary), an .npy file.")
    flags.DEFINE_list(
        "activations", [], "Activations to write too: sites (attn_in, ...), LAYER.SITE, hook names, or all."
    )
    flags.DEFINE_string("activations_out", None, "Where to write them, an .npz file (default: beside --logits).")
    flags.DEFINE_enum(
        "names", "sparse_gpt", ["sparse_gpt", "openai"], "Names in the .npz: ours or the reference's hooks."
    )
    flags.DEFINE_integer("batch_size", 32, "Sequences per forward pass.", lower_bound=1)
    flags.mark_flags_as_required(["tokens", "logits"])


def main() -> None:
    """Checks what can be checked at once, then does the work; importing it takes seconds, for it imports JAX."""
    logits = _output("logits", flags.FLAGS.logits)
    beside = logits.with_name(f"{logits.stem}.activations.npz")
    activations = _output("activations_out", flags.FLAGS.activations_out or str(beside))
    from launch.jobs import logits as job

    job.main(logits, activations)


def _output(flag: str, value: str) -> Path:
    """The path of an output file whose folder exists."""
    path = Path(value).expanduser().absolute()
    if not path.parent.is_dir():
        raise InputError(f"--{flag}={value}: folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"--{flag}={value}: is a folder; name a file in it")
    return path


if __name__ == "__main__":
    cli.run(define_flags, main)
