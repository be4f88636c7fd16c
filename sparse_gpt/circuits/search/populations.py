"""Populations of mask searches. Optuna tunes their hyperparameters: it proposes eight searches at a time, and one
compiled program runs them.

The paper tunes eight per model and task, with 32 rounds of 8 searches. Here the searches that the prune group asks for
come first, so that tuning can only add to what it would have found; Optuna's sampler learns from them too. A trial is
worth the nodes it needs for the target, before refinement. Its number seeds the sampler, so that a study that was
interrupted proposes what it would have proposed anyway.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from sparse_gpt.arrays import read_npz, refuse_damage
from sparse_gpt.circuits.nodes import to_vector
from sparse_gpt.circuits.problem import Problem
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.evaluator import Scores
from sparse_gpt.circuits.run.support import Support
from sparse_gpt.circuits.search import integrated_gradients, mask_search
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters, population
from sparse_gpt.circuits.search.mask_search import SearchResult
from sparse_gpt.circuits.search.ranking import Trials, rank_and_truncate
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES, TUNE_BATCH, PruneConfig, kinds, path_kinds
from sparse_gpt.io import Tree, replacing

STUDY = "study.db"
# How far from the value in the prune group each one may go, as a factor either way.
FACTORS = {
    "k_coef": 10,
    "learning_rate": 10,
    "weight_decay": 10,
    "1-beta2": 4,
    "warmup": 4,
    "init_noise_scale": 10,
    "init_noise_bias": 5,
    "heaviside_temp": 5,
}
PATH_FACTOR = 5  # the same, of the learning rate of a path search
SHARES = {"1-beta2", "warmup"}  # must stay below 1


class Searches(NamedTuple):
    """S finished searches; every array has the leading axis S."""

    number: np.ndarray  # (S,) of the trials in the study
    h: Hyperparameters
    found: SearchResult
    trials: Trials


RunPopulation = Callable[[Hyperparameters], tuple[SearchResult, Trials]]


def search(problem: Problem, stages: Stages | None = None, progress: bool = True) -> Searches:
    """All mask searches that a problem's settings ask for, each ranking truncated at the selection target.

    Args:
        problem: what to search; faster once it is `within_start`.
        stages: where finished populations are kept.
        progress: whether to show a bar.
    """
    stages = stages or Stages()

    def run(h: Hyperparameters) -> tuple[SearchResult, Trials]:
        start = integrated_gradients.start(problem, stages) if np.any(h.ranked) else None
        found = mask_search.search(problem, h, start=start, progress=progress, paused=stages.path("paused.npz"))
        return found, rank_and_truncate(problem, found.tau, found.attribution)

    return tune(problem.settings, run, stages.folder)


def within_start(problem: Problem, stages: Stages) -> Problem:
    """The same problem, evaluated faster for masks among the nodes that searches start with, where these are a
    ranking's first ones."""
    settings = problem.settings
    if settings.search == "paper" or "integrated_gradients" not in settings.starts:
        return problem
    return problem.within(Support(problem.graph, to_vector(integrated_gradients.start(problem, stages).searched)))


def tune(prune: PruneConfig, run: RunPopulation, folder: Path | None = None) -> Searches:
    """The searches of the prune group's own values, then `prune.tune_trials` tuned ones.

    Args:
        prune: what to search, how many trials.
        run: searches one population, and truncates its rankings.
        folder: for the study and for every finished population; those that are there are not done again.
    """
    done = _stored(folder)
    if not done:
        h = population(prune)
        done.append(_keep(Searches(np.arange(len(h.seed)), h, *run(h)), folder, 0))
    if prune.tune_trials:
        study = _study(folder)
        for batch in done:
            _tell(study, batch, prune)
        while len(done) <= prune.tune_trials // TUNE_BATCH:
            number, h = _propose(study, prune)
            done.append(_keep(Searches(number, h, *run(h)), folder, len(done)))
            _tell(study, done[-1], prune)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def space(prune: PruneConfig) -> dict[str, BaseDistribution]:
    """Where each hyperparameter is looked for: of a path search learning rate, start and gates; of the paper's eight
    numbers, each around its value, on a logarithmic scale, where a value that is 0 or below stays as it is.
    """
    if prune.search == "path":
        rate = FloatDistribution(prune.path_rate / PATH_FACTOR, prune.path_rate * PATH_FACTOR, log=True)
        words = {name: CategoricalDistribution(getattr(prune, name)) for name in ("starts", "gates")}
        return {"path_rate": rate, **words}
    given = [parameters(prune, k_coef) for k_coef in prune.k_coefs]
    return {name: _range(name, [values[name] for values in given]) for name in FACTORS}


def _range(name: str, values: list[float]) -> FloatDistribution:
    low, high = min(values), max(values)
    if high <= 0:
        return FloatDistribution(low, high)
    top = high * FACTORS[name]
    if name in SHARES:
        top = max(high, min(top, 0.9))
    return FloatDistribution(low / FACTORS[name], top, log=low > 0)


