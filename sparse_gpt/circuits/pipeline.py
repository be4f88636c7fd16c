"""From a trained model and the samples of a task to its circuit.

Several tasks can share one mask: the search minimizes the mean of their losses, each of them has to reach the target,
one calibration serves all, and reported losses are means over the tasks (circuit.json has each task's own beside them).
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tqdm import tqdm

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence.baselines import Baselines, keep_baselines
from sparse_gpt.circuits.evidence.card.card import keep_card
from sparse_gpt.circuits.evidence.metrics import describe
from sparse_gpt.circuits.evidence.search_record import search_record
from sparse_gpt.circuits.evidence.traces import trace
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.search import populations
from sparse_gpt.circuits.search.minimize import keep_support, minimized
from sparse_gpt.circuits.search.select import Selected, select
from sparse_gpt.circuits.solved import require_each_solved
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.drawing.notebook import circuit_html
from sparse_gpt.records import Card, Contexts, Search, Traces


@dataclasses.dataclass(frozen=True)
class FoundCircuit:
    """What the pipeline ends with.

    Attributes:
        circuit: the smallest circuit at the target loss, or the best found when none reached it.
        reached: whether its loss on selection samples is at or below the target.
        search: how it was found, as in search.json.
        traces: what it does on a few prompts, as in traces.json; None when the model has no `token_text`.
        contexts: where its nodes are largest, as in contexts.json; None where there is no text to look at.
        card: what it is judged by, as in card.json; None where no card was asked for.
    """

    circuit: Circuit
    reached: bool
    search: Search
    traces: Traces | None
    contexts: Contexts | None = None
    card: Card | None = None

    def view(self, task: str = "") -> Any:
        """`Circuit.view` of the circuit."""
        return self.circuit.view(task)

    def _repr_html_(self) -> str:
        return circuit_html(self.circuit.record(), self.traces)

    def save(self, folder: str | Path) -> None:
        """Writes circuit.json, ablation.npz and whichever JSON files have content, each whole or not at all."""
        folder = Path(folder)
        self.circuit.save(folder)
        for record in (self.search, self.traces, self.contexts, self.card):
            if record is not None:
                record.write(folder / Path(record.FILE).name)


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
    stages = Stages(unfinished, problem.fingerprint)
    problem, searches, baselines, selected, candidate = search_stages(problem, stages, progress)
    search = search_record(problem, searches, baselines, selected, candidate, stages)
    problem = problem.within(candidate.support)
    circuit = describe(problem, candidate, search)
    circuit = dataclasses.replace(circuit, minimal=minimal_circuit(problem, candidate, stages, progress))
    search = msgspec.structs.replace(search, seconds=stages.seconds_before + time.perf_counter() - started)
    found = FoundCircuit(circuit, candidate.reached, search, trace(problem, circuit))
    return dataclasses.replace(found, card=keep_card(problem, circuit, stages, search_again, progress))


class Searched(NamedTuple):
    """What the stages up to the circuit have found; `problem` is evaluated faster than the one they were given, and
    selects on the samples that joined."""

    problem: Problem
    searches: populations.Searches
    baselines: Baselines
    selected: Selected
    candidate: Candidate


def search_stages(problem: Problem, stages: Stages | None = None, progress: bool = False) -> Searched:
    """Masks, sizes, minimality, calibration; whether the model can do the task is not asked."""
    stages = stages or Stages()
    problem = populations.within_start(problem, stages)
    searches = populations.search(problem, stages, progress)
    with tqdm(desc="refine", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
        baselines = keep_baselines(problem, stages)
        selected = select(problem, searches.trials, baselines.gates, stages, bar.set_postfix_str)
    problem = problem.selecting_on(selected.joined)
    return Searched(problem, searches, baselines, selected, problem.candidate(selected.support))


def minimal_circuit(problem: Problem, complete: Candidate, stages: Stages, progress: bool) -> Circuit | None:
    """The circuit inside a complete one that its main template family needs, on the paper's terms; None where one
    family was searched, or the complete one did not reach the target, there too, or was too large to be minimized.

    What the complete one has and the minimal one lacks is what the other families need, such as telling a finished
    string from an open one, and what it takes to be as loud, and as sure of every word, as the complete one must be.
    """
    support, family = complete.support, problem.samples.main_family
    too_large = support.size > problem.settings.refine_most
    if len(problem.samples.families) < 2 or not complete.reached or too_large:
        return None
    alone = problem.on_family(family).on_paper_terms()
    evaluator = alone.selection.within_support(support.gates)
    with tqdm(desc="minimal", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
        smallest = functools.partial(minimized, alone, support, evaluator, bar.set_postfix_str)
        found = alone.candidate(keep_support(f"minimal, {family}", support, smallest, stages))
    # On the mean of all families the complete circuit can be at the target, and on other samples of this one above it.
    return describe(alone, found) if found.reached else None


def search_again(problem: Problem) -> Candidate:
    """The circuit of a problem, for rows of the card that search again."""
    return search_stages(problem).candidate
