"""What every row of the card is a function of: a problem, a circuit in it, and the samples it is judged on."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from sparse_gpt.circuits.evidence.card import words
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.samples import TaskSamples
from sparse_gpt.circuits.run.statistics import Estimate
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_length, few, rows
from sparse_gpt.io import Json, Tree

Role = Literal["selection", "heldout", "wild"]
SHIFTED = "elsewhere"  # the family that has the templates of the shifted variant
MAIN = "main"  # the set that rows about the inside of a circuit are measured on

Find = Callable[[Problem], Candidate]
"""The search that found the circuit, to be run again on another problem."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """One set of samples with words that took no part in the search.

    Attributes:
        name: of the template family, or "main", "shifted".
        role: "selection" when the search saw this family, "heldout" when it did not, "wild" for natural text.
        evaluator: of B samples; rows 2 i and 2 i + 1 are a pair.
        words: (B,) the cluster of each sample.
    """

    name: str
    role: Role
    evaluator: Evaluator
    words: np.ndarray


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a row has found.

    Attributes:
        value: None where the row does not apply.
        interval: 95 %, see statistics.py; None where there is none.
        clusters: how many words are behind it; 0 where the value is no mean over samples.
        details: further numbers, plain values.
        note: one sentence; why the row does not apply, or what it has to be read with.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    clusters: int = 0
    details: Tree = dataclasses.field(default_factory=dict)
    note: str = ""


def measured(estimate: Estimate, note: str = "", **details: Json) -> Measurement:
    """A mean over samples as a row's finding."""
    return Measurement(*estimate, details, note)


def not_applicable(reason: str) -> Measurement:
    """A row that cannot be asked of this circuit."""
    return Measurement(None, note=reason)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A circuit on trial. Logits that several rows need are computed once.

    Attributes:
        problem: the model and the task.
        candidate: the circuit with its calibration.
        samples: by name, `MAIN` among them.
        find: the search, for rows that search again; None: they do not apply.
    """

    problem: Problem
    candidate: Candidate
    samples: Mapping[str, Samples]
    find: Find | None = None

    @property
    def seed(self) -> int:
        """Of everything that rows draw."""
        return self.problem.settings.seed

    @property
    def gates(self) -> np.ndarray:
        """(nodes,) 1 at the circuit's nodes."""
        return self.candidate.support.gates

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (E,) of all weights between the circuit's nodes, and 1 where the circuit keeps one (at most E)."""
        support = self.candidate.support
        return support.places, support.kept

    def masks(self, gates: np.ndarray, kept: np.ndarray | None = None) -> Masks:
        """Masks with gates (N, nodes) and the circuit's own pruned edges, or other ones (N, edges). Further gates may
        fill a head; then it has all of its edges from v, since none of them can be pruned."""
        places, own = self.edges
        return Masks(gates, places, np.repeat(own[None], len(gates), axis=0) if kept is None else kept)

    @functools.cached_property
    def circuit_masks(self) -> Masks:
        """The circuit as one mask."""
        return self.masks(self.gates[None])

    @functools.cached_property
    def _logits(self) -> dict[tuple[str, str], np.ndarray]:
        return {}

    def _cached(self, what: str, samples: Samples, make: Callable[[], np.ndarray]) -> np.ndarray:
        key = what, samples.name
        if key not in self._logits:
            self._logits[key] = make()
        return self._logits[key]

    def plain(self, samples: Samples) -> np.ndarray:
        """(B, 2) uncalibrated logits of the circuit."""
        return self._cached("circuit", samples, lambda: samples.evaluator.logits(self.circuit_masks)[0])

    def circuit(self, samples: Samples) -> np.ndarray:
        """(B, 2) calibrated logits of the circuit."""
        return self.calibrated(self.plain(samples), samples)

    def model(self, samples: Samples) -> np.ndarray:
        """(B, 2) logits of the whole model."""
        return self._cached("model", samples, samples.evaluator.full_logits)

    def ablated(self, samples: Samples) -> np.ndarray:
        """(B, 2) logits of the model with the circuit's nodes ablated."""
        without = Masks(1 - self.gates[None])
        return self._cached("ablated", samples, lambda: samples.evaluator.logits(without)[0])

    def calibrated(self, logits: np.ndarray, samples: Samples) -> np.ndarray:
        """Logits (..., B, 2) under the circuit's calibration."""
        return calibrate(logits, self.candidate.calibration, samples.evaluator.index)


