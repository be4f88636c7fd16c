"""Writes a circuit for other programs: CSV, GraphML, an attribution graph (circuit-tracer, Neuronpedia), SVG.

python -m launch.export --workdir=runs/quickstart --task=single_double_quote --output=exported
"""

import sys
from pathlib import Path

from absl import flags

from sparse_gpt import paths
from sparse_gpt.errors import InputError
from sparse_gpt.tasks.rows import SUFFIXES

from . import cli


def define_flags() -> None:
    """The flags of this script."""
    cli.define_workdir()
    flags.DEFINE_string(
        "task", None, "Task or file of own pairs, TASK+TASK for a shared circuit: one circuit.", required=True
    )
    cli.define_path("output", "New folder for the exported files.", required=True)


def main() -> None:
    """Reads the circuit's files and writes the others; needs no JAX."""
    from sparse_gpt.exports import export_circuit, require_new
    from sparse_gpt.records import read_workdir

    named = [name for name in map(str.strip, flags.FLAGS.task.split(",")) if name]
    folder = cli.existing_workdir()
    output = paths.writable_folder("output", Path(flags.FLAGS.output).expanduser().absolute())
    require_new(output)
    run = read_workdir(folder)
    found = {files.folder.name: files for files in run.circuits}
    known = ", ".join(found) or "none; python -m launch.prune finds some"
    if len(named) != 1 or named == ["all"]:
        raise InputError(f"--task={flags.FLAGS.task}: name one circuit; run it once for each; there are: {known}")
    # That of a file is named after it; a folder whose own name ends like a file's comes first.
    shared = "+".join(map(_name, named[0].split("+")))
    files = next((found[name] for name in (named[0], _name(named[0]), shared) if name in found), None)
    if files is None:
        raise InputError(f"--task={flags.FLAGS.task}: no such circuit; there are: {known}")
    if files.labels_problem:
        print(files.labels_problem, file=sys.stderr)
    for path in export_circuit(files, run.settings.model.d_head or 0, run.folder.resolve().name, output):
        print(f"{path.stat().st_size:>12,}  {path}")
    if files.traces is None:
        print("  no traces.json, so no attribution graph; python -m launch.prune writes both")


def _name(task: str) -> str:
    """Name of a task that may be a file."""
    path = Path(task)
    return path.stem if path.suffix.lower() in SUFFIXES else task


if __name__ == "__main__":
    cli.run(define_flags, main)
