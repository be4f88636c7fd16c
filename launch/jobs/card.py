"""The work of launch.card."""

from absl import flags

from sparse_gpt.circuits.evidence.card.card import ROWS, rows_of, select_rows
from sparse_gpt.circuits.summary import describe_card
from sparse_gpt.errors import InputError
from sparse_gpt.evaluation.samples import searched_samples
from sparse_gpt.tasks import AnyTask, every_circuit
from sparse_gpt.workdir import Workdir

from .. import stored


def main(chosen: list[list[AnyTask]]) -> None:
    """Judges the circuit of each task, or of several that share one (all that are there, if none is `chosen`), prints
    its card and writes it."""
    rows = rows_asked()
    with stored.workdir() as folder:
        run = Workdir(folder)
        for members in chosen or every_circuit(folder):
            workdir, samples, place = searched_samples(run, members)
            card = workdir.judge_circuit(samples, rows)
            print("\n".join([f"{card.task}:", *describe_card(card), f"  -> {place / 'card.json'}"]))


def rows_asked() -> tuple[str, ...]:
    """What --rows and --full ask for. InputError for an unknown row, or for both."""
    names = [name.strip() for name in flags.FLAGS.rows if name.strip()]
    if names and flags.FLAGS.full:
        raise InputError(f"--rows={','.join(names)} --full: give one of them; --full is all rows")
    if names:
        return select_rows(names)
    return tuple(ROWS) if flags.FLAGS.full else rows_of("cheap", "slow")
