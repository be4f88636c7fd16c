"""Changes of a training that no recipe has: what each does, and that without one it is the library's own training."""

import csv
import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.experiments import training_changes
from sparse_gpt.experiments.training_changes import CHANGES, Change, Changed, adam_by_row, half_run
from sparse_gpt.parameters import Params, flatten, parameter_table, unflatten
from sparse_gpt.training import schedules, step
from sparse_gpt.training.objective import LanguageModel
from sparse_gpt.training.step import TrainState
from tests.inprocess import launch_here

TINY = half_run("tiny", Change({"optimizer.recipe": "openai_reference"}))


def test_without_a_change_it_is_the_train_step() -> None:
    """The same program, before anything is compiled."""
    abstract = (step.abstract_state(TINY), *step.abstract_inputs(TINY))
    own, theirs = (
        jax.jit(function).lower(*abstract).as_text()
        for function in (Changed(TINY)._step, functools.partial(step.train_step, config=TINY))
    )
    name = re.compile(r"^module @\w+", re.MULTILINE)
    assert name.sub("", own) == name.sub("", theirs)
    through = jax.jit(Changed(TINY, change=Change(straight_through=True))._step).lower(*abstract).as_text()
    assert name.sub("", through) != name.sub("", theirs)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_of_a_configuration_that_can_be_trained(name: str) -> None:
    c = half_run("quickstart", CHANGES[name])
    assert c.train.steps == 1300
    objective = Changed(c, change=CHANGES[name])
    assert all(np.isfinite(objective.settings(s).learning_rate) for s in range(schedules.iterations(c)))


def test_embeddings_and_blocks_share_the_presets_nonzeros() -> None:
    wanted = schedules.keep_counts(presets.preset("quickstart"), 2600).sum()
    for name, change in CHANGES.items():
        counts = Changed(half_run("quickstart", change), change=change).settings(1300).keep
        assert abs(counts.sum() - wanted) <= len(counts), name


def test_schedules_keep_their_ends_and_the_rate_follows_the_density() -> None:
    c = half_run("quickstart", Change())
    cubic = Changed(c, change=CHANGES["density falls as a cubic"])
    exponential = Changed(c, change=CHANGES["density falls exponentially"])
    start, stop = 13, 650  # 0.01 and 0.5 of the steps
    for s in (0, 5, start, stop, 1000, 1299):
        plain = schedules.settings(c, s)
        for each in (cubic, exponential):
            now = each.settings(s)
            assert now.density == pytest.approx(plain.density, rel=1e-12)
            assert now.learning_rate == pytest.approx(plain.learning_rate, rel=1e-12)
            np.testing.assert_array_equal(now.keep, plain.keep)
    for s in (100, 300, 500):
        done = (s - start) / (stop - start)
        assert cubic.settings(s).density == pytest.approx(1 / 16 + (1 - 1 / 16) * (1 - done) ** 3)
        assert exponential.settings(s).density == pytest.approx(16**-done)
        for each in (cubic, exponential):
            now, plain = each.settings(s), schedules.settings(c, s)
            assert now.learning_rate / plain.learning_rate == pytest.approx((plain.density / now.density) ** 0.5)
            assert now.keep.sum() < plain.keep.sum()


