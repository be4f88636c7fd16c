"""The work of launch.evaluate."""

from sparse_gpt.evaluation import tasks_solved
from sparse_gpt.records import Evaluation
from sparse_gpt.workdir import Workdir

from .. import stored


def main(families: bool) -> None:
    """Evaluates the model of the workdir, unless that is done for its weights, and prints what was found."""
    with stored.workdir() as folder:
        run = Workdir(folder)
        summary = tasks_solved.write(folder, run.config, run.params, run.params_sha256)
        path = folder / Evaluation.FILE
        found = Evaluation.read(path)
        if families:
            found = tasks_solved.with_families(found, run.config, run.params, run.tokenizer)
            found.write(path)
            print(tasks_solved.family_table(found), end="\n\n")
            print(tasks_solved.family_summary(found))
        print(summary)
