"""Samples that took no part decide whether a minimized circuit is accepted; if it fails on them, nodes are given back.

Minimization keeps what its own samples need. A word that is not among them can need more, and there are always such
words. So training samples that the selection does not have are looked at. If the circuit is above the target on them,
which the selection undercuts by a margin, the nodes that would help most come back, as few as hold there, half of these
samples join the selection, and the circuit is minimized again. Every check has samples of its own.

What joins is every second pair, good or bad: were it the worst ones, a target for the mean would ask for far more than
it does on samples as they come.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run import objective
from sparse_gpt.circuits.run.calibration import calibrate
from sparse_gpt.circuits.run.edge_ablation import removable
from sparse_gpt.circuits.run.evaluator import ROWS, Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.run.task_batch import TaskBatch, by_task_and_length, joined, padded, rows
from sparse_gpt.circuits.search import ranking
from sparse_gpt.circuits.search.integrated_gradients import path_gradient
from sparse_gpt.circuits.search.minimize import Report
from sparse_gpt.records.search import FreshCheck

CHECKS = 3
FRESH, FEWEST_FRESH = 8 * ROWS, ROWS // 2  # samples of one check
POINTS = 8  # between a support and what it was part of
WORST = ROWS  # samples of a check that failed, whose slopes say what comes back
Minimize = Callable[[Support, Evaluator, int], dict[str, Support]]  # by stage, of the given round; at least one


class Held(NamedTuple):
    """What fresh samples have accepted, or what is left when there are no more or when giving back does not help.

    Attributes:
        supports: by stage: those of the first minimization, then "given back 1" and what is left of it, and so on.
        joined: the samples that have joined the selection; None: no check has failed.
        checks: what each check has found.
    """

    supports: dict[str, Support]
    joined: TaskBatch | None
    checks: tuple[FreshCheck, ...]

    @property
    def support(self) -> Support:
        """That of the last stage."""
        return list(self.supports.values())[-1]

    @property
    def refused(self) -> bool:
        """Whether the last check did not accept it."""
        return bool(self.checks) and not self.checks[-1].accepted


def minimized_until_it_holds(
    problem: Problem, start: Support, evaluator: Evaluator, minimize: Minimize, report: Report
) -> Held:
    """A support without what can go, and what fresh samples say to it.

    Args:
        problem: its training samples beyond those of the selection are the fresh ones.
        start: what is minimized, and what is given back first.
        evaluator: on the selection samples, within `start`.
        minimize: from a support, an evaluator, and how many checks have failed.
        report: for a progress line.
    """
    target, further, checks = problem.settings.target_loss, [], []
    supports = minimize(start, evaluator, 0)
    for failed, batch in enumerate(fresh_samples(problem, CHECKS), 1):
        (*_, support) = supports.values()
        # Means, for which there are enough samples; in the whole model, whose programs are there for any length.
        means = dataclasses.replace(evaluator.on(batch), upper_share=0.0, subcircuits=None)
        fresh = problem.allowing(means, target)
        loss, order = _loss(support.masks, evaluator, fresh)
        checks.append(FreshCheck(task_loss=loss, accepted=loss <= target))
        if checks[-1].accepted:
            break
        joins = rows(batch, np.arange(len(order)) // 2 % 2 == 0)
        evaluator = problem.allowing(evaluator.and_on(joins))
        larger = give_back(problem, support, start, evaluator, fresh.on(rows(batch, order)))
        if larger is None:
            report(f"{loss:.3g} nats on fresh samples; no nodes that could come back help")
            break
        checks[-1] = msgspec.structs.replace(checks[-1], given_back=larger.size - support.size)
        edges = len(larger.edges) - len(support.edges)
        report(f"{loss:.3g} nats on fresh samples; {checks[-1].given_back} nodes and {edges} edges given back")
        further.append(joins)
        evaluator = evaluator.widened(larger.gates).hardest_first(larger.masks)
        supports |= {f"given back {failed}": larger}
        supports |= {f"{name} {failed}": each for name, each in minimize(larger, evaluator, failed).items()}
    return Held(supports, joined(further) if further else None, tuple(checks))


def fresh_samples(problem: Problem, most: int) -> Iterator[TaskBatch]:
    """At most so many batches of at most FRESH training samples that neither the selection nor another of them has; of
    the paper's search, which accepts by the mean on its selection, none."""
    if problem.settings.search != "path":
        return
    first, end = problem.samples.further, len(problem.train.positions)
    for start in range(first, min(first + most * FRESH, end - FEWEST_FRESH + 1), FRESH):
        batch = rows(problem.train, slice(start, start + FRESH))
        yield by_task_and_length(padded(batch, problem.selection.batch.tokens.shape[1]))


