"""Controls: what a circuit is compared with. Random circuits of its size, its edges with other values, other ablation
values, and the circuit without each of its parts. Losses are on held-out samples."""

import dataclasses

import numpy as np

from sparse_gpt.circuits.nodes import GateArrays, from_vector, to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import Calibration, calibrate
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.config import ModelConfig
from sparse_gpt.records.search import Control, EdgeLoss, Importance, NodeLoss, Quantiles

QUANTILES = (0.05, 0.5, 0.95)
MOST = 512  # nodes and edges together; larger circuits are not taken apart


def random_circuits(problem: Problem, support: Support) -> Control:
    """Losses of random circuits with as many nodes at every site and layer: as they are, and each calibrated."""
    graph, settings = problem.graph, problem.settings
    gates = random_gates(support.gates, graph.config, settings.random_draws, settings.seed, graph.tie_qk)
    return _losses(problem, Masks(gates))


def redrawn_weights(problem: Problem, support: Support) -> Control:
    """Losses of the circuit with other weights at its edges: as they are, and each calibrated."""
    settings = problem.settings
    drawn = redraw_weights(support, settings.random_draws, settings.seed)
    return _losses(problem, drawn)


def redraw_weights(support: Support, draws: int, seed: int) -> Masks:
    """The circuit `draws` times, each edge with a weight drawn from all nonzero ones of the same matrix without
    repetition.

    The drawn weight scales (activation - ablation value); the ablated part keeps its original weight, so that redrawing
    changes the circuit's signal and not its constants. The v -> attn_out edges of heads without a closed channel keep
    their weights (see `edge_ablation.removable`).
    """
    graph, factors = support.graph, np.repeat(support.kept[None, :], draws, axis=0)
    matrices: dict[tuple[str, int], list[int]] = {}
    for i in np.flatnonzero(support.can_go).tolist():
        target = support.every[i].target
        matrices.setdefault((target.site, target.layer), []).append(i)
    rng = np.random.default_rng(seed)
    for (site, layer), index in matrices.items():
        entries = graph.matrix(site, layer)
        weights = np.array([support.every[i].weight for i in index])
        for draw in range(draws):
            factors[draw, index] = rng.choice(entries[entries != 0], len(index), replace=False) / weights
    return Masks(np.repeat(support.gates[None, :], draws, axis=0), support.places, factors)


def resampled_values(problem: Problem, candidate: Candidate, values: GateArrays) -> Control:
    """Losses of the circuit with other ablation values (draws, n_layer, width), its calibration unchanged."""
    masks, losses, heldout = candidate.support.masks, [], problem.heldout
    several = dataclasses.replace(heldout.gated, draws=values)
    for index in range(len(values["attn_in"])):
        other = heldout.of(several.with_ablation_set(index))
        losses.append(task_loss(calibrate(other.logits(masks)[0], candidate.calibration, heldout.index)))
    return Control(
        draws=len(losses), task_loss=tuple(losses), quantiles=Quantiles(levels=QUANTILES, task_loss=_quantiles(losses))
    )


def leave_one_out(problem: Problem, candidate: Candidate) -> Importance:
    """What each node and each edge is worth: task losses in nats, on at most ROWS held-out samples, of the circuit
    without it and of the circuit; all else and the calibration unchanged.

    Returns:
        A loss per node and per edge, and the circuit's own. Edges from v that cannot be removed alone (see
        `edge_ablation.removable`) are left out. Nothing when there are more than MOST items.
    """
    support, calibration = candidate.support, candidate.calibration
    nodes, edges = np.flatnonzero(support.gates), np.flatnonzero(support.can_go)
    count = len(nodes) + len(edges)
    if not 0 < count <= MOST:
        return Importance()
    gates, kept = (np.repeat(each[None, :], count + 1, axis=0) for each in (support.gates, support.kept))
    gates[np.arange(len(nodes)), nodes] = 0
    kept[np.arange(len(nodes), count), edges] = 0
    of_each = Calibration(
        np.repeat(np.asarray(calibration.scale)[None], count + 1),
        np.repeat(np.asarray(calibration.shift)[None, :], count + 1, axis=0),
    )
    *losses, own = problem.heldout.on_few().losses(Masks(gates, support.places, kept), of_each).tolist()
    of_nodes, of_edges = losses[: len(nodes)], losses[len(nodes) :]
    ends = (support.every[i] for i in edges)
    return Importance(
        nodes=tuple(NodeLoss(**n._asdict(), task_loss=loss) for n, loss in zip(support.nodes, of_nodes, strict=True)),
        edges=tuple(
            EdgeLoss(source=edge.source, target=edge.target, task_loss=loss)
            for edge, loss in zip(ends, of_edges, strict=True)
        ),
        task_loss=own,
    )


def random_gates(gates: np.ndarray, config: ModelConfig, draws: int, seed: int, tie_qk: bool = False) -> np.ndarray:
    """(draws, nodes): for every site and layer as many open gates as in `gates` (nodes,), at random channels; with
    tied gates at the same ones of q and k."""
    rng = np.random.default_rng(seed)
    layered = from_vector(gates, config)
    drawn = {
        site: np.stack([[rng.permutation(row) for row in value] for _ in range(draws)])
        for site, value in layered.items()
    }
    return to_vector(drawn | {"attn_k": drawn["attn_q"]} if tie_qk else drawn)


def _losses(problem: Problem, drawn: Masks) -> Control:
    """Held-out losses of drawn circuits, their QUANTILES beside them. There are many, so at most ROWS samples do."""
    heldout = problem.heldout.on_few()
    scores, logits = problem.selection.on_few()(drawn), heldout.logits(drawn)
    plain = [task_loss(each) for each in logits]
    calibrated = [task_loss(each) for each in calibrate(logits, scores.calibration, heldout.index)]
    return Control(
        draws=len(drawn.gates),
        task_loss=tuple(plain),
        task_loss_calibrated=tuple(calibrated),
        quantiles=Quantiles(levels=QUANTILES, task_loss=_quantiles(plain), task_loss_calibrated=_quantiles(calibrated)),
    )


def _quantiles(losses: list[float]) -> tuple[float, ...]:
    return tuple(np.quantile(losses, QUANTILES).tolist())
