"""The work of launch.export_openai."""

from pathlib import Path

from absl import flags

from sparse_gpt import locks
from sparse_gpt.interop.workdirs import export_openai


def main(folder: Path) -> None:
    """Exports and lists the files."""
    locks.refuse_while_written(folder)
    output = Path(flags.FLAGS.output).expanduser().absolute()
    export_openai(folder, output, flags.FLAGS.safetensors, say=print)
    for path in sorted(output.iterdir()):
        print(f"{path.stat().st_size:>15,}  {path}")
