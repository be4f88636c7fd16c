"""Intervals that know that samples with the same word are not independent.

Prompts share their words: a circuit that fails on one word fails on all prompts with it. So samples are grouped, by
their final free word on the report card, by their answers in selection, and intervals are those of the groups (sandwich
estimator with the small-sample factor G/(G-1), and t quantiles with G-1 degrees of freedom, after Cameron and Miller,
2015). They are symmetric, and losses are not: with few words and a rare failure the upper end is too low, which is why
the worst word has a row of its own on the card.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

LEAST_CLUSTERS = 5  # for an interval
_NO_SPREAD = 1e-12  # standard errors below it are rounding: those of a share of B samples are 0 or more than 1 / B^2
_Z = float(ndtri(0.975))  # of 95 %


class Estimate(NamedTuple):
    """A mean over samples.

    Attributes:
        value: of all samples.
        interval: 95 %; None with fewer than LEAST_CLUSTERS clusters.
        clusters: G.
    """

    value: float
    interval: tuple[float, float] | None
    clusters: int


def mean(values: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Mean of values (B,) with its interval over clusters (B,) of any kind of label."""
    value, error, count = _mean_and_error(np.asarray(values, np.float64), clusters)
    if error is None:
        return Estimate(value, None, count)
    half = t_quantile(count - 1) * error
    return Estimate(value, (value - half, value + half), count)


def nonnegative_mean(values: np.ndarray, clusters: np.ndarray) -> Estimate:
    """`mean` of what is never below 0, such as losses."""
    found = mean(values, clusters)
    return (
        found if found.interval is None else found._replace(interval=(max(0.0, found.interval[0]), found.interval[1]))
    )


def share(hits: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Share of hits (B,) with Wilson's interval for as many independent samples as the clusters are worth.

    They are worth as many as would have the share's standard error (see `mean`), at least 1 and at most B. Where every
    cluster has the same share, without a mistake or with some, that error is 0 and tells nothing, and every cluster
    counts as one sample: 16 words without a mistake give 0.81 to 1.
    """
    value, error, count = _mean_and_error(np.asarray(hits, np.float64), clusters)
    if error is None:
        return Estimate(value, None, count)
    worth = float(np.clip(value * (1 - value) / error**2, 1, len(hits))) if error > _NO_SPREAD else float(count)
    middle = (value + _Z**2 / (2 * worth)) / (1 + _Z**2 / worth)
    half = _Z / (1 + _Z**2 / worth) * np.sqrt(value * (1 - value) / worth + _Z**2 / (4 * worth**2))
    return Estimate(value, (float(max(0.0, middle - half)), float(min(1.0, middle + half))), count)


def by_cluster(values: np.ndarray, clusters: np.ndarray) -> list[tuple[str, float, int]]:
    """(label, mean, samples) of every cluster, the largest mean first."""
    labels, place, counts = np.unique(np.asarray(clusters, str), return_inverse=True, return_counts=True)
    means = np.bincount(place, np.asarray(values, np.float64)) / counts
    return [(str(labels[i]), float(means[i]), int(counts[i])) for i in np.argsort(-means, kind="stable")]


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return float(stdtrit(freedom, 0.975))


def _mean_and_error(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float | None, int]:
    """Mean, its standard error (None with too few clusters) and the number of clusters."""
    _, place = np.unique(clusters, return_inverse=True)
    count, average = int(place.max()) + 1, float(values.mean())
    if count < LEAST_CLUSTERS:
        return average, None, count
    residuals = np.bincount(place, values - average)
    return average, float(np.sqrt(np.sum(residuals**2) * count / (count - 1)) / len(values)), count
