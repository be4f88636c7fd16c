"""From a trained model and the samples of a task to its circuit.

Several tasks can share one mask: the search minimises the mean of their losses, each of them has to reach the target,
one calibration serves all, and reported losses are means over the tasks (circuit.json has each task's own beside them).
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence import metrics
from sparse_gpt.circuits.evidence.baselines import Baselines, truncate_baselines
from sparse_gpt.circuits.evidence.search_record import search_record
from sparse_gpt.circuits.evidence.traces import traces
from sparse_gpt.circuits.problem import Problem, require_each_solved
from sparse_gpt.circuits.run.task_batch import rows
from sparse_gpt.circuits.search import populations
from sparse_gpt.circuits.search.select import calibrate, select
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.drawing.notebook import circuit_html
from sparse_gpt.io import write_json

TRACED_SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class FoundCircuit:
    """What the pipeline ends with.

    Attributes:
        circuit: the smallest circuit at the target loss, or the best found when none reached it.
        reached: whether its loss on selection samples is at or below the target.
        search: the contents of search.json.
        traces: the contents of traces.json; None when the model has no `token_text`.
        contexts: the contents of contexts.json; None where there is no text to look at.
    """

    circuit: Circuit
    reached: bool
    search: dict[str, Any]
    traces: dict[str, Any] | None
    contexts: dict[str, Any] | None = None

    def _repr_html_(self) -> str:
        return circuit_html(self.circuit.to_dict(), self.traces)

    def save(self, folder: str | Path) -> None:
        """Writes circuit.json, ablation.npz and whichever JSON files have content, each whole or not at all."""
        folder = Path(folder)
        self.circuit.save(folder)
        write_json(folder / "search.json", self.search)
        for name, content in (("traces", self.traces), ("contexts", self.contexts)):
            if content is not None:
                write_json(folder / f"{name}.json", content)


def find_circuit(problem: Problem, *, unfinished: Path | None = None, progress: bool = True) -> FoundCircuit:
    """Searches the circuit of a problem: masks, sizes, minimality, calibration, evidence.

    Args:
        problem: from `Problem.build`.
        unfinished: a folder that keeps finished stages until the circuit is found; those that are there, for the same
            weights and settings, are not run again.
        progress: whether to show bars.

    Raises:
        InputError: the model cannot do the task.

    Examples:
        >>> few = dict(steps=5, evaluation_pairs=16, random_draws=2, refine_most=1, target_loss=1.0)
        >>> problem = model.problem("single_double_quote", **few)
        >>> found = sg.find_circuit(problem, progress=False)
        >>> found.circuit.metrics["nodes"] == len(found.circuit.nodes)
        True
    """
    started = time.perf_counter()
    require_each_solved(problem)
    stages = Stages(unfinished, made_for(problem))
    searches = populations.search(problem, stages, progress)
    with tqdm(desc="refine", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
        baselines = Baselines(**stages.run("baselines", None, lambda: truncate_baselines(problem, stages)._asdict()))
        selected = select(problem, searches.trials, baselines.gates, stages, bar.set_postfix_str)
    candidate = calibrate(problem, selected.support)
    measured, by_task = metrics.measure(problem, candidate)
    search = search_record(problem, searches, baselines, selected, candidate, stages)
    circuit = metrics.describe(problem, candidate, measured | medians(search), by_task)
    search["seconds"] = time.perf_counter() - started
    return FoundCircuit(circuit, candidate.reached, search, trace(problem, circuit))


def made_for(problem: Problem) -> dict[str, Any]:
    """What every stage depends on."""
    sha256 = problem.samples.sha256
    samples = {"samples_sha256": sha256} if sha256 else {}
    return {"params_sha256": problem.model.params_sha256, **samples, **populations.depends_on(problem.settings)}


def medians(search: dict[str, Any]) -> metrics.Metrics:
    """What circuit.json repeats of the controls in search.json."""
    redrawn = search["redrawn_values"]
    found = {
        "random_circuit_task_loss": float(np.median(search["random_circuit"]["task_loss"])),
        "redrawn_values_task_loss": float(np.median(redrawn["task_loss"])),
        "redrawn_values_task_loss_calibrated": float(np.median(redrawn["task_loss_calibrated"])),
    }
    if "resampled" in search:
        found["resampled_task_loss"] = float(np.mean(search["resampled"]["task_loss"]))
    return found


def trace(problem: Problem, circuit: Circuit) -> dict[str, Any] | None:
    """The contents of traces.json, of the first held-out samples; None when the model has no `token_text`."""
    token_text = problem.model.token_text
    if token_text is None:
        return None
    some = rows(problem.samples.heldout, slice(TRACED_SAMPLES))
    return traces(problem.heldout.gated, circuit, some, "heldout", token_text)
