"""What tells the searches of a population apart."""

from typing import NamedTuple

import numpy as np

from sparse_gpt.config import PruneConfig, path_kinds
from sparse_gpt.parameters import Leaf

FIRST_PENALTY = {"flat": 1e-5, "integrated_gradients": 1e-4}  # of a path search, by its start
CONCRETE_PENALTY = 1e-3  # of any with hard concrete gates, which low ones move too slowly


class Hyperparameters(NamedTuple):
    """One value per search: arrays (S,) outside of vmap, scalars inside."""

    seed: Leaf
    k_coef: Leaf  # cost of an open gate; in a path search the first one
    learning_rate: Leaf
    weight_decay: Leaf
    beta2: Leaf
    warmup: Leaf  # fraction of the steps
    init_noise_scale: Leaf
    init_noise_bias: Leaf
    heaviside_temp: Leaf
    grad_clip: Leaf  # largest global norm of a search's gradient
    concrete: Leaf  # 1: hard concrete gates, 0: Heaviside
    ranked: Leaf  # 1: starts from integrated gradients, 0: flat


def population(prune: PruneConfig) -> Hyperparameters:
    """Searches that the prune group asks for, before tuning: every seed with every kind, kinds varying fastest.

    A kind is a value of k_coefs in the paper's search, a start with a kind of gates in the path search.
    """
    if prune.search == "path":
        of_kinds = {
            "k_coef": [
                CONCRETE_PENALTY if gates == "concrete" else FIRST_PENALTY[start] for start, gates in path_kinds(prune)
            ],
            "concrete": [float(gates == "concrete") for _, gates in path_kinds(prune)],
            "ranked": [float(start == "integrated_gradients") for start, _ in path_kinds(prune)],
        }
    else:
        penalties = list(prune.k_coefs)
        of_kinds = {"k_coef": penalties, "concrete": [0.0] * len(penalties), "ranked": [0.0] * len(penalties)}
    count = len(of_kinds["k_coef"])
    seeds = np.repeat(prune.seed + np.arange(prune.seeds), count).astype(np.uint32)
    differing = {name: np.tile(np.array(values, np.float32), prune.seeds) for name, values in of_kinds.items()}
    rate = prune.path_rate if prune.search == "path" else prune.learning_rate
    shared = {
        field: np.full(len(seeds), rate if field == "learning_rate" else getattr(prune, field), np.float32)
        for field in Hyperparameters._fields
        if field != "seed" and field not in differing
    }
    return Hyperparameters(seed=seeds, **differing, **shared)
