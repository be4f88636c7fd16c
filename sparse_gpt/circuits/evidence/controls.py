"""Controls: what a circuit is compared with. Random circuits of its size, its edges with other values, other ablation
values. Losses are on held-out samples."""

import dataclasses

import numpy as np

from sparse_gpt.circuits.model_graph import ModelGraph, matrix
from sparse_gpt.circuits.nodes import GateArrays, from_vector, random_gates
from sparse_gpt.circuits.problem import Candidate, Problem, Support
from sparse_gpt.circuits.run.calibration import Calibration, calibrate
from sparse_gpt.circuits.run.candidates import Candidates
from sparse_gpt.circuits.run.edge_ablation import edge_places, removable
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.records.search import Control, Quantiles

QUANTILES = (0.05, 0.5, 0.95)


def random_circuits(problem: Problem, support: Support) -> Control:
    """Losses of random circuits with as many nodes at every site and layer: as they are, and each calibrated."""
    graph, settings = problem.graph, problem.settings
    gates = random_gates(support.gates, graph.config, settings.random_draws, settings.seed, graph.tie_qk)
    return _losses(problem, Candidates(gates))


def redrawn_weights(problem: Problem, support: Support) -> Control:
    """Losses of the circuit with other weights at its edges: as they are, and each calibrated."""
    settings = problem.settings
    drawn = redraw_weights(support, problem.graph, settings.random_draws, settings.seed)
    return _losses(problem, drawn)


def redraw_weights(support: Support, graph: ModelGraph, draws: int, seed: int) -> Candidates:
    """The circuit `draws` times, each edge with a weight drawn from all nonzero ones of the same matrix without
    repetition.

    The drawn weight scales (activation - ablation value); the ablated part keeps its original weight, so that redrawing
    changes the circuit's signal and not its constants. The v -> attn_out edges of heads without a closed channel keep
    their weights (see `edge_ablation.removable`).
    """
    config, every, present = graph.config, graph.edges(support.gates), set(support.kept_edges(graph))
    free = removable(config, every, from_vector(support.gates, config))
    factors = np.repeat(np.array([[edge in present for edge in every]], np.float32), draws, axis=0)
    matrices: dict[tuple[str, int], list[int]] = {}
    for i, edge in enumerate(every):
        if free[i] and edge in present:
            matrices.setdefault((edge.target.site, edge.target.layer), []).append(i)
    rng = np.random.default_rng(seed)
    for (site, layer), index in matrices.items():
        entries = matrix(config, graph.params, site, layer)
        weights = np.array([every[i].weight for i in index])
        for draw in range(draws):
            factors[draw, index] = rng.choice(entries[entries != 0], len(index), replace=False) / weights
    return Candidates(np.repeat(support.gates[None, :], draws, axis=0), edge_places(config, every), factors)


def resampled_values(problem: Problem, candidate: Candidate, values: GateArrays) -> Control:
    """Losses of the circuit with other ablation values (draws, n_layer, width), its calibration unchanged."""
    candidates, losses, heldout = candidate.support.candidates(problem.graph), [], problem.heldout
    several = dataclasses.replace(heldout.gated, draws=values)
    for index in range(len(values["attn_in"])):
        other = heldout.of(several.with_ablation_set(index))
        losses.append(task_loss(calibrate(other.logits(candidates)[0], candidate.calibration, heldout.index)))
    return Control(
        draws=len(losses), task_loss=tuple(losses), quantiles=Quantiles(levels=QUANTILES, task_loss=_quantiles(losses))
    )


def _losses(problem: Problem, drawn: Candidates) -> Control:
    """Held-out losses of drawn circuits, their QUANTILES beside them. There are many, so at most ROWS samples do."""
    heldout = problem.heldout.on_few()
    scores, logits = problem.selection.on_few()(drawn), heldout.logits(drawn)
    pairs = zip(logits, map(Calibration, scores.scale, scores.shift), strict=True)
    plain = [task_loss(each) for each in logits]
    calibrated = [task_loss(calibrate(each, fitted, heldout.index)) for each, fitted in pairs]
    return Control(
        draws=len(drawn.gates),
        task_loss=tuple(plain),
        task_loss_calibrated=tuple(calibrated),
        quantiles=Quantiles(levels=QUANTILES, task_loss=_quantiles(plain), task_loss_calibrated=_quantiles(calibrated)),
    )


def _quantiles(losses: list[float]) -> tuple[float, ...]:
    return tuple(np.quantile(losses, QUANTILES).tolist())
