"""Writes a circuit for other programs: CSV, GraphML, an attribution graph (circuit-tracer, Neuronpedia), SVG.

python -m launch.export --workdir=runs/quickstart --task=single_double_quote --output=exported
"""

import sys
from pathlib import Path

from absl import flags

from sparse_gpt import paths
from sparse_gpt.errors import InputError

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string("task", None, "Name of a folder in WORKDIR/circuits.", required=True)
    cli.define_path("output", "New folder for the exported files.", required=True)


def main() -> None:
    """Reads the circuit's files and writes the others; needs no JAX."""
    from sparse_gpt.exports import export_circuit
    from sparse_gpt.records import read_workdir

    run = read_workdir(cli.existing_workdir())
    output = paths.writable_folder("output", Path(flags.FLAGS.output).expanduser().absolute())
    found = {files.folder.name: files for files in run.circuits}
    if flags.FLAGS.task not in found:
        known = ", ".join(found) or "none; python -m launch.prune finds some"
        raise InputError(f"--task={flags.FLAGS.task}: no such circuit; there are: {known}")
    files = found[flags.FLAGS.task]
    if files.labels_problem:
        print(files.labels_problem, file=sys.stderr)
    for path in export_circuit(files, run.settings.model.d_head or 0, run.folder.resolve().name, output):
        print(f"{path.stat().st_size:>12,}  {path}")
    if files.traces is None:
        print("  no traces.json, so no attribution graph; python -m launch.prune writes both")


if __name__ == "__main__":
    cli.run(define_flags, main)
