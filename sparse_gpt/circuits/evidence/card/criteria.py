"""What a circuit is asked, and the thresholds. They were written down before any number of the card was seen; a change
is a change of this file, with its reason."""

import dataclasses
import math
from typing import Literal

TARGET = 0.15  # nats: the paper's target, and the most that counts as "does the task" here
CHANCE = math.log(2)

Cost = Literal["cheap", "slow", "search"]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One row of the card.

    Attributes:
        name: of the row.
        measure: what its value is, with its unit.
        criticism: what a sceptic says, in one sentence.
        sense: whether the value has to be "at most" or "at least" the threshold.
        threshold: what passes.
        reason: why this threshold.
        cost: "cheap" rows take seconds, "slow" ones minutes, "search" ones search again.
        every_set: whether there is a row for each set of samples, or one for the main samples only.
        end: what the far end of the interval must keep, too; None: the value alone decides.
    """

    name: str
    measure: str
    criticism: str
    sense: Literal["at most", "at least"]
    threshold: float
    reason: str
    cost: Cost
    every_set: bool = False
    end: float | None = None

    def passes(self, value: float, interval: tuple[float, float] | None) -> bool:
        """Whether a value (and the end of its interval, where one is asked for and there is one) is good enough."""
        sign = 1 if self.sense == "at most" else -1
        far = None if interval is None or self.end is None else interval[1 if sign > 0 else 0]
        return sign * value <= sign * self.threshold and (far is None or sign * far <= sign * float(self.end or 0))


_FIT = (
    Criterion(
        "task_loss",
        "task loss, nats",
        "The circuit does the task only on the words and templates it was chosen on.",
        "at most",
        TARGET,
        "the paper's target; with the interval's end at 0.25, so that a mean over few words cannot pass by luck",
        "cheap",
        every_set=True,
        end=0.25,
    ),
    Criterion(
        "accuracy",
        "share of samples that are right",
        "A small loss can hide a class of prompts that is always wrong.",
        "at least",
        0.95,
        "one mistake in twenty; the models are right on nearly all",
        "cheap",
        every_set=True,
    ),
    Criterion(
        "agreement",
        "share of samples on which circuit and model choose alike",
        "The circuit chooses something else than the model does.",
        "at least",
        0.9,
        "as for natural text, where the model itself is not always right",
        "cheap",
        every_set=True,
    ),
    Criterion(
        "binary_kl",
        "divergence of the two-way answer from the model's, nats",
        "The circuit is right, but with another confidence than the model.",
        "at most",
        TARGET,
        "nats by which it may fall short of the model's own two-way answer: as much as of the truth",
        "cheap",
        every_set=True,
    ),
    Criterion(
        "worst_word",
        "task loss on the worst word, nats",
        "The mean hides words on which the circuit fails.",
        "at most",
        CHANCE,
        "ln 2: on no word may it be worse than a coin",
        "cheap",
        every_set=True,
    ),
    Criterion(
        "necessity",
        "task loss of the model without the circuit, nats",
        "The model does the task without the circuit, too.",
        "at least",
        0.69,
        "chance (ln 2), rounded down: with the circuit ablated, nothing of the task may be left",
        "cheap",
        every_set=True,
    ),
    Criterion(
        "calibration_scale",
        "factor of the logits",
        "The circuit's own answer is faint; the calibration makes it loud.",
        "at most",
        6.0,
        "a wrong margin grows as much as a right one; bound at 16, where a separable fit has no optimum of its own",
        "cheap",
    ),
)

_CLOSING = (
    Criterion(
        "random_connected",
        "rank among random connected circuits",
        "Any connected piece of the model of this size does as well, once it is calibrated.",
        "at most",
        0.05,
        "rank among 24 random connected circuits, each calibrated on the very samples it is judged on",
        "cheap",
    ),
    Criterion(
        "ablation_values",
        "task loss at the worst other value, nats",
        "It works with one constant for closed nodes and with no other.",
        "at most",
        0.5,
        "nats at the worst of zero, task mean, and values drawn per sample: clearly better than chance, 0.69",
        "cheap",
    ),
    Criterion(
        "restoration",
        "task loss at the worst restored share, nats",
        "It works only while the rest of the model is silent.",
        "at most",
        2 * TARGET,
        "nats at the worst share of closed nodes and edges restored at random: twice the target",
        "cheap",
    ),
    Criterion(
        "completeness",
        "mean difference of probabilities",
        "Part of the mechanism is outside: break the circuit and it fails where the model does not, or the reverse.",
        "at most",
        0.25,
        "mean difference of the answer's probability, circuit without K against model without K: half of what lies "
        "between certain and a coin",
        "slow",
    ),
    Criterion(
        "first_order",
        "share of pairs that are right",
        "A few closed nodes, opened, undo it.",
        "at least",
        0.9,
        "pairs still right with the 3, 10 or 30 nodes open (the worst) that lower the contrast most to first order",
        "slow",
    ),
    Criterion(
        "adversary",
        "share of pairs that are right",
        "Some way of leaving the rest of the model on undoes it.",
        "at least",
        0.9,
        "pairs still right under the worst mask found; contrasts of pairs, so that no constant bias can win",
        "slow",
    ),
)

_INSIDE = (
    Criterion(
        "roles",
        "share of nodes with the same role",
        "Its nodes do something else in the circuit than in the model.",
        "at least",
        0.9,
        "share of its nodes whose activations in circuit and model correlate above 0.9",
        "cheap",
    ),
    Criterion(
        "attention",
        "total variation, worst head",
        "Its heads look elsewhere once their other channels are closed, or evenly at everything.",
        "at most",
        0.5,
        "total variation of the worst head with a node: half of its attention has moved",
        "cheap",
    ),
    Criterion(
        "norms",
        "factor of an RMS, worst norm",
        "Ablation shrinks the stream, and the norms blow up what is left.",
        "at most",
        2.0,
        "factor, either way, between the RMS in circuit and model at 95 % of the positions where a norm has a say",
        "cheap",
    ),
    Criterion(
        "frozen_norms",
        "task loss under the model's norms, nats",
        "With the norms of the model it would not work.",
        "at most",
        2 * TARGET,
        "nats, calibrated anew, for the logits shrink as a whole",
        "cheap",
    ),
    Criterion(
        "interchange",
        "task loss after the worst exchange, nats",
        "Activations of the model do not work in the circuit, or the circuit's in the model.",
        "at most",
        2 * TARGET,
        "nats at the worst of all, half and one of its nodes, both ways",
        "cheap",
    ),
    Criterion(
        "scrubbing",
        "task loss at the worst site, nats",
        "What its nodes carry is more than which answer is right.",
        "at most",
        2 * TARGET,
        "nats at the worst site whose nodes take their values from other prompts with the same answer",
        "cheap",
    ),
    Criterion(
        "mib_cmd",
        "area between faithfulness and 1",
        "It was cut at one size; the ranking behind it is bad at all others.",
        "at most",
        0.25,
        "area between faithfulness and 1 over the share of edges (MIB's CMD; its better entries are below)",
        "slow",
    ),
)

_SEARCHES = (
    Criterion(
        "nonsense",
        "edges over those for nonsense",
        "The same search makes the model do anything at all, at this size.",
        "at most",
        1 / 3,
        "edges, divided by those of the smaller nonsense circuit, two orientations, same search and budget",
        "search",
    ),
    Criterion(
        "permuted_weights",
        "edges over those in permuted weights",
        "The same search finds such a circuit in a model that knows nothing.",
        "at most",
        1 / 3,
        "edges, divided by those in the model with its weights permuted within each matrix",
        "search",
    ),
    Criterion(
        "stability",
        "share of nodes found again",
        "Other samples give another circuit.",
        "at least",
        0.5,
        "mean share of its nodes that searches on halves of the samples find again",
        "search",
    ),
)

CRITERIA = {criterion.name: criterion for criterion in (*_FIT, *_CLOSING, *_INSIDE, *_SEARCHES)}
