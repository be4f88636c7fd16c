"""How much the circuits of several searches share, beside random circuits with the same counts at every site."""

import numpy as np

from sparse_gpt.circuits.evidence.controls import random_gates
from sparse_gpt.config import ModelConfig
from sparse_gpt.records.search import Overlap

LEAST = 5  # searches for an interval
RESAMPLES, RANDOM_DRAWS = 2000, 20


def overlap(gates: np.ndarray, model: ModelConfig, seed: int, tie_qk: bool = False) -> Overlap:
    """Mean Jaccard overlap over all pairs of S circuits.

    Args:
      gates: (S, nodes) of 0 and 1.
      model: for the sites and layers that nodes belong to.
      seed: of the bootstrap and of the random circuits.
      tie_qk: whether q and k share their gates.

    """
    searches = len(gates)
    if searches < 2:
        return Overlap(searches=searches)
    shared = jaccard(gates)
    each = [random_gates(own, model, RANDOM_DRAWS, seed + i, tie_qk) for i, own in enumerate(gates)]
    drawn = np.stack(each, axis=1)
    interval = bootstrap_interval(shared, np.random.default_rng(seed)) if searches >= LEAST else None
    return Overlap(
        searches=searches,
        mean_jaccard=mean_of_pairs(shared),
        interval=interval,
        random_jaccard=float(np.mean([mean_of_pairs(jaccard(each)) for each in drawn])),
    )


def jaccard(gates: np.ndarray) -> np.ndarray:
    """(S, S) size of the intersection over size of the union of S sets (S, nodes); 1 for two empty ones."""
    opened = (gates > 0).astype(np.float64)
    both, sizes = opened @ opened.T, opened.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def mean_of_pairs(shared: np.ndarray) -> float:
    """Mean over pairs of different searches of a symmetric matrix (S, S)."""
    return float(np.mean(shared[np.triu_indices(len(shared), 1)]))


def bootstrap_interval(shared: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of `mean_of_pairs` when the searches are drawn anew with replacement.

    A search drawn twice is no pair with itself: its overlap of 1 would say nothing about other seeds.
    """
    drawn = rng.integers(0, len(shared), (RESAMPLES, len(shared)))
    first, second = np.triu_indices(len(shared), 1)
    one, other = drawn[:, first], drawn[:, second]
    different = one != other
    counts = different.sum(axis=1)
    means = (shared[one, other] * different).sum(axis=1)[counts > 0] / counts[counts > 0]
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high
