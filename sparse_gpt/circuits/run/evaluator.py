"""Losses of many candidate circuits: a few compiled programs serve every number of masks and samples.

Masks are run PER_CALL at a time and samples in pieces of few sizes, so that shapes seldom change.
"""

import dataclasses
import hashlib
from typing import NamedTuple, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, Gates, empty, from_vector, to_vector
from sparse_gpt.circuits.run import packed_batch, programs
from sparse_gpt.circuits.run.calibration import MAX_SCALE, Calibration, calibrate, choice_index, fit, fit_many
from sparse_gpt.circuits.run.edge_ablation import weight_count
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.masks import AT_A_TIME, MaskedModel, Masks, WholeModel
from sparse_gpt.circuits.run.objective import LARGEST, bounded, largest_loss, losses, losses_by_task, task_loss
from sparse_gpt.circuits.run.packed_batch import PackedBatch, alike, packed, tokens_of
from sparse_gpt.circuits.run.subcircuits import Subcircuits, build_subcircuits
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_task_and_length, few, joined, rows, trimmed
from sparse_gpt.config import ModelConfig
from sparse_gpt.parameters import PyTree

ROWS = 128
TOKENS = 1024  # within a support, a multiple that the tokens of ROWS prompts are filled up to
LENGTH = 8  # within a support, a multiple that the longest of them is filled up to
WORTH_COMPILING = 2e11  # multiplications that trying each of a support's nodes takes; several seconds of two cores
FEW = 0.1  # share of all nodes up to which a support of its own runs faster than the whole model
UNFITTED = 1e-3  # nats that a calibration of few steps may be above the best one
NO_TOKENS = np.zeros(0, np.int32)  # for evaluations without a calibrated shift

# Of the model, the restricted model, the ablation set; SHA-256 of samples and mask.
Key = tuple[int, int, int, str]


class Piece(NamedTuple):
    """A part of a batch, and what runs masks on it."""

    model: MaskedModel
    batch: PackedBatch
    samples: int  # in it; what comes after them fills it up


