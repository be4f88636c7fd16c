"""The folder circuits/TASK as a whole: whether it holds what a search would find again, and putting a new one in place.

While a search runs, everything it keeps is in a folder of its own; what a reader finds under circuits/TASK is always
one search's files.
"""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt.circuits import circuit
from sparse_gpt.circuits.pipeline import FoundCircuit
from sparse_gpt.circuits.search.populations import STUDY
from sparse_gpt.config import PruneConfig
from sparse_gpt.errors import InputError
from sparse_gpt.records import Card, Contexts, Search, Traces


def is_complete(folder: Path, params_sha256: str, prune: PruneConfig, samples_sha256: str = "") -> bool:
    """Whether a folder has the circuit of these weights, found with these settings on these samples (of a file; "" for
    a task without one), and everything beside it."""
    try:
        circuit.load(folder, params_sha256)
        search = Search.read(folder / "search.json")
        held = searched_with(search)
    except (InputError, OSError):
        return False
    wanted = dataclasses.replace(prune, card=held.card), samples_sha256, params_sha256  # a card can be made afterwards
    same = (held, search.samples_sha256, search.params_sha256) == wanted
    return same and (folder / "traces.json").is_file()


def searched_with(search: Search) -> PruneConfig:
    """The `prune` group of a search; a field that is younger than its file has its default."""
    return configs.from_dict({"prune": search.hyperparameters}).prune


def load_found(folder: Path) -> FoundCircuit:
    """What `FoundCircuit.save` wrote. InputError if it is missing or broken."""
    search = Search.read(folder / "search.json")
    traces, contexts = Traces.read_if_any(folder / "traces.json"), Contexts.read_if_any(folder / "contexts.json")
    card = Card.read_if_any(folder / "card.json")
    return FoundCircuit(circuit.load(folder), bool(_reached(search)), search, traces, contexts, card)


def _reached(search: Search) -> bool | None:
    """Whether the target was reached; older files say it only of what the refinement started from."""
    if search.reached is not None:
        return search.reached
    starts = {f"trial {trial.trial}": trial.reached for trial in search.trials}
    starts |= {baseline.ranking: baseline.reached for baseline in search.baselines}
    return starts.get(search.refined_from, starts.get(f"trial {search.best_trial}"))


def finish(result: FoundCircuit, unfinished: Path, folder: Path) -> None:
    """Writes a result and its study, puts them in the place of `folder`, and removes what the search had kept.

    A stop at any moment leaves the old folder, the new one, or (between two renames) none; what the search had kept is
    there until the new one stands.
    """
    new, old = unfinished / "result", unfinished / "replaced"
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    result.save(new)
    if (unfinished / STUDY).is_file():
        shutil.copyfile(unfinished / STUDY, new / STUDY)
    if (folder / "labels.json").is_file():  # names that people gave: those of nodes that are still there go on
        shutil.copyfile(folder / "labels.json", new / "labels.json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(unfinished)
    with contextlib.suppress(OSError):  # searches of other tasks are there
        unfinished.parent.rmdir()
