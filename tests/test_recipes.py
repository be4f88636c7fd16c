"""The bench of training recipes: what it reads off runs, and one of everything at the size of preset tiny."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparse_gpt.errors import InputError
from sparse_gpt.experiments import harness, recipes
from sparse_gpt.training import loop
from tests.inprocess import launch_here

DIVERGED = "error: loss nan and gradient RMS 1.0 at step 3; lower --config.optimizer.learning_rate"
MEANS = [(100.0, 3.0), (200.0, 2.8), (400.0, 2.5)]


def test_losses_between_lengths_are_on_a_line_in_log_time() -> None:
    assert recipes.loss_after(200, MEANS) == pytest.approx(2.8)
    assert recipes.loss_after(100 * math.sqrt(2), MEANS) == pytest.approx(2.9)
    assert recipes.loss_after(99, MEANS) is None
    assert recipes.loss_after(401, MEANS) is None


def test_seconds_to_a_loss_invert_that_line() -> None:
    for seconds in (100, 150, 200, 333, 400):
        loss = recipes.loss_after(seconds, MEANS)
        assert loss is not None
        assert recipes.seconds_to(loss, MEANS) == pytest.approx(seconds)
    assert recipes.seconds_to(2.4, MEANS) is None


def row(recipe: str, seconds: float, loss: float, seed: int = 0) -> dict[str, Any]:
    return {"recipe": recipe, "seconds": seconds, "val_loss": loss, "seed": seed}


@pytest.mark.parametrize(
    ("early", "late", "share"), [(2.5, 2.4, 0.25), (2.7, 2.5, 0.5), (2.65, 2.6, 1.0), (2.9, 2.65, None)]
)
def test_the_time_for_the_baselines_loss(early: float, late: float, share: float | None) -> None:
    """The baseline ends at 2.6 after 400 s (the mean of two seeds)."""
    base = [row("openai_reference", 400, loss, seed) for seed, loss in enumerate((2.5, 2.7))]
    fast = [row("fast", 100, early), row("fast", 400, late)]
    (check,) = recipes._time_to_baseline([*base, *fast], ["openai_reference", "fast"])
    assert check.measured == (None if share is None else pytest.approx(share))
    assert check.holds == (share is not None and share <= 0.5)


def test_finalists_are_the_baseline_and_the_lowest() -> None:
    losses = {"a": 2.7, "openai_reference": 2.9, "b": 2.5, "c": 2.6}
    assert recipes.finalists(losses, 2) == ["openai_reference", "b", "c"]
    assert recipes.finalists(losses, 9) == ["openai_reference", "b", "c", "a"]
    assert recipes.finalists({"openai_reference": 1.0}, 1) == ["openai_reference"]


def test_a_rate_that_cannot_be_trained_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def finish_each(name: str, runs: Mapping[Path, Sequence[str]], what: str) -> dict[Path, int]:
        for log, flags in runs.items():
            rate = float(next(flag for flag in flags if "learning_rate" in flag).split("=")[1])
            codes[log] = failing if rate > 1 else 0
            log.write_text(f"train: 10%\rtrain: 20%\n\r{DIVERGED if failing == 2 else ''}\n\n")
        return {log: codes[log] for log in runs}

    def loss(workdir: Path) -> float:
        return abs(float(workdir.name.split("_")[1]) - 0.3)

    def size(*rates: float) -> recipes.Size:
        each = {"x": recipes.Candidate({}, rates), "of one rate": recipes.Candidate({}, (0.7,))}
        return dataclasses.replace(recipes.SIZES["tiny"], candidates=each)

    codes: dict[Path, int] = {}
    failing = 2
    monkeypatch.setattr(recipes, "finish_each", finish_each)
    monkeypatch.setattr(recipes, "measures", SimpleNamespace(validation_loss=loss))
    best = recipes._best_rates(size(0.1, 0.25, 0.5, 2.0), tmp_path, tmp_path)
    assert best == {"x": 0.25, "of one rate": 0.7}
    assert len(codes) == 4, "each rate has a file of its own, and one rate alone is not tried"
    assert capsys.readouterr().out == f"x: learning rate 2 is left out: exit code 2: {DIVERGED}\n"
    with pytest.raises(InputError, match="none of the learning rates"):
        recipes._best_rates(size(2.0, 3.0), tmp_path, tmp_path)
    failing = -9  # killed, as by a machine without memory: another call may train it
    with pytest.raises(InputError, match=r"rate_2_steps_10_seed_0: exit code -9: train: 20%; the same command"):
        recipes._best_rates(size(0.1, 2.0), tmp_path, tmp_path)


def test_a_training_that_diverges_says_what_is_looked_for() -> None:
    metrics = {"loss": np.float32(np.nan), "grad_rms": np.float32(1)}
    run: Any = SimpleNamespace(pending=[(3, metrics)], checkpoints=SimpleNamespace(steps=list))
    with pytest.raises(loop.NonFiniteLossError) as raised:
        loop._check_finite(run)
    assert recipes.diverged(f"exit code 2: error: {raised.value}")
    assert not recipes.diverged("exit code 2: error: train.steps=0: must be at least 1")
    assert not recipes.diverged("exit code -9: train: 20%")


def test_seconds_of_a_step_are_of_these_candidates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of another size, of another candidate by the same name, and of an older file are measured anew."""
    measured: list[list[str]] = []

    def side_by_side(steps: Mapping[str, object], rounds: int) -> dict[str, float]:
        measured.append(list(steps))
        return {name: float(len(measured)) for name in steps}

    bench = SimpleNamespace(compiled_step=lambda config, project: None, side_by_side=side_by_side)
    monkeypatch.setattr(recipes, "benchmark", bench)
    path, tiny, other = tmp_path / "step_seconds.json", recipes.SIZES["tiny"], recipes.SIZES["quickstart"]
    path.write_text('{"openai_reference": 9.0, "fast": 9.0}')
    changed = dataclasses.replace(tiny.candidates["fast"], fields={"optimizer.recipe": "paper"})
    another = dataclasses.replace(tiny, candidates={**tiny.candidates, "fast": changed})
    found = [recipes._step_seconds(size, path)["fast"] for size in (tiny, tiny, other, tiny, another, another)]
    assert found == [1, 1, 2, 3, 4, 4]
    assert measured[:2] == [["openai_reference", "fast"], list(other.candidates)]


