"""Changes of a training that no recipe has: what each does, and that without one it is the library's own training."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.experiments import training_changes
from sparse_gpt.experiments.training_changes import CHANGES, Change, Changed, adam_by_row, half_run
from sparse_gpt.model.transformer import build
from sparse_gpt.parameters import Params, flatten, parameter_table, unflatten
from sparse_gpt.training import manifest, schedules, step
from sparse_gpt.training.objective import LanguageModel
from sparse_gpt.training.step import TrainState
from tests.inprocess import launch_here

TINY = half_run("tiny", Change({"optimizer.recipe": "openai_reference"}))


def advanced(objective: LanguageModel, steps: int) -> TrainState:
    """The state after a few steps on random tokens, as the loop makes them."""
    c, rng = objective.config, np.random.default_rng(0)
    advance, state = objective.compile_step(), objective.make_state()
    for s in range(steps):
        tokens = rng.integers(0, c.model.vocab_size, (c.train.batch_size, c.model.context + 1), np.int32)
        now = objective.settings(s)
        state, _ = advance(state, tokens, np.float32(now.learning_rate), now.keep)
    return state


def test_without_a_change_it_is_the_train_step() -> None:
    """To the bit, every parameter and moment."""
    own, theirs = (advanced(each, 5) for each in (Changed(TINY), LanguageModel(TINY)))
    jax.tree.map(np.testing.assert_array_equal, own, theirs)


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


def test_straight_through_weights_are_projected_in_the_model_alone() -> None:
    """One step by hand: gradients where the projected weights are, and weights that stay dense."""
    c = configs.replace(TINY, {"sparsity.density": 0.5, "sparsity.anneal_start": 0.0, "sparsity.anneal_stop": 0.001})
    through = Changed(c, change=Change(straight_through=True))
    state = through.make_state()
    before = jax.tree.map(np.array, state)
    tokens = np.random.default_rng(1).integers(0, c.model.vocab_size, (c.train.batch_size, c.model.context + 1))
    tokens, now = tokens.astype(np.int32), through.settings(30)
    after, _ = through.compile_step()(state, tokens, np.float32(now.learning_rate), now.keep)

    def by_hand(state: TrainState, tokens: jax.Array, lr: jax.Array, keep: jax.Array) -> Params:
        sparse = step.projection(c)(state.params, keep)
        _, gradients = step.loss_and_gradients(build(c), sparse, tokens, c.train.microbatches)
        direction, _ = through.recipe.direction.update(gradients, state.optimizer)
        return through.recipe.apply(state.params, direction, lr, lambda params: params)

    wanted = jax.jit(by_hand)(before, tokens, np.float32(now.learning_rate), now.keep)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), after.params, wanted)
    counts = manifest.nonzeros(after.params)
    kept = dict(zip(["/".join(p) for p in schedules.projected_tensors(c)], now.keep, strict=True))
    assert all(counts[path] > 1.5 * kept[path] for path in kept), "nothing of them is set to zero"
    batches = [tokens]
    dense = LanguageModel(c).evaluate(after, batches)["val_loss"]
    final = jax.jit(step.projection(c))(after.params, schedules.keep_counts(c, c.train.steps))
    sparse_loss = LanguageModel(c).evaluate(TrainState(final, None), batches)["val_loss"]
    assert through.evaluate(after, batches)["val_loss"] == pytest.approx(sparse_loss)
    assert sparse_loss != pytest.approx(dense, rel=1e-6)


def test_second_moments_by_row_against_numpy() -> None:
    """Three updates in float64: one moment a neuron or channel where the table names an axis, else one a row."""
    c = TINY
    table, o, rng = parameter_table(c.model), c.optimizer, np.random.default_rng(2)
    transformation = adam_by_row(c)
    zeros = {path: np.zeros(spec.shape) for path, spec in table.items()}
    state = transformation.init(as_tree(zeros))
    mu, nu = dict(zeros), dict.fromkeys(zeros, 0.0)
    for t in range(1, 4):
        gradients = {path: rng.normal(size=spec.shape) for path, spec in table.items()}
        direction, state = transformation.update(as_tree(gradients), state)
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
    changes = {name: CHANGES[name] for name in ("the preset", "straight-through gradients", "second moments by row")}
    checks = training_changes.training_changes(workdir, "tiny", changes)
    with (workdir / training_changes.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["change"] for row in rows] == list(changes)
    losses = [float(row["val_loss"]) for row in rows]
    assert len(set(losses)) == 3, "the changes change something"
    assert all(len(row["training loss in quarters of the run"].split()) == 4 for row in rows)
    assert checks[-1].measured == min(losses)
    assert not checks[-1].holds
    stamps = {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*")}
    assert training_changes.training_changes(workdir, "tiny", changes) == checks
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("checkpoints/*")} == stamps
