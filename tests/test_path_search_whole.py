"""A path search as a user runs it: from samples to a circuit."""

import dataclasses

import numpy as np
import pytest

from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import LoadedModel, Problem
from sparse_gpt.circuits.run.masks import Masks
from sparse_gpt.circuits.search import mask_search, populations
from sparse_gpt.circuits.search.select import select
from tests import circuits_model

pytestmark = pytest.mark.optimized  # it takes longer to run than to compile


@pytest.mark.slow
def test_from_samples_to_a_minimal_circuit_at_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a search keeps is at the target on selection samples, or it says that it is not; the refined circuit is at
    the target and none of its nodes can go. (In this random model of few channels, no mask drawn from hard concrete
    gates holds, and none from a flat start.)"""
    settings = dataclasses.replace(
        circuits_model.SEARCH, search="path", gates=("heaviside",), seeds=1, ablation="task_mean", edges=False, steps=60
    )
    config = circuits_model.config(activation_fraction=0.5, prune=settings)
    params = circuits_model.params(config)
    model = LoadedModel(config, params)
    problem = Problem.build(model, circuits_model.samples(config, params))
    monkeypatch.setattr(mask_search, "CHUNK", 5)  # after which masks are checked
    searches = populations.search(problem, progress=False)
    assert searches.found.feasible.tolist() == [True, False]
    masks = np.stack([to_vector({site: v[i] for site, v in searches.found.tau.items()}) > 0 for i in range(2)])
    losses = problem.selection(Masks(masks.astype(np.float32))).loss
    np.testing.assert_array_equal(losses <= problem.selection_target, searches.found.feasible)
    assert searches.trials.reached.all()
    assert (searches.found.open_nodes[:, -1] < searches.found.open_nodes[:, 0]).all()
    chosen = select(problem, searches.trials, {}).support
    assert chosen.size <= searches.trials.sizes.min()
    nodes = np.flatnonzero(chosen.gates)
    without = np.repeat(chosen.gates[None], len(nodes), axis=0)
    without[np.arange(len(nodes)), nodes] = 0
    at = problem.selection.losses_up_to(Masks(chosen.gates[None]), np.inf)
    assert at[0] <= problem.selection_target < problem.selection.losses_up_to(Masks(without), np.inf).min()
