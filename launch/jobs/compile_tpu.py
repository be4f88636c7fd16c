"""The work of launch.compile_tpu."""

from absl import flags

from sparse_gpt.config import Config
from sparse_gpt.costs import chips, tpu
from sparse_gpt.io import write_json

from .. import cli


def main(config: Config, chip: chips.Chip) -> None:
    """Flags to one compile, a summary, and compile_tpu.json."""
    f = flags.FLAGS
    wanted = tpu.Wanted(f.program, f.topology, f.slices, f.searches, f.tokens, f.compare)
    result = {"preset": f.preset or "", **tpu.describe(config, chip, wanted)}
    print(tpu.summary(result))
    if f.workdir is not None:
        path = cli.workdir() / "compile_tpu.json"
        write_json(path, result)
        print(f"-> {path}")
    tpu.refuse_too_large(result, chip)
