"""card.json: the report card of a circuit, one row per criticism, with the losses of single samples behind it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta

from sparse_gpt.io import Tree
from sparse_gpt.records.base import Count, Nats, Part, Record, Seconds, older

Verdict = Annotated[
    str, Meta(pattern="^(pass|fail|not applicable)$", extra={"expected": "pass, fail or not applicable"})
]
Sense = Annotated[str, Meta(pattern="^at (most|least)$", extra={"expected": "at most or at least"})]
Role = Annotated[str, Meta(pattern="^(selection|heldout|wild)$", extra={"expected": "selection, heldout or wild"})]


class CardRow(Part):
    """One criticism, and what came of it."""

    name: str
    """Of the row; `python -m launch.card --rows=NAME` measures it again."""
    samples: str
    """The set of samples that it was measured on, one of those under `losses`."""
    role: Role
    """Of that set: a template family that the search saw (selection) or not (heldout), or natural text (wild)."""
    criticism: str
    """What a sceptic says, in one sentence."""
    measure: str = older("")
    """What the value is, with its unit."""
    value: float | None
    """What was measured; null where the row is not applicable."""
    interval: tuple[float, float] | None = None
    """95 % interval, samples clustered by their final free word."""
    clusters: Count = older(0)
    """How many words are behind the value; 0 where it is no mean over samples."""
    sense: Sense
    """Whether the value has to be at most or at least the threshold."""
    threshold: float
    """What passes, written down before it was measured."""
    end: float | None = None
    """What the far end of the interval must keep too."""
    reason: str = older("")
    """Why this threshold."""
    verdict: Verdict
    """pass, fail or not applicable."""
    note: str = older("")
    """Why it is not applicable, or what it has to be read with."""
    details: Tree = older({})
    """Further numbers; what is there depends on the row."""
    seconds: Seconds = older(0.0)
    """That it took, compiling included."""


class SampleLosses(Part):
    """Losses of every sample of one set, rounded: intervals can be computed again from them."""

    role: Role
    """As in the rows."""
    words: tuple[str, ...]
    """Final free word of each sample, its cluster."""
    circuit: tuple[Nats, ...]
    """Task losses of the circuit, calibrated."""
    model: tuple[Nats, ...]
    """Of the model."""


class Card(Record):
    """The report card of a circuit: every row with value, interval, threshold and verdict.

    docs/guides/judging_circuits.md says what each row would catch.
    """

    FILE: ClassVar[str] = "circuits/TASK/card.json"
    FORMAT: ClassVar[str] = "sparse_gpt.card/1"
    REMEDY: ClassVar[str] = "delete it or make it again, by python -m launch.card"

    task: str
    """Name of the circuit's task."""
    params_sha256: str = older("")
    """Fingerprint of the weights."""
    circuit_sha256: str = older("")
    """Fingerprint of the circuit: its nodes, edges, calibration and ablation."""
    samples_sha256: str = ""
    """Fingerprint of the file of prompt pairs that it was judged on; "" for a task of the suite, and in older files."""
    rows: tuple[CardRow, ...]
    """In the order of the card."""
    losses: dict[str, SampleLosses] = older({})
    """Set of samples -> losses."""
    seconds: Seconds = older(0.0)
    """That the last measurement took."""

    def failed(self) -> list[CardRow]:
        """Rows with the verdict fail."""
        return [row for row in self.rows if row.verdict == "fail"]

    def failed_unseen(self) -> list[CardRow]:
        """Of these, the ones measured where the circuit was not chosen: other templates, natural text."""
        return [row for row in self.failed() if row.role != "selection"]


def circuit_sha256(tree: Mapping[str, object]) -> str:
    """Fingerprint of the object in circuit.json, but for what was measured of it."""
    parts = [tree.get(name) for name in ("nodes", "edges", "calibration", "ablation", "norm")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