def test_a_constant_rate_falls_at_the_end() -> None:
    name = "learning rate constant until 0.7 of the steps"
    c = configs.replace(half_run("quickstart", Change()), {"optimizer.sharkfin": False})
    warmup = int(c.optimizer.warmup * 1300)
    rates = [Changed(c, change=CHANGES[name]).settings(s).learning_rate for s in range(1301)]
    top = c.optimizer.learning_rate
    assert rates[warmup // 2] == pytest.approx(top / 2, abs=0.01)
    at = {s: (s - warmup) / (1300 - warmup) for s in range(warmup, 1301)}
    for s, done in at.items():
        assert rates[s] == pytest.approx(top * min(1, (1 - done) / 0.3)), s


def test_straight_through_weights_are_projected_in_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model sees projected weights; its gradients, here those weights themselves, move all that are stored."""

    def loss_and_gradients(model: object, params: Params, tokens: jax.Array, parts: int) -> tuple[jax.Array, Params]:
        return jnp.zeros(()), params

    monkeypatch.setattr(step, "loss_and_gradients", loss_and_gradients)
    monkeypatch.setattr(step, "projection", only_positive)
    c = configs.replace(TINY, {"optimizer.weight_decay": 0.0, "optimizer.beta1": 0.0, "optimizer.beta2": 0.0})
    through, rng = Changed(c, change=Change(straight_through=True)), np.random.default_rng(0)
    params = as_tree({path: rng.normal(size=spec.shape) for path, spec in parameter_table(c.model).items()})
    before = TrainState(params, through.recipe.direction.init(params))
    after, _ = jax.jit(through._step)(before, np.zeros((1, 2), np.int32), np.float32(0.1), np.zeros(1, np.int32))
    for path, old in flatten(before.params).items():
        old, new = np.asarray(old), np.asarray(flatten(after.params)[path])
        np.testing.assert_array_equal(new[old <= 0], old[old <= 0], err_msg=str(path))
        if path[-1] != "final_logits_bias":
            assert np.sum(new < old) >= 0.9 * np.sum(old > 0), path


def test_straight_through_weights_are_evaluated_as_they_would_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projected; those of other trainings are so already."""
    seen: list[np.ndarray] = []
    monkeypatch.setattr(step, "projection", only_positive)
    monkeypatch.setattr(LanguageModel, "evaluate", lambda self, state, batches: seen.append(state.params["w"]))
    for through in (True, False):
        Changed(TINY, change=Change(straight_through=through)).evaluate(
            TrainState({"w": jnp.array([1.0, -1])}, None), []
        )
    np.testing.assert_array_equal(seen, [[1, 0], [1, -1]])


def only_positive(config: Config) -> Callable[[Params, object], Params]:
    """Stands in for the projection."""
    return lambda params, keep: jax.tree.map(lambda w: jnp.maximum(w, 0.0), params)


def test_second_moments_by_row_against_numpy() -> None:
    """Three updates in float64: one moment a neuron or channel where the table names an axis, else one a row."""
    c = TINY
    table, o, rng = parameter_table(c.model), c.optimizer, np.random.default_rng(2)
    transformation = adam_by_row(c)
    zeros = {path: np.zeros(spec.shape) for path, spec in table.items()}
    state, update = transformation.init(as_tree(zeros)), jax.jit(transformation.update)
    mu, nu = dict(zeros), dict.fromkeys(zeros, 0.0)
    for t in range(1, 4):
        gradients = {path: rng.normal(size=spec.shape) for path, spec in table.items()}
        direction, state = update(as_tree(gradients), state)
        for path, spec in table.items():
            g, kept = gradients[path], spec.neuron_axis or 0
            others = tuple(axis for axis in range(g.ndim) if axis != kept)
            mu[path] = o.beta1 * mu[path] + (1 - o.beta1) * g
            nu[path] = o.beta2 * nu[path] + (1 - o.beta2) * (g**2).mean(axis=others, keepdims=True)
            wanted = mu[path] / (1 - o.beta1**t) / (np.sqrt(nu[path] / (1 - o.beta2**t)) + o.eps)
            np.testing.assert_allclose(flatten(direction)[path], wanted, rtol=2e-4, atol=1e-5)


def as_tree(leaves: dict[tuple[str, ...], np.ndarray]) -> Params:
    return unflatten({path: jnp.asarray(leaf, jnp.float32) for path, leaf in leaves.items()})


@pytest.mark.slow
def test_trainings_are_compared_and_not_done_again(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish(name: str, *args: str) -> None:
        done = launch_here(name, *args)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(training_changes, "finish", finish)
    changes = {name: CHANGES[name] for name in ("straight-through gradients", "density falls as a cubic")}
    checks = training_changes.training_changes(workdir, "tiny", changes)
    with (workdir / training_changes.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["change"] for row in rows] == list(changes)
    losses = [float(row["val_loss"]) for row in rows]
    assert len(set(losses)) == 2, "the changes change something"
    assert all(len(row["training loss in quarters of the run"].split()) == 4 for row in rows)
    assert checks[-1].measured == min(losses)
    assert not checks[-1].holds
    stamps = {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*")}
    assert training_changes.training_changes(workdir, "tiny", changes) == checks
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*")} == stamps
