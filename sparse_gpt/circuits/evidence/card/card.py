"""The card as a whole: every row that was asked for, with its verdict, and the losses behind it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence.card import adversary, again, closing, curve, fit, mechanism
from sparse_gpt.circuits.evidence.card.criteria import CRITERIA, Cost, Criterion
from sparse_gpt.circuits.evidence.card.subject import MAIN, Find, Measurement, Samples, Subject, losses, sample_sets
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.objective import LARGEST
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json
from sparse_gpt.records import Card
from sparse_gpt.records.card import CardRow, SampleLosses, Verdict

Row = Callable[[Subject, Samples], Measurement]
ROWS: Mapping[str, Row] = {
    "task_loss": fit.task_loss,
    "accuracy": fit.accuracy,
    "agreement": fit.agreement,
    "binary_kl": fit.binary_kl,
    "worst_word": fit.worst_word,
    "necessity": fit.necessity,
    "calibration_scale": fit.calibration_scale,
    "random_connected": closing.random_connected,
    "ablation_values": closing.ablation_values,
    "restoration": closing.restoration,
    "completeness": closing.completeness,
    "first_order": adversary.first_order,
    "adversary": adversary.adversary,
    "roles": mechanism.roles,
    "attention": mechanism.attention,
    "norms": mechanism.norms,
    "frozen_norms": mechanism.frozen_norms,
    "interchange": mechanism.interchange,
    "scrubbing": mechanism.scrubbing,
    "mib_cmd": curve.mib_cmd,
    "nonsense": again.nonsense,
    "permuted_weights": again.permuted_weights,
    "stability": again.stability,
}
DIGITS = 4  # significant ones, of losses and details in the file


def rows_of(*costs: Cost) -> tuple[str, ...]:
    """Names of the rows of some costs, in the order of the card."""
    return tuple(name for name in ROWS if CRITERIA[name].cost in costs)


def select_rows(names: Sequence[str]) -> tuple[str, ...]:
    """Rows by name. InputError for an unknown one."""
    for name in names:
        if name not in ROWS:
            raise InputError(f"--rows={name}: no such row; choose from {', '.join(ROWS)}")
    return tuple(name for name in ROWS if name in names)


def judge(
    problem: Problem,
    circuit: Circuit,
    rows: Sequence[str] = rows_of("cheap"),
    samples: Mapping[str, Samples] | None = None,
    *,
    find: Find | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Card:
    """The card of a circuit: each row on the samples that it is asked on.

    Args:
        problem: the circuit's model, with its task's samples and the circuit's own ablation values.
        circuit: to be judged; its support and calibration are those of the file.
        rows: their names, see `rows_of`.
        samples: by name, "main" among them; default: what `problem` has, see `subject.sample_sets`.
        find: the search, for rows that search again.
        report: takes a line about the progress.

    Returns:
        The record in card.json.

    Raises:
        InputError: an unknown row.
    """
    started = time.perf_counter()
    wanted = select_rows(rows)
    subject = Subject(problem, candidate_of(problem, circuit), samples or sample_sets(problem), find)
    found = []
    for name in wanted:
        sets = list(subject.samples.values()) if CRITERIA[name].every_set else [subject.samples[MAIN]]
        for each in sets:
            report(f"{name}, {each.name}" if len(sets) > 1 else name)
            found.append(_row(CRITERIA[name], subject, each))
    return Card(
        task=circuit.task,
        params_sha256=circuit.params_sha256,
        circuit_sha256=circuit.sha256,
        samples_sha256=problem.samples.sha256,
        rows=tuple(found),
        losses={name: _losses(subject, each) for name, each in subject.samples.items()},
        seconds=round(time.perf_counter() - started, 2),
    )


def keep_card(problem: Problem, circuit: Circuit, stages: Stages, find: Find, progress: bool) -> Card | None:
    """`judge` as a stage, with the rows that the settings ask for; None where they ask for none."""
    asked = problem.settings.card
    if asked == "none":
        return None
    names = rows_of("cheap") if asked == "cheap" else tuple(ROWS)

    def make() -> Card:
        with tqdm(desc="card", bar_format="{desc} [{elapsed}]{postfix}", disable=not progress) as bar:
            return judge(problem, circuit, names, find=find, report=bar.set_postfix_str)

    return stages.run_record("card", [asked, circuit.sha256], Card, make)


def read(path: Path) -> Card | None:
    """card.json; None where there is none, or one that cannot be read, which is to be made again."""
    try:
        return Card.read_if_any(path)
    except InputError as error:
        print(f"{error}: it is made again")
        return None


def merged(old: Card | None, new: Card) -> Card:
    """A card with those rows of an older one of the same circuit, on the same file's samples, that were not measured
    anew, in the order of rows."""

    def made_for(card: Card) -> tuple[str, str, str]:
        return card.circuit_sha256, card.params_sha256, card.samples_sha256

    if old is None or made_for(old) != made_for(new):
        return new
    known = {(row.name, row.samples): row for row in (*old.rows, *new.rows)}
    order = list(ROWS)
    rows = sorted(known.values(), key=lambda row: order.index(row.name) if row.name in order else len(order))
    return msgspec.structs.replace(new, rows=tuple(rows))


def candidate_of(problem: Problem, circuit: Circuit) -> Candidate:
    """A stored circuit as the pipeline's candidate."""
    gates = to_vector(circuit.gates(problem.graph.config))
    shift = dict(circuit.shift)
    tokens = problem.heldout.shift_tokens.tolist()
    calibration = Calibration(
        np.float32(circuit.scale), np.array([shift.get(int(token), 0.0) for token in tokens], np.float32)
    )
    return Candidate(
        Support(problem.graph, gates, circuit.edges if circuit.edge_pruned else None), calibration, reached=True
    )


def _row(criterion: Criterion, subject: Subject, samples: Samples) -> CardRow:
    started = time.perf_counter()
    found = ROWS[criterion.name](subject, samples)
    verdict: Verdict = "not applicable"
    if found.value is not None:
        verdict = "pass" if criterion.passes(found.value, found.interval) else "fail"
    return CardRow(
        name=criterion.name,
        samples=samples.name,
        role=samples.role,
        criticism=criterion.criticism,
        measure=criterion.measure,
        value=None if found.value is None else _finite(found.value),
        interval=None if found.interval is None else (_finite(found.interval[0]), _finite(found.interval[1])),
        clusters=found.clusters,
        sense=criterion.sense,
        threshold=criterion.threshold,
        end=criterion.end,
        reason=criterion.reason,
        verdict=verdict,
        note=found.note,
        details=_plain(found.details),
        seconds=round(time.perf_counter() - started, 2),
    )


def _losses(subject: Subject, samples: Samples) -> SampleLosses:
    rounded = [
        [_rounded(value) for value in losses(logits)] for logits in (subject.circuit(samples), subject.model(samples))
    ]
    return SampleLosses(
        role=samples.role, words=tuple(map(str, samples.words)), circuit=tuple(rounded[0]), model=tuple(rounded[1])
    )


def _plain(value: object) -> Json:
    """Plain values, numbers rounded and finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return _rounded(value) if isinstance(value, float) else value


def _rounded(value: float) -> float:
    return float(f"{_finite(value):.{DIGITS}g}")


def _finite(value: float) -> float:
    return float(np.nan_to_num(value, nan=LARGEST, posinf=LARGEST, neginf=-LARGEST))
