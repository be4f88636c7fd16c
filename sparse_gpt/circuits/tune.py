"""Tuning of the search's own hyperparameters: Optuna proposes eight searches at a time, one compiled program runs them.

The paper tunes eight per model and task, with 32 rounds of 8 searches. Here the searches that the prune group asks for
come first, so that tuning can only add to what it would have found; Optuna's sampler learns from them too. A trial is
worth the nodes it needs for the target, before refinement. Its number seeds the sampler, so that a study that was
interrupted proposes what it would have proposed anyway.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from sparse_gpt.arrays import read_npz, refuse_damage
from sparse_gpt.circuits.evaluate import Scores
from sparse_gpt.circuits.search import Found, Hyperparameters, population
from sparse_gpt.circuits.trials import Trials
from sparse_gpt.config import NODE_SITES, TUNE_BATCH, PruneConfig, k_coefs
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json, replacing, write_json

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
AFTERWARDS = ("tune_trials", "refine_trials", "refine_most", "edges")  # of the prune group, what no search depends on
SHARES = {"1-beta2", "warmup"}  # must stay below 1


class Searches(NamedTuple):
    """S finished searches; every array has the leading axis S."""

    number: np.ndarray  # (S,) of the trials in the study
    h: Hyperparameters
    found: Found
    trials: Trials


Run = Callable[[Hyperparameters], tuple[Found, Trials]]


def searches(
    prune: PruneConfig, run: Run, params_sha256: str = "", unfinished: Path | None = None, samples_sha256: str = ""
) -> Searches:
    """The searches of the prune group's own values, then `prune.tune_trials` tuned ones.

    Args:
      prune: what to search, how many trials.
      run: searches and discretises one population.
      params_sha256: of the weights.
      unfinished: a folder for the study and for every finished population. A call that finds it there, made for the
        same weights, file of samples and prune group (AFTERWARDS aside), goes on instead of beginning anew.
      samples_sha256: of the file that the samples are from, if any.
    """
    if unfinished is not None:
        settings = {name: value for name, value in dataclasses.asdict(prune).items() if name not in AFTERWARDS}
        file = {"samples_sha256": samples_sha256} if samples_sha256 else {}
        _prepare(unfinished, {"params_sha256": params_sha256, **file, **settings})
    done = _stored(unfinished)
    if not done:
        h = population(prune)
        done.append(_kept(Searches(np.arange(len(h.seed)), h, *run(h)), unfinished, 0))
    if prune.tune_trials:
        study = _study(unfinished)
        for batch in done:
            _tell(study, batch, prune)
        while len(done) <= prune.tune_trials // TUNE_BATCH:
            number, h = _proposed(study, prune)
            done.append(_kept(Searches(number, h, *run(h)), unfinished, len(done)))
            _tell(study, done[-1], prune)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)


def space(prune: PruneConfig) -> dict[str, BaseDistribution]:
    """Where each of the eight hyperparameters is looked for: around its value, on a logarithmic scale.

    A value that is 0 or below stays as it is.
    """
    own = [parameters(prune, k_coef) for k_coef in k_coefs(prune)]
    return {name: _range(name, [each[name] for each in own]) for name in FACTORS}


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


def hyperparameters(prune: PruneConfig, proposed: list[dict[str, float]]) -> Hyperparameters:
    """Proposals under the study's names as a population; seed and clipping are the prune group's."""
    size = len(proposed)
    arrays = {name: np.array([each[name] for each in proposed], np.float32) for name in FACTORS if name != "1-beta2"}
    return Hyperparameters(
        seed=np.full(size, prune.seed, np.uint32),
        beta2=np.array([1 - each["1-beta2"] for each in proposed], np.float32),
        grad_clip=np.full(size, prune.grad_clip, np.float32),
        **arrays,
    )


def values(trials: Trials) -> np.ndarray:
    """(S,) what is minimised: nodes at the target; where that was not reached, more than all, growing with the loss."""
    return np.where(trials.reached, trials.sizes, trials.gates.shape[1] * (1 + trials.scores.calibrated))


def _study(folder: Path | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # SQLite, for its transactions: what was killed in the middle of a write is as if the write had not begun.
    storage = None if folder is None else f"sqlite:///{folder / STUDY}"
    return optuna.create_study(storage=storage, study_name="hyperparameters", load_if_exists=True)


def _proposed(study: optuna.Study, prune: PruneConfig) -> tuple[np.ndarray, Hyperparameters]:
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
    told, wanted = len(study.trials), space(prune)
    penalties = np.tile(k_coefs(prune), prune.seeds)  # of the first population, as in `population`
    for number, value in zip(batch.number.tolist(), values(batch.trials).tolist(), strict=True):
        if number >= told:  # not Optuna's proposal but one of the prune group's own
            own = parameters(prune, float(penalties[number]))
            study.add_trial(optuna.trial.create_trial(params=own, distributions=wanted, value=value))
        else:
            study.tell(number, value, skip_if_finished=True)


def _prepare(folder: Path, made_for: dict[str, Any]) -> None:
    """Empties a folder that was made for something else."""
    label = folder / "made_for.json"
    if _made_for(label) != made_for:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(label, made_for)


def _made_for(label: Path) -> Any:
    """What a folder was made for; None if that is not known."""
    try:
        return read_json(label)
    except InputError:
        return None


def _stored(folder: Path | None) -> list[Searches]:
    """Finished populations of an earlier call, in order."""
    return [] if folder is None else [_load(path) for path in sorted(folder.glob("searches_*.npz"))]


def _load(path: Path) -> Searches:
    leaf = np.zeros(0)
    sites = dict.fromkeys(NODE_SITES, leaf)
    h, found = Hyperparameters(*Hyperparameters._fields), Found(sites, sites, leaf, leaf)
    trials = Trials(leaf, leaf, leaf, leaf, leaf, Scores(leaf, leaf, leaf, leaf))
    structure = jax.tree.structure(Searches(leaf, h, found, trials))
    names = tuple(f"arr_{i}" for i in range(len(jax.tree.leaves(Searches(leaf, h, found, trials)))))
    way_out = f"remove {path.parent} to do its searches again"
    with refuse_damage(f"{path}: not a file of finished searches", way_out):
        stored = read_npz(path, names=names)
        return jax.tree.unflatten(structure, [stored[name] for name in names])


def _kept(batch: Searches, folder: Path | None, index: int) -> Searches:
    """`batch`, after it was written whole under a temporary name and renamed."""
    if folder is not None:
        with replacing(folder / f"searches_{index:03d}.npz") as temporary:
            np.savez_compressed(temporary, *jax.tree.leaves(batch))
    return batch
