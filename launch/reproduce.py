"""Runs a named experiment (or finishes it), prints expected against measured, and fails on a miss.

python -m launch.reproduce --list
python -m launch.reproduce --experiment=torture --workdir=runs/torture
python -m launch.reproduce --experiment=hashes --workdir=runs/hashes --page=docs/results/hashes.md
python -m launch.reproduce --experiment=necessity --workdir=runs/necessity --model=runs/quickstart --task=for_while
"""

from pathlib import Path

from absl import flags

from sparse_gpt import paths, tasks
from sparse_gpt.errors import InputError
from sparse_gpt.experiments.harness import Experiment
from sparse_gpt.experiments.registry import EXPERIMENTS
from sparse_gpt.experiments.results import check_page, settle

from . import cli

MISSED = 3  # exit code: everything ran, but a number is not what it should be


def define_flags() -> None:
    """The flags of this script."""
    cli.define_path("workdir", "Folder for the experiment's runs; what is finished there is not done again.")
    flags.DEFINE_string("experiment", None, "Which experiment; --list shows them.")
    cli.define_path("model", "A workdir or a stored model, for experiments on one (default: laptop).")
    flags.DEFINE_string(
        "task",
        None,
        "Tasks or files of own pairs, commas between, for experiments on one model (default: single_double_quote).",
    )
    cli.define_path("page", "Write expected against measured, and all tables, to this Markdown file (.md) as well.")
    flags.DEFINE_bool("list", False, "Show all experiments: what each proves and what it costs.")


def main() -> int:
    """Flags to one experiment and a table."""
    f = flags.FLAGS
    if f.list:
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:24}{experiment.cost:20}{experiment.proves}")
        return 0
    if f.experiment not in EXPERIMENTS:
        raise InputError(f"--experiment={f.experiment}: choose one of {', '.join(EXPERIMENTS)}")
    if not f.workdir:
        raise InputError("--workdir: missing; name a folder for the experiment's runs")
    subject = _subject(EXPERIMENTS[f.experiment])
    page = paths.output_file("page", f.page, ".md") if f.page else None
    if page is not None:
        check_page(page)  # before hours of work
    checks = EXPERIMENTS[f.experiment].run(cli.hold(cli.new_workdir()), *subject)
    given = "".join(f" --{name}={f[name].value}" for name in ("model", "task") if f[name].value is not None)
    command = f"python -m launch.reproduce --experiment={f.experiment} --workdir=DIR{given}"
    return 0 if settle(f.experiment, command, checks, cli.workdir(), page) else MISSED


def _subject(experiment: Experiment) -> tuple[str, list[tasks.AnyTask]] | tuple[()]:
    """--model and the tasks of --task, for experiments that take them. InputError if given to another."""
    f = flags.FLAGS
    if experiment.of_a_model:
        path, names = Path(f.model or "").expanduser(), cli.stored_names()
        if f.model and f.model not in names and not (path.is_dir() or path.is_file()):
            raise InputError(f"--model={f.model}: no workdir and no stored model; this package has {', '.join(names)}")
        return f.model or "laptop", tasks.select(f.task or "single_double_quote")
    for name in ("model", "task"):
        if f[name].value is not None:
            raise InputError(f"--{name}={f[name].value}: --experiment={f.experiment} takes none")
    return ()


if __name__ == "__main__":
    cli.run(define_flags, main)
