"""How a circuit came about: the task's circuits at earlier checkpoints of the same run, and what its nodes did there.

A task has many circuits that would do. So that neighbors can be compared, each is searched from a known one: from the
last checkpoint to the first, starting with the circuit of the next, then from the first to the last, starting with that
of the one before; the smaller one stays.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.evidence.card.card import candidate_of
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import calibrate as calibrated
from sparse_gpt.circuits.run.gated_model import GatedModel
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.circuits.run.support import Candidate
from sparse_gpt.circuits.search.warm_start import Known, ends, search_from
from sparse_gpt.circuits.solved import require_each_solved
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES, group_to_dict
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.model.taps import recorder
from sparse_gpt.progress import ProgressBar
from sparse_gpt.records import Calibration, Edge, Formation, Node, NodeEntry, converted
from sparse_gpt.records.formation import Checkpoint, FormingCircuit, FormingNode

TINY = 1e-20  # product of two deviations below which values count as constant
ROLE_SAMPLES = 64  # held-out prompts over which nodes are compared with themselves


class Moment(NamedTuple):
    """A kept checkpoint.

    Attributes:
        step: finished training steps.
        tokens: seen by then.
        problem: the task with the weights of then; made when it is needed, so that one model at a time is in memory.
    """

    step: int
    tokens: int
    problem: Callable[[], Problem]


def made_for(problem: Problem, final: Circuit, steps: Sequence[int]) -> dict[str, Any]:
    """What every stage of `formation` depends on."""
    samples = {"samples_sha256": problem.samples.sha256} if problem.samples.sha256 else {}
    return {
        "circuit_sha256": final.sha256,
        "params_sha256": final.params_sha256,
        **samples,
        "checkpoints": list(steps),  # "steps" is a setting of searches
        **group_to_dict(problem.settings),
    }


def formation(
    moments: Sequence[Moment], final: Circuit, unfinished: Path | None = None, *, progress: bool = True
) -> Formation:
    """Circuits at all checkpoints of a run.

    Args:
        moments: by step; the last one is the model that the final circuit is of.
        final: its circuit.
        unfinished: a folder that keeps what is finished, for a call that goes on.
        progress: whether to show a bar.
    """
    started, last = time.perf_counter(), moments[-1].problem()
    stages = Stages(unfinished, made_for(last, final, [moment.step for moment in moments]))
    with ProgressBar(total=3 * len(moments) - 2, desc="formation", unit="part", disable=not progress) as bar:
        walk = _Walk(moments, final, last, stages, bar)
        looks = [walk.look(moment) for moment in moments]
        solved = [index for index, look in enumerate(looks[:-1]) if look["solved"]]
        bar.total = len(moments) + 2 * len(solved)
        circuits = walk.forwards(solved, walk.backwards(solved))
    return Formation(
        task=final.task,
        circuit_sha256=final.sha256,
        target_loss=last.settings.target_loss,
        checkpoints=tuple(
            Checkpoint(
                step=moment.step,
                tokens=moment.tokens,
                params_sha256=look["params_sha256"],
                model_task_loss=look["model_task_loss"],
                solved=look["solved"],
                final_circuit_task_loss=look["final_circuit_task_loss"],
                circuit=circuits[index].circuit if index in circuits else None,
            )
            for index, (moment, look) in enumerate(zip(moments, looks, strict=True))
        ),
        nodes=_nodes(moments, final, looks, {index: found.circuit for index, found in circuits.items()}),
        seconds=time.perf_counter() - started,
    )


class _Found(NamedTuple):
    """A circuit of one checkpoint, and what of it the next search starts from."""

    circuit: FormingCircuit
    known: Known


class _Walk:
    """Through the checkpoints, there and back. Circuits are kept by the index of their checkpoint."""

    def __init__(self, moments: Sequence[Moment], final: Circuit, last: Problem, stages: Stages, bar: ProgressBar):
        self.moments, self.nodes, self.stages, self.bar = moments, final.nodes, stages, bar
        candidate = candidate_of(last, final)
        self.ends = {ends(edge) for edge in candidate.support.edges}
        self.final = self._found(last, candidate, "final")

    def look(self, moment: Moment) -> Tree:
        """What is known of a checkpoint without any search."""

        def stage() -> Tree:
            problem = moment.problem()
            return {
                "params_sha256": problem.model.params_sha256,
                "solved": _solves(problem),
                "model_task_loss": task_loss(problem.heldout.full_logits()),
                "final_circuit_task_loss": heldout_loss(problem, problem.candidate(self.final.known.support(problem))),
                "values": node_values(problem, self.nodes),
            }

        found: Tree = self.stages.run(f"look {moment.step}", None, stage)
        self.bar.update()
        return found

    def backwards(self, solved: Sequence[int]) -> dict[int, _Found]:
        """Circuits of the last checkpoint and of `solved` ones, each searched from the next."""
        known, found = self.final.known, {len(self.moments) - 1: self.final}
        for index in reversed(solved):
            if (new := self._search(index, known, "later")) is not None:
                found[index], known = new, new.known
        return found

    def forwards(self, solved: Sequence[int], found: Mapping[int, _Found]) -> dict[int, _Found]:
        """The same, or the smaller circuits that are searched from the one before."""
        best = dict(found)
        known: Known | None = None
        for index in solved:
            new = None if known is None else self._search(index, known, "earlier")
            if new is not None and (index not in best or _size(new) < _size(best[index])):
                best[index] = new
            if index in best:
                known = best[index].known
        return best

    def _search(self, index: int, known: Known, start: str) -> _Found | None:
        step = self.moments[index].step
        self.bar.set_postfix_str(f"step {step}")

        def stage() -> Tree:
            problem = self.moments[index].problem()
            candidate = search_from(problem, known, lambda line: self.bar.set_postfix_str(f"step {step}, {line}"))
            return {} if candidate is None else _tree(self._found(problem, candidate, start))

        found = self.stages.run(f"{start} {step}", None, stage)
        self.bar.update()
        return _from_tree(found) if found else None

    def _found(self, problem: Problem, candidate: Candidate, start: str) -> _Found:
        support, calibration = candidate.support, candidate.calibration
        nodes, edges = support.nodes, support.edges
        shift = zip(problem.heldout.shift_tokens, calibration.shift, strict=True)
        circuit = FormingCircuit(
            start=start,
            task_loss=heldout_loss(problem, candidate),
            calibration=Calibration(
                scale=float(calibration.scale), shift=tuple((int(token), float(value)) for token, value in shift)
            ),
            nodes=nodes,
            edges=tuple(Edge(source=e.source, target=e.target, weight=e.weight) for e in edges),
            node_overlap=jaccard(set(nodes), set(self.nodes)),
            edge_overlap=jaccard({ends(edge) for edge in edges}, self.ends),
        )
        return _Found(circuit, Known.of(support))


def heldout_loss(problem: Problem, candidate: Candidate) -> float:
    """Task loss of a calibrated circuit on held-out samples."""
    heldout = problem.heldout
    logits = heldout.logits(candidate.support.masks)[0]
    return task_loss(calibrated(logits, candidate.calibration, heldout.index))


def node_values(problem: Problem, nodes: Sequence[Node]) -> np.ndarray:
    """(nodes, tokens) of nodes in the whole model, over all tokens of some held-out prompts one after the other."""
    batch = problem.heldout.on_few(ROLE_SAMPLES).batch
    values = jax.device_get(_values(problem.gated, batch.tokens, tuple(nodes)))
    there = np.arange(batch.tokens.shape[1])[None, :] <= batch.positions[:, None]
    return np.asarray(values)[:, there]


@functools.partial(jax.jit, static_argnames="nodes")
def _values(gated: GatedModel, tokens: jax.Array, nodes: tuple[Node, ...]) -> jax.Array:
    """(nodes, B, T)."""
    seen: dict[tuple[str, int], jax.Array] = {}
    gated.model.apply({"params": gated.params}, tokens, tap=recorder(seen, NODE_SITES))
    return jnp.stack([seen[node.site, node.layer][:, :, node.channel] for node in nodes])


def correlation(values: np.ndarray, others: np.ndarray) -> float | None:
    """Pearson's, of two arrays (tokens,); None where one of them does not vary, or is not finite."""
    deviations = [each.astype(np.float64) - each.mean(dtype=np.float64) for each in (values, others)]
    size = float(np.sqrt(np.prod([np.square(each).sum() for each in deviations])))
    if not np.isfinite(size) or size < TINY:
        return None
    return float(np.clip(np.dot(*deviations) / size, -1, 1))