@flax.struct.dataclass
class Scores:
    """Of N candidate circuits on one batch, each with the calibration that fits this batch best."""

    logits: np.ndarray  # (N, B, 2)
    calibration: Calibration  # scale (N,), shift (N, K)
    loss: np.ndarray  # (N,) calibrated task loss; of several, the largest (`objective.largest_loss`)


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates candidate circuits on one fixed batch.

    Attributes:
        gated: the model.
        batch: B samples.
        shift_tokens: (K,) tokens that calibration may shift.
        first_set: which of several sets of ablation values the first ROWS samples have; each further ROWS samples have
            the next set, cyclically.
        largest_scale: of calibrations.
        upper_share: of the upper end of a loss's interval that counts beside its mean, see `objective.losses_by_task`.
        allowance: nats by which each task's loss may be above whatever it has to reach, see `allowing`; losses here are
            less that. Empty: none.
        subcircuits: runs masks within one set of nodes, see `within_support`; None: the whole model runs all.
        room: within a support, tokens that ROWS prompts are filled up to, and the length that one prompt is: of the
            batch that it was made for, so that one program serves all of its pieces.
        known: logits of single masks that were evaluated before, here or by an evaluator made from this one.
    """

    gated: GatedModel
    batch: TaskBatch
    shift_tokens: np.ndarray
    first_set: int = 0
    largest_scale: float = MAX_SCALE
    upper_share: float = 0.0
    allowance: tuple[float, ...] = ()
    subcircuits: Subcircuits | None = None
    room: tuple[int, int] = (TOKENS, 1)
    known: dict[Key, tuple[np.ndarray, GatedModel, Subcircuits | None]] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    def within_support(self, gates: np.ndarray) -> "Evaluator":
        """The same evaluator, up to rounding; several times faster for masks without any node that is closed in
        `gates` (nodes,), where few are open, once its own programs are compiled.

        Returns `self` if (a) norms are frozen or there are several sets of ablation values, (b) it is limited to at
        most twice as many nodes already, (c) more than a share FEW of all nodes is open, or (d) compiling would take
        longer than it saves.
        """
        opened, config = int(np.sum(gates)), self.gated.model.config
        if self.gated.frozen or self.gated.draws is not None:
            return self
        if self.subcircuits is not None and opened > self.subcircuits.nodes / 2:
            return self
        if opened > FEW * self.nodes:
            return self
        if not self.worth_compiling(opened):
            return self
        within = build_subcircuits(self.gated, from_vector(gates, config))
        return dataclasses.replace(self, subcircuits=jax.tree.map(jnp.asarray, within), room=room_of(self.batch))

    def widened(self, gates: np.ndarray) -> "Evaluator":
        """The same evaluator, as fast for `gates` (nodes,) as for the support that it is limited to."""
        if self.subcircuits is None or self.subcircuits.holds(gates[None, :]).all():
            return self
        return dataclasses.replace(self, subcircuits=None).within_support(gates)

    def worth_compiling(self, opened: float) -> bool:
        """Whether programs for one support of so many nodes pay when each of its nodes is tried."""
        return bool(weight_count(self.gated.model.config) * self.batch.tokens.size * opened >= WORTH_COMPILING)

    def on_rows(self, index: slice | np.ndarray, first_set: int | None = None) -> Self:
        """The same on some of its samples, of which the first ROWS may be given a set of ablation values."""
        first = self.first_set if first_set is None else first_set
        return dataclasses.replace(self, batch=rows(self.batch, index), first_set=first)

    def on(self, batch: TaskBatch) -> Self:
        """The same on other samples."""
        room = max(self.room[0], room_of(batch)[0]), max(self.room[1], room_of(batch)[1])
        return dataclasses.replace(self, batch=batch, room=room)

    def and_on(self, batch: TaskBatch) -> Self:
        """The same on its samples and on others, padded alike, in the order of `task_batch.by_task_and_length`."""
        return self.on(by_task_and_length(joined([self.batch, batch])))

    def allowing(self, above_model: float, target: float) -> Self:
        """The same with an allowance: a task's loss may always be `above_model` nats above the model's own, which may
        be more than its target."""
        model = losses_by_task(self.full_logits(), self.batch, self.upper_share)
        allowed = [max(0.0, model.get(i, 0.0) + above_model - target) for i in range(1 + max(model))]
        return dataclasses.replace(self, allowance=tuple(allowed))

    def of(self, gated: GatedModel) -> "Evaluator":
        """The same of another model, or of other ablation values."""
        return dataclasses.replace(self, gated=gated, subcircuits=None, known={})

    def _model(self, ablation_set: int, gates: np.ndarray) -> MaskedModel:
        """The fastest that can run masks (N, nodes)."""
        within = self.subcircuits
        return within if within is not None and within.holds(gates).all() else self._whole(ablation_set)

    def _whole(self, ablation_set: int) -> WholeModel:
        """What gradients are taken of, even within a support: one program for all supports compiles once."""
        return WholeModel(self.gated.with_ablation_set(ablation_set))

    @property
    def index(self) -> np.ndarray:
        """`calibration.choice_index` of the batch."""
        return choice_index(self.batch, self.shift_tokens)

    @property
    def nodes(self) -> int:
        """Length of a gate vector."""
        return to_vector(empty(self.gated.model.config)).size

    def logits(self, masks: Masks) -> np.ndarray:
        """(N, B, 2) answer and foil logits, `bounded`."""
        if len(masks.gates) > 1:
            return self._logits(masks)
        # What was computed before is looked up under all that it depends on, the program too: it rounds in its own way.
        model = self._model(0, masks.gates)
        within = self.subcircuits if model is self.subcircuits else None
        arrays = trimmed(self.batch)._replace(task=None, foil_share=None), dataclasses.astuple(masks)
        key = id(self.gated), id(within), self.first_set, _sha256(arrays)
        if key not in self.known:
            self.known[key] = self._logits(masks), self.gated, within  # kept, so that no other has their ids
        return self.known[key][0].copy()

    def _logits(self, masks: Masks) -> np.ndarray:
        inside = np.ones(len(masks.gates), bool)
        if self.subcircuits is not None:
            inside = self.subcircuits.holds(masks.gates)
        if inside.any() and not inside.all():  # each in the fastest model that holds it
            logits = np.zeros((len(inside), len(self.batch.positions), 2), np.float32)
            logits[inside] = self._logits(masks.only(inside))
            logits[~inside] = self._logits(masks.only(~inside))
            return logits
        pieces = self._pieces(masks.gates)
        chunks = list(masks.chunks(self._config))
        calls = [
            (piece.model, gates, masks.places, kept, piece.batch, np.int32(count))
            for gates, kept, count in chunks
            for piece in pieces
        ]
        parts = iter(programs.side_by_side(calls))
        found = [
            np.concatenate([next(parts)[:count, : piece.samples] for piece in pieces], axis=1) for _, _, count in chunks
        ]
        return bounded(np.concatenate(found))

    def _pieces(self, gates: np.ndarray) -> list[Piece]:
        """The batch in pieces, in order, and what runs masks (N, nodes) on each. ROWS of it have one set of
        ablation values; within a support they are one piece."""
        starts = range(0, len(self.batch.positions), ROWS)
        models = [self._model(self.first_set + i // ROWS, gates) for i in starts]
        batches = [rows(self.batch, slice(i, i + ROWS)) for i in starts]
        pieces: list[Piece] = []
        for model, batch in zip(models, batches, strict=True):
            if model is self.subcircuits:
                pieces.append(Piece(model, self._packed(batch), len(batch.positions)))
            else:
                context = self._config.context
                parts = packed_batch.parts(batch, context)
                pieces += [Piece(model, packed_batch.packed_part(part, context), len(part.positions)) for part in parts]
        return pieces

    def _packed(self, batch: TaskBatch) -> PackedBatch:
        """A piece of the batch without padding between its prompts."""
        tokens, time = self.room
        return packed(alike(batch), tokens_of(batch, tokens), ROWS, max(time, int(np.max(batch.positions)) + 1))

    def full_logits(self) -> np.ndarray:
        """(B, 2) answer and foil logits of the model itself."""
        return self.logits(Masks(np.ones((1, self.nodes), np.float32)))[0]

    def __call__(self, masks: Masks) -> Scores:
        """Scores of masks, each calibrated on this batch."""
        logits = self.logits(masks)
        fitted, loss = self._fit_many(logits)
        return Scores(logits, fitted, self._largest(logits, fitted, loss))

    def _largest(self, logits: np.ndarray, fitted: Calibration, mean: np.ndarray) -> np.ndarray:
        """(N,) what counts of N masks under their calibrations, see `objective.largest_loss`; `mean` (N,) when
        that is all but the allowance."""
        if self.batch.task is None and not self.upper_share:
            return mean - self._allowed(0)
        calibrated = calibrate(logits, fitted, self.index)
        return np.array([largest_loss(each, self.batch, self.upper_share, self.allowance) for each in calibrated])

    def _allowed(self, task: int) -> float:
        return self.allowance[task] if self.allowance else 0.0

    def losses_up_to(self, masks: Masks, bound: float | np.ndarray) -> np.ndarray:
        """(N,) calibrated task losses: exact where at most `bound` (one for all, or (N,)), otherwise any lower bound
        that already exceeds it.

        Samples are taken ROWS at a time (of a single mask several times as many), and a mask is given up as
        soon as the samples so far rule it out. Of several tasks' losses it is the largest: at least what each task has
        with the best calibration of its own. Where the upper end of its interval counts, that is of all samples.
        """
        total, left = len(self.batch.positions), np.arange(len(masks.gates))
        bounds, seen = np.broadcast_to(bound, left.shape), 0
        losses, logits = np.zeros(len(left)), np.zeros((len(left), 0, 2), np.float32)
        while seen < total:
            count = ROWS if len(left) > 1 else ROWS * AT_A_TIME
            piece = self.on_rows(slice(seen, seen + count), self.first_set + seen // ROWS)
            logits = np.concatenate([logits, piece.logits(masks.only(left))], axis=1)
            seen = logits.shape[1]
            if seen < total and self.batch.task is not None:
                losses[left] = self._least_of_tasks(logits, self.batch.task, len(piece.batch.positions))
            else:
                fitted, loss = self._fit_many(logits)
                losses[left] = seen / total * loss - self._allowed(0)
            if seen == total:
                losses[left] = self._largest(logits, fitted, loss)
            stays = losses[left] <= bounds[left]
            left, logits = left[stays], logits[stays]
            if not len(left):
                break
        return losses

    def _least_of_tasks(self, logits: np.ndarray, task: np.ndarray, newest: int) -> np.ndarray:
        """(N,) lower bound of the largest loss over tasks, from logits (N, B, 2) on the first B samples: of the tasks
        that the `newest` of these belong to."""
        seen, least = logits.shape[1], np.full(len(logits), -np.inf)
        for each in np.unique(task[seen - newest : seen]):
            of_task = np.flatnonzero(task[:seen] == each)
            index, foil_share = self.index[of_task], self._foil_share(of_task)
            fitted = fit_many(logits[:, of_task], index, len(self.shift_tokens), foil_share, self.largest_scale)
            share = len(of_task) / np.sum(task == each)
            least = np.maximum(least, share * (fitted[2] - UNFITTED) - self._allowed(each))
        return least

    def hardest_first(self, mask: Masks) -> "Evaluator":
        """An evaluator on the same samples, those ROWS first on which one mask has the largest loss: there, what
        is like it is soon ruled out."""
        whole = len(self.batch.positions) // ROWS
        if self.gated.draws is not None or whole < 2:  # sets of values belong to places in the order
            return self
        logits = calibrate(self.logits(mask)[0], self.calibration(mask), self.index)
        loss = losses(logits[:, 0] - logits[:, 1], self.batch.foil_share)
        order = np.argsort(-loss[: whole * ROWS].reshape(whole, ROWS).mean(axis=1), kind="stable")
        places = np.arange(len(loss))
        places[: whole * ROWS] = places[: whole * ROWS].reshape(whole, ROWS)[order].reshape(-1)
        return self.on_rows(places)

    def losses(self, masks: Masks, fitted: Calibration) -> np.ndarray:
        """(N,) task losses on this batch under calibrations fitted elsewhere: scale (N,), shift (N, K)."""
        return np.array([task_loss(each) for each in calibrate(self.logits(masks), fitted, self.index)])

    def slopes(self, mask: Masks) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of one mask's calibrated task loss: over gates (nodes,) and over edges (E,).

        What removal of an item would add to the loss is, to first order, minus its slope. The calibration is held at
        its optimum, where its own gradient is zero. Of more than ROWS samples, ROWS of all lengths are taken.
        """
        scale, shift = self.calibration(mask)
        calibration = Calibration(jnp.float32(scale), jnp.asarray(shift, jnp.float32))
        gates, kept, _ = next(mask.chunks(self._config))
        one = {site: value[0] for site, value in gates.items()}
        slopes = self._slopes(mask, calibration, one, kept[0])
        of_gates, of_edges = (
            np.nan_to_num(each, posinf=LARGEST, neginf=-LARGEST) for each in (to_vector(slopes[0]), slopes[1])
        )
        return of_gates, of_edges

    def _slopes(self, mask: Masks, given: Calibration, gates: Gates, kept: np.ndarray) -> tuple[GateArrays, np.ndarray]:
        """`slopes` of the one mask with these gates and edges, under a calibration."""
        some = self._some()
        batch = packed_batch.together(rows(self.batch, some), self._config.context)
        equal = np.full(len(some), 1 / len(some), np.float32)
        wanted = programs.Wanted(self.index[some], self._foil_share(some), equal)
        whole, places = self._whole(self.first_set), mask.places
        found: tuple[GateArrays, np.ndarray] = jax.device_get(
            programs.slopes(whole, gates, places, kept, batch, wanted, given)
        )
        return found

    def calibration(self, mask: Masks) -> Calibration:
        """The best one of one mask on this batch."""
        scale, shift = self(mask).calibration
        return Calibration(scale[0], shift[0])

    def fit(self, logits: np.ndarray) -> Calibration:
        """The calibration of (B, 2) logits on this batch."""
        return fit(logits, self.index, len(self.shift_tokens), self.batch.foil_share, self.largest_scale)

    def _fit_many(self, logits: np.ndarray) -> tuple[Calibration, np.ndarray]:
        """Calibrations of masks, and mean losses (N,), from their logits (N, B, 2) on the first B samples."""
        seen, tokens = slice(logits.shape[1]), len(self.shift_tokens)
        *fitted, loss = fit_many(logits, self.index[seen], tokens, self._foil_share(seen), self.largest_scale)
        return Calibration(*fitted), loss

    def _foil_share(self, some: slice | np.ndarray) -> np.ndarray | None:
        """What the given samples are to match."""
        share: np.ndarray | None = self.batch.foil_share
        return None if share is None else share[some]

    def margins(self, gates: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Calibrated margins (B,), answer - foil, of one gate vector (nodes,), their gradients (B, nodes), and what
        `objective.losses` takes beside them. Of more than ROWS samples, ROWS of all lengths are taken."""
        scores, (given, _, _) = self(Masks(gates[None, :])), next(Masks(gates[None, :]).chunks(self._config))
        some = self._some()
        batch = jax.tree.map(jnp.asarray, rows(self.batch, some)._replace(task=None, foil_share=None))
        one = {site: value[0] for site, value in given.items()}
        _, found = jax.device_get(programs.margin_slopes(self.gated.with_ablation_set(self.first_set), one, batch))
        calibrated = calibrate(scores.logits, scores.calibration, self.index)[0, some]
        slopes = np.nan_to_num(scores.calibration.scale[0] * to_vector(found), posinf=LARGEST, neginf=-LARGEST)
        return calibrated[:, 0] - calibrated[:, 1], slopes, self._foil_share(some)

    @property
    def _config(self) -> ModelConfig:
        return self.gated.model.config

    def _some(self) -> np.ndarray:
        """At most ROWS samples of all lengths, none of them twice."""
        count = len(self.batch.positions)
        return np.linspace(0, count - 1, min(ROWS, count)).astype(int)

    def on_few(self, most: int = ROWS) -> "Evaluator":
        """This evaluator on at most `most` of its samples, see `task_batch.few`: too few for an interval, so means
        alone count."""
        return dataclasses.replace(self.on_rows(few(self.batch, most)), upper_share=0.0)


def _sha256(arrays: PyTree) -> str:
    """Of the shapes and bytes of a tree's arrays."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        array = np.ascontiguousarray(leaf)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def room_of(batch: TaskBatch) -> tuple[int, int]:
    """Tokens, a multiple of TOKENS, that hold ROWS prompts from any multiple of ROWS on, and the longest prompt, filled
    up to a multiple of LENGTH."""
    lengths = np.asarray(batch.positions) + 1
    most = max(int(np.sum(lengths[i : i + ROWS])) for i in range(0, len(lengths), ROWS))
    return -(-most // TOKENS) * TOKENS, -(-int(np.max(lengths)) // LENGTH) * LENGTH
