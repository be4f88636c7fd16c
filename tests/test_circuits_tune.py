"""Tuning: what is proposed, what is reported, and that an interrupted study goes on as if nothing had happened."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
import pytest

from sparse_gpt import config as configs
from sparse_gpt.circuits.problem import depends_on
from sparse_gpt.circuits.run.calibration import Calibration
from sparse_gpt.circuits.run.evaluator import Scores
from sparse_gpt.circuits.search import populations
from sparse_gpt.circuits.search.hyperparameters import Hyperparameters, population
from sparse_gpt.circuits.search.mask_search import SearchResult
from sparse_gpt.circuits.search.ranking import Trials
from sparse_gpt.circuits.stages import Stages
from sparse_gpt.config import NODE_SITES, Config, PruneConfig
from sparse_gpt.errors import InputError

PRUNE = PruneConfig(seeds=2, k_coefs=(1e-4, 3e-4), tune_trials=16, steps=5)
NODES = 1000


class Killed(BaseException):
    """Stands for a signal."""


class Runner:
    """A search that needs fewer nodes the nearer k_coef is to 1e-3 and the rate to 1e-2; notes what it was given."""

    def __init__(self, dies_at: int = -1):
        self.given: list[Hyperparameters] = []
        self.dies_at = dies_at

    def __call__(self, h: Hyperparameters) -> tuple[SearchResult, Trials]:
        if len(self.given) == self.dies_at:
            raise Killed
        self.given.append(h)
        off = np.abs(np.log(np.maximum(h.k_coef, 1e-9) / 1e-3)) + np.abs(np.log(h.learning_rate / 1e-2))
        sizes = (10 + 50 * off).astype(int)
        row = np.arange(len(sizes))[:, None] + h.learning_rate[:, None]
        gates = dict.fromkeys(NODE_SITES, row)
        scores = Scores(row[:, :, None], Calibration(sizes * 1.0, row), off)
        trials = Trials(row, sizes, sizes, np.zeros((len(sizes), NODES)), off < 3, scores)
        return SearchResult(gates, gates, row, row, off < 3), trials


def assert_equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole() -> tuple[populations.Searches, list[Hyperparameters]]:
    run = Runner()
    return populations.tune(PRUNE, run), run.given


def test_tuned_searches_come_after_the_untuned_ones(whole: tuple[populations.Searches, list[Hyperparameters]]) -> None:
    found, given = whole
    assert [len(h.seed) for h in given] == [4, 8, 8]
    assert_equal(given[0], population(PRUNE))
    np.testing.assert_array_equal(found.number, np.arange(20))
    assert_equal(found.h, Hyperparameters(*(np.concatenate(parts) for parts in zip(*given, strict=True))))
    tuned = Hyperparameters(*(value[4:] for value in found.h))
    for name in ("k_coef", "learning_rate", "weight_decay", "beta2", "warmup", "heaviside_temp", "init_noise_bias"):
        assert len(np.unique(getattr(tuned, name))) == 16, name  # no two trials draw the same numbers
    assert (tuned.seed == PRUNE.seed).all()
    assert ((tuned.k_coef >= 1e-5) & (tuned.k_coef <= 3e-3)).all()
    sizes = np.asarray(found.trials.sizes)
    assert sizes[12:].mean() < sizes[4:12].mean()  # it learns
    assert sizes.min() < sizes[:4].min()


def test_unreached_is_worse_than_any_size() -> None:
    _, trials = Runner()(population(PRUNE)._replace(k_coef=np.array([1e-3, 1e-3, 1e-5, 1e-6], np.float32)))
    value = populations.values(trials)
    assert trials.reached.tolist() == [True, True, False, False]
    assert value[0] == trials.sizes[0] < NODES < value[2] < value[3]


def _dies(function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """`function`, until it was called `after` times."""
    calls = iter(range(after))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return function(*args, **kwargs)

    return dying


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "after", "runs"),
    [
        ("run", 2, 1),
        ("add_trial", 2, 2),  # of the untuned searches, two have been reported
        ("suggest", 9 * 8 + 5, 1),  # in the middle of the values of the tenth proposal
        ("tell", 3, 1),
    ],
)
def test_an_interrupted_study_goes_on(
    where: str,
    after: int,
    runs: int,
    whole: tuple[populations.Searches, list[Hyperparameters]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "some task"
    folder.mkdir()
    with monkeypatch.context() as patch:
        if where == "suggest":
            patch.setattr(optuna.Trial, "_suggest", _dies(optuna.Trial._suggest, after))
        elif where != "run":
            patch.setattr(optuna.Study, where, _dies(getattr(optuna.Study, where), after))
        with pytest.raises(Killed):
            populations.tune(PRUNE, Runner(after if where == "run" else -1), folder)
    again = Runner()
    found = populations.tune(PRUNE, again, folder)
    assert len(again.given) == runs
    assert found.trials.sizes.shape == (20,)
    if where == "suggest":  # one proposal is lost, which moves the numbers of those after it
        assert again.given[0].k_coef[0] == whole[1][2].k_coef[0]
        assert found.number.tolist() == [*range(13), *range(14, 21)]
    else:
        assert_equal(found, whole[0])
    finished = Runner()
    assert_equal(populations.tune(PRUNE, finished, folder), found)
    assert not finished.given


@pytest.mark.slow
def test_more_trials_go_on_and_other_weights_or_settings_begin_anew(tmp_path: Path) -> None:
    untuned = dataclasses.replace(PRUNE, tune_trials=0)
    frozen = dataclasses.replace(untuned, norm="frozen")
    unrefined = dataclasses.replace(frozen, refine_most=1, edges=False)  # which no search depends on
    steps = ((untuned, "ab", 1), (PRUNE, "ab", 2), (untuned, "cd", 1), (frozen, "cd", 1), (unrefined, "cd", 0))
    for prune, sha, runs in steps:
        run = Runner()
        stages = Stages(tmp_path / "task", {"params_sha256": sha, **depends_on(prune)})
        populations.tune(prune, run, stages.folder)
        assert len(run.given) == runs
    for samples, runs in (("ef", 1), ("ef", 0), ("fe", 1), ("", 1)):  # files that the samples are from
        run = Runner()
        stages = Stages(tmp_path / "task", {"samples_sha256": samples, **depends_on(unrefined)})
        populations.tune(unrefined, run, stages.folder)
        assert len(run.given) == runs


def test_tuned_path_searches_differ_in_rate_start_and_gates() -> None:
    prune = PruneConfig(search="path", seeds=1, tune_trials=16)
    run = Runner()
    found = populations.tune(prune, run)
    assert [len(h.seed) for h in run.given] == [4, 8, 8]
    assert_equal(run.given[0], population(prune))
    assert len(np.unique(found.h.learning_rate[4:])) == 16
    assert ((found.h.learning_rate >= 0.004) & (found.h.learning_rate <= 0.1)).all()
    for kind in (found.h.concrete[4:], found.h.ranked[4:]):
        assert set(kind.tolist()) == {0.0, 1.0}


def test_values_at_zero_stay() -> None:
    prune = PruneConfig(weight_decay=0, init_noise_bias=-0.1, k_coefs=(0.0, 1e-3), beta2=0, tune_trials=8, seeds=1)
    found = populations.tune(prune, Runner())
    assert (found.h.weight_decay == 0).all()
    assert (found.h.init_noise_bias == np.float32(-0.1)).all()
    assert ((found.h.beta2 >= 0) & (found.h.beta2 < 1)).all()


@pytest.mark.parametrize("trials", [-8, 12])
def test_trials_come_in_eights(trials: int) -> None:
    with pytest.raises(InputError, match=rf"--config.prune.tune_trials={trials}: must be (a multiple of 8|at least 0)"):
        configs.validate(Config(prune=PruneConfig(tune_trials=trials)))
