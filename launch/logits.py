"""Logits, and node activations on request, of any trained or imported model on given tokens.

python -m launch.logits --workdir=runs/quickstart --tokens=tokens.npy --logits=logits.npy
python -m launch.logits --workdir=runs/yolo --tokens=tokens.npy --logits=logits.npy --activations=all --names=openai
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from launch import cli, stored
from sparse_gpt import config as configs
from sparse_gpt.errors import InputError
from sparse_gpt.interop import hooks, inference
from sparse_gpt.training.checkpoint import load_params

cli.define_workdir()
flags.DEFINE_string("tokens", None, "An .npy file of integer token ids, shape (sequences, time).")
flags.DEFINE_string("logits", None, "Where to write float32 logits (sequences, time, vocabulary), an .npy file.")
flags.DEFINE_list("activations", [], "Activations to write too: sites (attn_in, ...), LAYER.SITE, hook names, or all.")
flags.DEFINE_string("activations_out", None, "Where to write them, an .npz file (default: beside --logits).")
flags.DEFINE_enum("names", "sparse_gpt", ["sparse_gpt", "openai"], "Names in the .npz: ours or the reference's hooks.")
flags.DEFINE_integer("batch_size", 32, "Sequences per forward pass.", lower_bound=1)
flags.mark_flags_as_required(["tokens", "logits"])


def main(argv: list[str]) -> None:
    """Checks everything, runs the model, and puts the files in place when all are complete."""
    del argv
    workdir = stored.existing_workdir()
    config = configs.replace(configs.load(workdir), {"train.dtype": "float32"})
    places = hooks.select(config.model, flags.FLAGS.activations)
    tokens = inference.read_tokens(flags.FLAGS.tokens, config.model)
    logits_path = _output("logits", flags.FLAGS.logits)
    beside = logits_path.with_name(f"{logits_path.stem}.activations.npz")
    activations_path = _output("activations_out", flags.FLAGS.activations_out or str(beside)) if places else None
    params, step = load_params(workdir, config.model)
    with tqdm(total=len(tokens), unit="sequence", desc="logits", disable=len(tokens) <= flags.FLAGS.batch_size) as bar:
        inference.write_files(
            config,
            params,
            tokens,
            logits_path,
            activations_path,
            places,
            openai_names=flags.FLAGS.names == "openai",
            batch_size=flags.FLAGS.batch_size,
            done=bar.update,
        )
    shape = (*tokens.shape, config.model.vocab_size)
    print(f"logits {shape} float32 of the model at step {step} -> {logits_path}")
    if activations_path is not None:
        print(f"{len(places)} activations -> {activations_path}")


def _output(flag: str, value: str) -> Path:
    """The path of an output file whose folder exists."""
    path = Path(value).expanduser().absolute()
    if not path.parent.is_dir():
        raise InputError(f"--{flag}={value}: folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"--{flag}={value}: is a folder; name a file in it")
    return path


if __name__ == "__main__":
    cli.run(main)