def jaccard(some: Set[Any], others: Set[Any]) -> float:
    """Share of what is in either that is in both; 1 where nothing is in either."""
    return len(some & others) / len(some | others) if some | others else 1.0


def _nodes(
    moments: Sequence[Moment], final: Circuit, looks: Sequence[Tree], circuits: Mapping[int, FormingCircuit]
) -> tuple[FormingNode, ...]:
    """What the record says of the final circuit's nodes."""
    found = []
    for number, node in enumerate(final.nodes):
        first = len(moments) - 1
        while first > 0 and first - 1 in circuits and node in circuits[first - 1].nodes:
            first -= 1
        rows = [look["values"][number] for look in looks]
        found.append(
            FormingNode(
                **NodeEntry.of(*node).tree(),
                from_step=moments[first].step,
                correlation=tuple(correlation(row, rows[-1]) for row in rows),
            )
        )
    return tuple(found)


def _solves(problem: Problem) -> bool:
    """Whether the model itself does the task, every family that was searched on."""
    try:
        require_each_solved(problem)
    except InputError:
        return False
    return True


def _size(found: _Found) -> tuple[int, int]:
    return len(found.circuit.edges), len(found.circuit.nodes)


def _tree(found: _Found) -> Tree:
    removed = sorted([*source, *target] for source, target in found.known.removed)
    return {"circuit": msgspec.to_builtins(found.circuit), "gates": found.known.gates, "removed": removed}


def _from_tree(tree: Tree) -> _Found:
    removed = frozenset((Node(*row[:3]), Node(*row[3:])) for row in tree["removed"])
    return _Found(converted(tree["circuit"], FormingCircuit), Known(tree["gates"], removed))