def test_every_candidate_of_a_size_has_as_many_rates() -> None:
    for name in ("quickstart", "laptop"):
        size = recipes.SIZES[name]
        assert len({len(each.rates) for each in size.candidates.values()}) == 1, name
        for each in size.candidates.values():
            recipes._config(size, each)


@pytest.mark.slow
def test_a_tiny_comparison_runs_and_goes_on(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    def finish(name: str, *args: str) -> None:
        done = launch_here(name, *args)
        assert done.returncode == 0, done.stderr

    def finish_each(name: str, runs: Mapping[Path, Sequence[str]], what: str) -> dict[Path, int]:
        for flags in runs.values():
            finish(name, *flags)
        return dict.fromkeys(runs, 0)

    monkeypatch.setattr(recipes, "finish", finish)
    monkeypatch.setattr(recipes, "finish_each", finish_each)
    checks = recipes.recipes(workdir, "tiny")
    with (workdir / "recipes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(line["recipe"], int(line["steps"])) for line in rows] == [
        ("openai_reference", 40), ("openai_reference", 20), ("fast", 40), ("fast", 20)
    ]  # fmt: skip
    assert (workdir / "recipes.png").stat().st_size > 10_000
    assert all(math.isfinite(float(line["val_loss"])) for line in rows)
    seconds = json.loads((workdir / "step_seconds.json").read_text())["seconds"]
    assert float(rows[0]["seconds"]) == pytest.approx(41 * seconds["openai_reference"])
    assert float(rows[2]["seconds"]) == pytest.approx(40 * seconds["fast"])
    before_any_step = checks[0].measured
    assert isinstance(before_any_step, float)
    assert 1 < before_any_step < math.log(512), "better than chance"
    assert recipes.recipes(workdir, "tiny") == checks, "what is finished is not done again"
    assert {type(check) for check in checks} == {harness.Check}