def sample_sets(problem: Problem) -> dict[str, Samples]:
    """The held-out samples of a problem by name: "main" (all that was searched), single template families, "shifted"
    where the task has that variant, and natural "text"."""
    samples, heldout = problem.samples, problem.heldout
    labels = _labels(problem)

    def of(name: str, role: Role, batch: TaskBatch, natural: bool = False) -> Samples:
        return Samples(name, role, problem.on_heldout(batch), labels(batch, np.full(len(batch.positions), natural)))

    found = [Samples(MAIN, "selection", heldout, labels(heldout.batch, _of_text(heldout.batch, samples)))]
    if len(samples.families) > 1:
        for name, family in samples.families.items():
            found.append(of(f"family {name}", "selection", by_length(family.heldout), name == samples.natural))
    if (shifted := problem.shifted) is not None:
        found.append(of("shifted", "selection" if SHIFTED in samples.families else "heldout", shifted.batch))
    for name, batch in {**samples.others, **samples.novel}.items():
        found.append(of(f"family {name}", "heldout", by_length(batch)))
    sets = {each.name: each for each in found}
    if samples.wild is not None:  # each its own cluster
        each = np.arange(len(samples.wild.positions)).astype(str)
        sets["text"] = Samples("text", "wild", problem.on_heldout(samples.wild), each)
    return sets


def _labels(problem: Problem) -> Callable[[TaskBatch, np.ndarray], np.ndarray]:
    """What gives the clusters of held-out samples, of which a mask (B,) says where they are natural text."""
    token_text, samples = problem.model.token_text, problem.samples
    seen = set[str]() if token_text is None else words.vocabulary(samples.train, token_text)

    def of(batch: TaskBatch, natural: np.ndarray) -> np.ndarray:
        free = frozenset[str]()
        if token_text is not None:
            free = words.free_words(rows(batch, ~natural), seen, token_text, samples.free_words)
        found = words.clusters(batch, free, token_text)
        return np.where(natural, words.distinct_pairs(batch), found) if natural.any() else found

    return of


def _of_text(batch: TaskBatch, samples: TaskSamples) -> np.ndarray:
    """(B,) whether a sample is of the natural text that the search had as one more family."""
    if batch.task is None or samples.natural not in samples.families:
        return np.zeros(len(batch.positions), bool)
    return np.asarray(batch.task) == samples.parts.index(samples.natural)


def losses(logits: np.ndarray) -> np.ndarray:
    """(..., B) task losses in nats of logits (..., B, 2)."""
    return np.logaddexp(0.0, (logits[..., 1] - logits[..., 0]).astype(np.float64))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(..., B) what answer has of the two, from logits (..., B, 2)."""
    return np.exp(-losses(logits))


def contrasts(logits: np.ndarray) -> np.ndarray:
    """(..., B/2) mean of the two margins of each pair. A constant preference for either answer cancels in it."""
    margins = logits[..., 0] - logits[..., 1]
    return (margins[..., 0::2] + margins[..., 1::2]) / 2


def fewer(samples: Samples) -> tuple[Samples, np.ndarray]:
    """The `few` of a set, for rows that run many masks; and which of its rows they are."""
    index = few(samples.evaluator.batch, ROWS)
    evaluator = dataclasses.replace(samples.evaluator, batch=rows(samples.evaluator.batch, index))
    return dataclasses.replace(samples, evaluator=evaluator, words=samples.words[index]), index
