"""A small problem for path searches: the random model, its searchable nodes, training samples, a start."""

import dataclasses
import functools

import numpy as np

from sparse_gpt.circuits.liveness import searchable
from sparse_gpt.circuits.nodes import GateArrays
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.search.integrated_gradients import Start
from sparse_gpt.config import PruneConfig
from tests import circuits_model

CONFIG = circuits_model.config()
PRUNE = PruneConfig(search="path", steps=6, seeds=1, batch_pairs=4, target_loss=2.0, selection_margin=1.0)


@functools.cache
def searchable_nodes() -> GateArrays:
    found = searchable(CONFIG.model, circuits_model.params(CONFIG))
    return {site: np.asarray(value, np.float32) for site, value in found.items()}


def problem_of(prune: PruneConfig = PRUNE) -> Problem:
    config = dataclasses.replace(CONFIG, prune=prune)
    return circuits_model.search_problem(config, searchable_nodes(), circuits_model.batch(24, seed=1))


def start_of(searched: GateArrays | None = None) -> Start:
    rng = np.random.default_rng(5)
    tau = {site: rng.uniform(-0.3, 0.3, value.shape) for site, value in searchable_nodes().items()}
    return Start(tau, searched or searchable_nodes())
