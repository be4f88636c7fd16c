"""A bridged run that is trained in bfloat16 is judged in float32, as every other model is."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt.bridges import evaluation, least_squares, mixtures, models, training
from sparse_gpt.bridges.dense import DenseModel, dense_config
from sparse_gpt.config import Config
from sparse_gpt.io import write_json
from sparse_gpt.model import abstract_params
from sparse_gpt.parameters import Params
from sparse_gpt.records import Manifest
from sparse_gpt.records.bridge import Mixtures
from sparse_gpt.training.step import TrainState
from tests.test_bridge_training import config

BATCHES = [np.zeros((8, 9), np.int32)]
CONFIG = configs.replace(config(train__dtype="bfloat16"), {"train.remat": True})


def zeros(c: Config) -> Params:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_params(c.model))


@pytest.fixture
def dense() -> DenseModel:
    c = dense_config(CONFIG)
    return DenseModel(c, zeros(c), "ab" * 32)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool, str]]:
    """What would be computed, of which the models alone are noted: what, their dtypes, and whether one recomputes."""
    found: list[tuple[str, str, bool, str]] = []

    def note(what: str, bridged: Any) -> None:
        found.append((bridged.dense.dtype, bridged.sparse.dtype, bridged.dense.remat or bridged.sparse.remat, what))

    def evaluate(program: training.BridgeProgram, held: Params) -> Any:
        note("terms", program.bridged)
        names = [f"val_{name}" for name in evaluation.MEASURES]
        return lambda *_: dict.fromkeys(names, [0.0] * 3) | {"val_dense_loss": 0.0, "val_loss": 0.0}

    monkeypatch.setattr(training.BridgeProgram, "evaluation", evaluate)
    monkeypatch.setattr(training.BridgeProgram, "init_bridges", lambda _: {})
    monkeypatch.setattr(least_squares, "fit", lambda bridged, *_, **__: note("fit", bridged) or {})
    none = Mixtures(complete=False, paths=())
    monkeypatch.setattr(mixtures, "evaluate", lambda bridged, *_: note("mixtures", bridged) or none)
    return found


def exact(*names: str) -> list[tuple[str, str, bool, str]]:
    return [("float32", "float32", False, name) for name in names]


def test_the_record_and_its_controls(tmp_path: Path, dense: DenseModel, computed: list[Any]) -> None:
    params = zeros(CONFIG)
    state = TrainState(params, training.BridgeState({}, None))
    apart = least_squares.Independent(CONFIG, params, "cd" * 32)
    evaluation.write(tmp_path, CONFIG, dense, (4, state), BATCHES, (apart, BATCHES))
    assert computed == exact("terms", "fit", "terms", "mixtures")


def test_the_maps_that_bridges_start_as(dense: DenseModel, computed: list[Any]) -> None:
    least_squares.starting(CONFIG, dense, zeros(CONFIG), BATCHES)
    assert computed == exact("fit")


def test_what_is_steered(tmp_path: Path, dense: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    state = TrainState(zeros(CONFIG), training.BridgeState({}, None))
    monkeypatch.setattr(models, "load_dense", lambda *_: dense)
    monkeypatch.setattr(models, "restore", lambda *_: (4, state))
    write_json(tmp_path / Manifest.FILE, {"dense_params_sha256": dense.params_sha256})
    found = models.load_models(tmp_path, CONFIG).bridged
    assert (found.dense.dtype, found.sparse.dtype) == ("float32", "float32")


def test_training_stays_as_it_is_configured() -> None:
    trained = training.BridgeProgram(CONFIG, None, dense_config(CONFIG)).bridged
    assert (trained.dense.dtype, trained.sparse.dtype, trained.sparse.remat) == ("bfloat16", "bfloat16", True)
