"""The work of launch.import_openai."""

from pathlib import Path

from absl import flags

from sparse_gpt.interop.workdirs import import_openai
from sparse_gpt.parameters import parameter_table
from sparse_gpt.training import manifest

from .. import cli


def main() -> None:
    """Imports and prints what was found."""
    given = flags.FLAGS.tokenizer
    source = Path(flags.FLAGS.source).expanduser()
    model = import_openai(source, cli.workdir(), Path(given).expanduser() if given else None, say=print)
    kept = (manifest.read(cli.workdir()).nonzeros or {}).values()
    total = sum(spec.size for spec in parameter_table(model.config.model).values())
    m = model.config.model
    print(f"{m.n_layer} layers of width {m.d_model}, vocabulary {m.vocab_size}, context {m.context}")
    print(f"{total:,} parameters in {len(kept)} tensors, {sum(kept):,} of them nonzero -> {cli.workdir()}")
    for note in model.notes:
        print(f"note: {note}")
