"""Logits, and node activations on request, of any trained or imported model on given tokens.

python -m launch.logits --workdir=runs/quickstart --tokens=tokens.npy --logits=logits.npy
python -m launch.logits --workdir=runs/yolo --tokens=tokens.npy --logits=logits.npy --activations=all --names=openai
"""

from absl import flags

from sparse_gpt import paths

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
    logits = paths.output_file("logits", flags.FLAGS.logits, ".npy")
    beside = logits.with_name(f"{logits.stem}.activations.npz")
    activations = paths.output_file("activations_out", flags.FLAGS.activations_out or str(beside), ".npz")
    wanted = flags.FLAGS.activations or flags.FLAGS.activations_out
    written = {"logits": logits, **({"activations_out": activations} if wanted else {})}
    paths.refuse_one_file_twice(written, [(name, flags.FLAGS[name].value) for name in ("tokens", "init_from")])
    from .jobs import logits as job

    job.main(logits, activations)


if __name__ == "__main__":
    cli.run(define_flags, main)
