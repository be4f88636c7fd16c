"""The work of launch.logits."""

from pathlib import Path

from absl import flags

from sparse_gpt import config as configs
from sparse_gpt.interop import hooks, inference
from sparse_gpt.training.checkpoint import load_params

from .. import stored


def main(logits_path: Path, activations_path: Path) -> None:
    """Checks everything, runs the model, and puts the files in place when all are complete."""
    workdir = stored.existing_workdir()
    config = configs.replace(configs.load(workdir), {"train.dtype": "float32"})
    places = hooks.select(config.model, flags.FLAGS.activations)
    tokens = inference.read_tokens(flags.FLAGS.tokens, config.model)
    params, step = load_params(workdir, config.model)
    activations = inference.ActivationsFile(activations_path, places, openai_names=flags.FLAGS.names == "openai")
    inference.write_files(
        config, params, tokens, logits_path, activations if places else None, batch_size=flags.FLAGS.batch_size
    )
    shape = (*tokens.shape, config.model.vocab_size)
    print(f"logits {shape} float32 of the model at step {step} -> {logits_path}")
    if places:
        print(f"{len(places)} activations -> {activations_path}")
