"""The folder circuits/TASK as a whole: whether it holds what a search would find again, and putting a new one in place.

While a search runs, everything it keeps lies in a folder of its own; what a reader finds under circuits/TASK is always
one search's files.
"""

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

from sparse_gpt.circuits import circuit
from sparse_gpt.circuits.pipeline import FoundCircuit
from sparse_gpt.circuits.search.populations import STUDY
from sparse_gpt.config import PruneConfig
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json, read_json_if_any


def is_complete(folder: Path, params_sha256: str, prune: PruneConfig, samples_sha256: str = "") -> bool:
    """Whether a folder has the circuit of these weights, found with these settings on these samples (of a file; "" for
    a task without one), and everything beside it."""
    try:
        circuit.load(folder, params_sha256)
        search = read_json(folder / "search.json")
        found = PruneConfig(**search["hyperparameters"])  # a field that is younger than the file: its default
        same = dataclasses.replace(found, card=prune.card) == prune  # the card can be made afterwards
        same = same and search.get("samples_sha256", "") == samples_sha256
        return same and search["params_sha256"] == params_sha256 and (folder / "traces.json").is_file()
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return False


def load_found(folder: Path) -> FoundCircuit:
    """What `FoundCircuit.save` wrote. InputError if it is missing or broken."""
    search = read_json(folder / "search.json")
    traces, contexts, card = (
        read_json_if_any(folder / f"{name}.json") or None for name in ("traces", "contexts", "card")
    )
    starts = {f"trial {trial['trial']}": trial["reached"] for trial in search["trials"]}
    starts |= {baseline["ranking"]: baseline["reached"] for baseline in search.get("baselines", ())}
    start = search.get("refined_from", f"trial {search['best_trial']}")
    reached = search.get("reached", starts.get(start, False))  # older files do not say it
    return FoundCircuit(circuit.load(folder), reached, search, traces, contexts, card)


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
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(unfinished)
    with contextlib.suppress(OSError):  # searches of other tasks are there
        unfinished.parent.rmdir()
