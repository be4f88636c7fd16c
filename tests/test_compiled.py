"""Compiled programs are kept by default, in the user's own cache, and do what freshly compiled ones do."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import compilation_cache
from sparse_gpt.circuits import stages as circuit_stages
from sparse_gpt.compilation_cache import mappings, release_programs

Launch = Callable[..., subprocess.CompletedProcess[str]]
VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.mark.slow
def test_programs_are_kept_and_give_the_same_bits(launch: Launch, tmp_path: Path) -> None:
    np.save(tmp_path / "batches.npy", np.random.default_rng(0).integers(0, 32, (4, 4, 9)).astype(np.int32))
    model = {"n_layer": 1, "d_model": 16, "d_mlp": 32, "vocab_size": 32, "context": 8}
    flags = [f"--config.model.{name}={value}" for name, value in model.items()]
    flags += ["--preset=tiny", f"--batches={tmp_path / 'batches.npy'}"]
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def run(name: str) -> tuple[str, dict[Path, int]]:
        done = launch("train", f"--workdir={tmp_path / name}", *flags, env=env)
        assert done.returncode == 0, done.stderr
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("jit_train_step-*-cache")}
        held = json.loads((tmp_path / name / "manifest.json").read_text())
        return held["params_sha256"], kept

    fresh, programs = run("fresh")
    again, programs_again = run("again")
    folder = tmp_path / "cache" / "sparse_gpt" / "jax" / compilation_cache.processor()
    assert {path.parent for path in programs} == {folder}
    assert len(programs) == 1
    assert programs_again == programs, "the second run must find the train step, not compile it again"
    assert again == fresh


@pytest.mark.slow
@pytest.mark.skipif(not mappings(), reason="the system does not tell")
def test_programs_are_let_go_of_where_they_are_many() -> None:
    programs = [jax.jit(lambda x, i=i: jnp.sin(x + i)) for i in range(40)]
    results = [program(1.0) for program in programs]
    many = mappings()
    release_programs(at_most=many + 1000)
    assert mappings() > many - len(programs), "some may have gone with what is garbage"
    release_programs(at_most=many - 1)
    assert mappings() < many - 2 * len(programs)
    np.testing.assert_array_equal([program(1.0) for program in programs], results)


def test_a_stage_begins_with_few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process may search circuit after circuit, as `launch.prune --task=all` does."""
    done: list[str] = []
    monkeypatch.setattr(circuit_stages, "release_programs", lambda: done.append("released"))
    stages = circuit_stages.Stages()
    for _ in range(2):
        stages.run("some", None, lambda: done.append("ran"))
    assert done == ["released", "ran"]


def test_no_home_means_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    assert compilation_cache._user_folder() is None


def test_tests_keep_their_programs_out_of_the_users_cache() -> None:
    folder = compilation_cache._user_folder()
    assert folder is None or not Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).is_relative_to(folder)