def parameters(prune: PruneConfig, k_coef: float) -> dict[str, float]:
    """The eight values of the prune group under the study's names."""
    return {
        name: k_coef if name == "k_coef" else 1 - prune.beta2 if name == "1-beta2" else getattr(prune, name)
        for name in FACTORS
    }


def own_parameters(prune: PruneConfig, number: int) -> Tree:
    """Under the study's names, the values of one search of the first population."""
    if prune.search == "path":
        start, gates = path_kinds(prune)[number % kinds(prune)]
        return {"path_rate": prune.path_rate, "starts": start, "gates": gates}
    return parameters(prune, prune.k_coefs[number % kinds(prune)])


def hyperparameters(prune: PruneConfig, proposed: list[Tree]) -> Hyperparameters:
    """Proposals under the study's names as a population; seed and clipping are the prune group's."""
    size = len(proposed)
    if prune.search == "path":
        kinds_of = [
            dataclasses.replace(
                prune, seeds=1, path_rate=one["path_rate"], starts=(one["starts"],), gates=(one["gates"],)
            )
            for one in proposed
        ]
        each = [population(one) for one in kinds_of]
        return Hyperparameters(*(np.concatenate(values) for values in zip(*each, strict=True)))
    arrays = {name: np.array([each[name] for each in proposed], np.float32) for name in FACTORS if name != "1-beta2"}
    return Hyperparameters(
        seed=np.full(size, prune.seed, np.uint32),
        beta2=np.array([1 - each["1-beta2"] for each in proposed], np.float32),
        grad_clip=np.full(size, prune.grad_clip, np.float32),
        concrete=np.zeros(size, np.float32),
        ranked=np.zeros(size, np.float32),
        **arrays,
    )


def values(trials: Trials) -> np.ndarray:
    """(S,) what is minimized: nodes at the target; where that was not reached, more than all, growing with the loss."""
    return np.where(trials.reached, trials.sizes, trials.gates.shape[1] * (1 + trials.scores.loss))


def _study(folder: Path | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # SQLite, for its transactions: what was killed in the middle of a write is as if the write had not begun.
    storage = None if folder is None else f"sqlite:///{folder / STUDY}"
    return optuna.create_study(storage=storage, study_name="hyperparameters", load_if_exists=True)


def _propose(study: optuna.Study, prune: PruneConfig) -> tuple[np.ndarray, Hyperparameters]:
    """The next batch: trials that were proposed and never told, then new ones."""
    wanted = space(prune)
    batch: list[FrozenTrial] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if set(trial.params) == set(wanted):
            batch.append(trial)
        else:  # killed while it was being proposed
            study.tell(trial.number, state=TrialState.FAIL)
    for number in range(len(study.trials), len(study.trials) + TUNE_BATCH - len(batch)):
        study.sampler = optuna.samplers.TPESampler(seed=prune.seed + number)
        study.ask(wanted)
        batch.append(study.trials[number])
    return np.array([t.number for t in batch]), hyperparameters(prune, [t.params for t in batch])


def _tell(study: optuna.Study, batch: Searches, prune: PruneConfig) -> None:
    """Tells the study what it has not been told of a batch."""
    known, wanted = len(study.trials), space(prune)
    for number, value in zip(batch.number.tolist(), values(batch.trials).tolist(), strict=True):
        if number >= known:  # not Optuna's proposal but one of the prune group's own
            given = own_parameters(prune, number)
            study.add_trial(optuna.trial.create_trial(params=given, distributions=wanted, value=value))
        else:
            study.tell(number, value, skip_if_finished=True)


def _stored(folder: Path | None) -> list[Searches]:
    """Finished populations of an earlier call, in order."""
    return [] if folder is None else [_load(path) for path in sorted(folder.glob("searches_*.npz"))]


def _load(path: Path) -> Searches:
    leaf = np.zeros(0)
    sites = dict.fromkeys(NODE_SITES, leaf)
    h, found = Hyperparameters(*Hyperparameters._fields), SearchResult(sites, sites, leaf, leaf, leaf)
    trials = Trials(leaf, leaf, leaf, leaf, leaf, Scores(leaf, Calibration(leaf, leaf), leaf))
    structure = jax.tree.structure(Searches(leaf, h, found, trials))
    names = tuple(f"arr_{i}" for i in range(len(jax.tree.leaves(Searches(leaf, h, found, trials)))))
    way_out = f"remove {path.parent} to do its searches again"
    with refuse_damage(f"{path}: not a file of finished searches", way_out):
        stored = read_npz(path, names=names)
        return jax.tree.unflatten(structure, [stored[name] for name in names])


def _keep(batch: Searches, folder: Path | None, index: int) -> Searches:
    """`batch`, after it was written whole under a temporary name and renamed."""
    if folder is not None:
        with replacing(folder / f"searches_{index:03d}.npz") as temporary:
            np.savez_compressed(temporary, *jax.tree.leaves(batch))
    return batch
