"""What a circuit is compared with: rankings nobody searched, other searches; and its paths. All by hand, no search."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparse_gpt.circuits.circuit import Edge, gates_of
from sparse_gpt.circuits.evidence.baselines import weight_magnitudes
from sparse_gpt.circuits.evidence.controls import leave_one_out
from sparse_gpt.circuits.evidence.paths import paths
from sparse_gpt.circuits.evidence.seed_overlap import overlap
from sparse_gpt.circuits.model_graph import ModelGraph
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.evaluator import NO_TOKENS, Evaluator
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.run.objective import task_loss
from sparse_gpt.circuits.run.support import Candidate, Support
from sparse_gpt.circuits.search.integrated_gradients import path_gradient
from sparse_gpt.model.taps import site_widths
from sparse_gpt.records import Node
from sparse_gpt.records.circuit import TokenPath
from tests import circuits_model, ground_truth
from tests.circuits_model import VOCABULARY

CONFIG = circuits_model.config()
PARAMS = circuits_model.params(CONFIG)


@pytest.mark.slow
def test_gradients_along_the_path_add_up_to_the_change_of_the_loss() -> None:
    """Without AbsTopK, so that the path is smooth; random weights are large, so attention turns sharply along it and
    the integral needs many points (16 are off by a quarter). The number of samples fills no whole batch."""
    evaluator = Evaluator(circuits_model.gated(CONFIG), circuits_model.batch(18, seed=8), NO_TOKENS)
    ends = evaluator.logits(Masks(np.stack([np.zeros(evaluator.nodes), np.ones(evaluator.nodes)])))
    change = task_loss(ends[1]) - task_loss(ends[0])
    points, shares = np.polynomial.legendre.leggauss(128)
    assert abs(change) > 0.1
    assert path_gradient(evaluator, (1 + points) / 2, shares / 2).sum() == pytest.approx(change, rel=1e-3)
    assert path_gradient(evaluator, np.ones(1), np.ones(1)).sum() != pytest.approx(change, rel=5e-2)


def test_weight_magnitude_of_one_node() -> None:
    attention = PARAMS["h_1"]["attn"]
    into, out = attention["c_attn"]["kernel"][:, 2 * 8 + 3], attention["c_proj"]["kernel"][3]  # v of channel 3
    found = weight_magnitudes(ModelGraph(CONFIG.model, PARAMS))["attn_v"][1, 3]
    assert found == pytest.approx(np.sqrt(np.sum(into**2) + np.sum(out**2)))


def test_overlap_of_searches() -> None:
    sets = np.zeros((6, CONFIG.model.n_layer * sum(site_widths(CONFIG.model).values())), np.float32)
    sets[:5, :4] = 1  # five searches agree on four nodes ...
    sets[5, 2:6] = 1  # ... the sixth shares two of its four with them: 2 of 6
    found = overlap(sets, CONFIG.model, seed=0)
    assert found.mean_jaccard == pytest.approx((10 + 5 / 3) / 15)
    low, high = found.interval
    assert 1 / 3 < low < found.mean_jaccard < high == 1  # draws without the sixth agree fully
    assert 0.1 < found.random_jaccard < 0.2  # four of sixteen: 1 shared of 7, on average a little less
    assert found == overlap(sets, CONFIG.model, seed=0)
    assert overlap(sets[:4], CONFIG.model, seed=0).tree() | {"random_jaccard": 0} == {
        "searches": 4,
        "mean_jaccard": 1,
        "interval": None,
        "random_jaccard": 0,
    }
    assert overlap(sets[:1], CONFIG.model, seed=0).mean_jaccard is None


def test_paths_of_a_circuit_made_by_hand() -> None:
    """Two reads and a write per layer; attention's q leads on through v; the stream joins layer 0 to layer 1."""
    names = ["0 attn_in 1", "0 attn_q 2", "0 attn_v 3", "0 attn_out 5", "1 mlp_in 5", "1 mlp_neuron 7", "1 mlp_out 6"]
    nodes = [Node(int(layer), site, int(channel)) for layer, site, channel in map(str.split, names)]
    read, q, v, out, read_again, neuron, end = nodes
    edges = [Edge(read, q, -2.0), Edge(read, v, 3.0), Edge(v, out, 5.0), Edge(read_again, neuron, 1.0)]
    edges.append(Edge(neuron, end, 0.5))
    wte, head = np.zeros((VOCABULARY, 16), np.float32), np.zeros((16, VOCABULARY), np.float32)
    wte[[4, 9], 1] = 1, -2
    wte[4, 5] = 0.25  # layer 1 reads a token itself
    wte[8, 1] = 100  # occurs in no prompt
    head[5, 3], head[6, [3, 7]] = 10, (1, -4)
    graph = ModelGraph(CONFIG.model, {**PARAMS, "wte": wte, "lm_head": head})
    found = paths(nodes, edges, graph, np.array([2, 4, 9]), np.array([3, 7]))
    # by q or v, from two tokens: to the logit of 3 at once, or by the neuron to both; and token 4 into the neuron
    assert (found.chains, found.count) == (5, 2 * 2 * (1 + 2) + 2)
    strengths = [path.strength for path in found.strongest]
    assert strengths == [2 * 3 * 5 * 10, 2 * 2 * 5 * 10, 2 * 3 * 5 * 0.5 * 4, 2 * 2 * 5 * 0.5 * 4, 0.25 * 0.5 * 4]
    assert found.strongest[1] == TokenPath(token_id=9, nodes=(read, q, v, out), answer_id=3, strength=200)
    assert [found.strongest[i].answer_id for i in (2, 4)] == [7, 7]


def test_the_circuit_s_own_loss_stands_beside_those_without_a_part() -> None:
    """On the same samples, which are not all held-out ones: what a part is worth is the difference."""
    config = ground_truth.config()
    gates = to_vector(gates_of(ground_truth.TRUE, config.model))
    support = Support(ModelGraph(config.model, ground_truth.params(config.model)), gates)
    counted = SimpleNamespace(losses=lambda masks, fitted: masks.gates.sum(axis=1) + masks.kept.sum(axis=1) / 100)
    problem: Any = SimpleNamespace(heldout=SimpleNamespace(on_few=lambda: counted))
    candidate = Candidate(support, Calibration(np.float32(1), np.zeros(2, np.float32)), reached=True)
    found, kept = leave_one_out(problem, candidate), support.kept.sum() / 100
    assert found.task_loss == pytest.approx(11 + kept)
    assert [entry.task_loss for entry in found.nodes] == pytest.approx([10 + kept] * 11)
    assert [entry.task_loss for entry in found.edges] == pytest.approx([11 + kept - 0.01] * len(found.edges))