def give_back(
    problem: Problem, support: Support, start: Support, evaluator: Evaluator, fresh: Evaluator
) -> Support | None:
    """A support with as few further nodes and edges as hold.

    Further nodes, a power of two of them, are of `start`, or where all of it fails of all that can be searched; they
    come with all of their edges, and the edges that the support has lost stay pruned or come back, all of them. What is
    open stays open, also what an earlier round gave back from outside `start`.

    Those with the steepest slopes come back: of the loss on what the support does worst on, between it and everything
    that can come back (what leads to a closed node alone has no slope at the support).

    Args:
        problem: of the support.
        support: what failed on fresh samples.
        start: what it was part of.
        evaluator: on the selection samples and half of the fresh ones, where the selection target has to hold.
        fresh: on samples that it failed on, the worst first, where the target has to hold.

    Returns:
        None if not even all of them hold, or prune.refine_most of them.
    """
    graph, worst, opened = problem.graph, fresh.on_rows(slice(WORST)), support.gates
    tied = graph.tied
    levels, shares = (np.arange(POINTS) + 0.5) / POINTS, np.full(POINTS, 1 / POINTS)
    for most in (np.maximum(opened, start.gates), np.maximum(opened, problem.searchable_nodes)):
        slopes = path_gradient(worst, levels, shares, (opened, most))
        together = graph.shared(slopes)
        order = ranking.rank(opened, together, most, tied)
        further = len(order) - support.size
        options = []
        for size in [0, *(2**i for i in range(further.bit_length())), further]:
            larger = Support(graph, ranking.first_k(order, support.size + size, tied))
            if larger.size > problem.settings.refine_most:  # it could not be minimized
                break
            options += [larger] if support.pruned_to is None else [with_nodes(support, larger.gates), larger]
        for each in sorted(options, key=lambda each: each.size + len(each.edges)):
            if _holds(problem, each.masks, evaluator, fresh):
                return each
    return None


def with_nodes(support: Support, gates: np.ndarray) -> Support:
    """A support with further nodes, those of gates (nodes,), and all of their edges; edges that it has lost stay
    pruned, but for those of heads that the further nodes fill, which cannot be (see `edge_ablation.removable`)."""
    larger = Support(support.graph, gates)
    if support.pruned_to is None:
        return larger
    pruned = set(support.every).difference(support.edges)
    may_stay = removable(larger.graph.config, larger.every, larger.layered)
    left = (edge for edge, free in zip(larger.every, may_stay, strict=True) if not free or edge not in pruned)
    return dataclasses.replace(larger, pruned_to=tuple(left))


def _holds(problem: Problem, one: Masks, evaluator: Evaluator, fresh: Evaluator) -> bool:
    if evaluator.losses_up_to(one, problem.selection_target)[0] > problem.selection_target:
        return False
    return _loss(one, evaluator, fresh)[0] <= problem.settings.target_loss


def _loss(one: Masks, evaluator: Evaluator, fresh: Evaluator) -> tuple[float, np.ndarray]:
    """One candidate's loss on fresh samples (of several tasks the largest, each less its allowance), calibrated on
    those of the selection; the rows of the fresh ones, pairs together, the largest losses first."""
    logits = calibrate(fresh.logits(one)[0], evaluator.calibration(one), fresh.index)
    each = objective.losses(logits[:, 0] - logits[:, 1], fresh.batch.foil_share)
    pairs = np.argsort(-each.reshape(-1, 2).max(axis=1), kind="stable")
    order = np.stack([2 * pairs, 2 * pairs + 1], axis=1).reshape(-1)
    return objective.largest_loss(logits, fresh.batch, allowance=fresh.allowance), order
