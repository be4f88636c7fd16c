"""Where a run starts from, and what it survives: signals, kills, damaged and foreign checkpoints, a full disk."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, prepare_corpus
from sparse_gpt.errors import InputError
from sparse_gpt.interop.openai_weights import to_tensors
from sparse_gpt.interop.params_file import ParamsFile
from sparse_gpt.parameters import Params
from sparse_gpt.training import checkpoint, loop, manifest, run, sharding, step
from sparse_gpt.training.checkpoint import Checkpoints, full_disk, load_params
from sparse_gpt.training.objective import LanguageModel
from sparse_gpt.training.step import TrainState
from tests.inprocess import launch_here

REPOSITORY = Path(__file__).resolve().parent.parent
OVERRIDES = {
    "model.n_layer": 1, "model.d_model": 16, "model.d_mlp": 32, "model.vocab_size": 32, "model.context": 8,
    "sparsity.density": 0.5, "train.batch_size": 4, "train.checkpoint_every": 20, "train.log_every": 20,
}  # fmt: skip
ON_CORPUS = configs.replace(
    presets.tiny(),
    OVERRIDES
    | {"model.vocab_size": 320, "train.batch_size": 8, "train.steps": 5}
    | {"data.sources": "idioms:1", "data.tokens": 8_000, "data.validation_fraction": 0.2},
)


def small(steps: int) -> Config:
    return configs.validate(configs.replace(presets.tiny(), OVERRIDES | {"train.steps": steps}))


def tokens(steps: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 32, (steps, 4, 9)).astype(np.int32)


def train(workdir: Path, config: Config, **options: Any) -> loop.Result:
    mesh = sharding.make_mesh(config, jax.devices()[:1])
    given = run.given_batches(tokens(config.train.steps), mesh)
    return loop.train(config, workdir, given, progress=False, mesh=mesh, **options)


@pytest.mark.slow
def test_resuming_goes_before_init_from_and_init_from_before_scratch(workdir: Path) -> None:
    config = small(5)
    scratch, model = step.make_state(config).params, LanguageModel(config)
    ones = jax.tree.map(jnp.ones_like, scratch)
    batches = run.given_batches(tokens(5), sharding.make_mesh(config, jax.devices()[:1]))
    with Checkpoints(workdir) as checkpoints:

        def start(init_from: Params | None) -> tuple[int, TrainState]:
            return loop._starting_point(
                checkpoints, lambda: loop._fresh_state(config, batches, init_from, model), model
            )

        assert start(None)[0] == 0
        from_scratch, from_ones = start(None)[1].params, start(ones)[1].params
        twos = jax.tree.map(lambda x: 2 * x, ones)
        checkpoints.save(3, twos, step.make_state(config).optimizer)
        checkpoints.wait()
        finished, resumed = start(ones)
    assert finished == 3
    for found, wanted in ((from_scratch, scratch), (from_ones, ones), (resumed.params, twos)):
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_pipe_in_a_checkpoint_is_not_waited_for(workdir: Path) -> None:
    (workdir / "checkpoints" / "3" / "params").mkdir(parents=True)
    os.mkfifo(workdir / "checkpoints" / "3" / "params" / "_METADATA")
    with pytest.raises(InputError, match="_METADATA: not a regular file"):
        load_params(workdir, small(5).model)


def save(workdir: Path, at: int = 1, **shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(at, params)
    return params


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"a": (2, 3)}, "of another model: it has a tensor b"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, "of another model: it has no tensor c"),
        ({"a": (2, 2), "b": (4,)}, r"a has shape \(2, 3\) there, \(2, 2\) here"),
    ],
)
def test_a_checkpoint_of_another_model_says_what_differs(workdir: Path, wanted: Any, message: str) -> None:
    save(workdir, a=(2, 3), b=(4,))
    with Checkpoints(workdir) as checkpoints, pytest.raises(InputError, match=message):
        checkpoints.restore_newest(
            {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in wanted.items()}, None
        )


def test_a_newer_format_is_refused(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "FORMAT", 2)
        params = save(workdir, a=(2,))
    with Checkpoints(workdir) as checkpoints, pytest.raises(InputError, match="format 2; this version reads up to 1"):
        checkpoints.restore_newest(params, None)


@pytest.mark.parametrize("steps", [(4,), (3, 4)], ids=str)
def test_a_damaged_checkpoint_is_replaced_when_training_comes_to_its_step_again(
    workdir: Path, steps: tuple[int, ...]
) -> None:
    for step_saved in (2, 4):
        params = save(workdir, step_saved, a=(2,))
    for file in (workdir / "checkpoints" / "4" / "params").glob("**/d/*"):
        file.write_bytes(bytes(8))
    for again in steps:
        with Checkpoints(workdir) as checkpoints:
            found = checkpoints.restore_newest(params, None)
            assert found is not None
            assert found[0] == (2 if again == steps[0] else steps[0])
            checkpoints.save(again, {"a": again * params["a"]})
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore_newest(params, None)
    assert found is not None
    assert (found[0], found[3]) == (4, [])
    np.testing.assert_array_equal(found[1]["a"], 4 * params["a"])


def made_corpus(folder: Path, seed: int) -> Corpus:
    return prepare_corpus(folder, configs.replace(ON_CORPUS, {"data.seed": seed}).data, 320, progress=False)


def on_corpus(workdir: Path, folder: Path | str) -> None:
    run.train_on_corpus(configs.replace(ON_CORPUS, {"data.corpus": str(folder)}), workdir, progress=False)


def test_a_run_that_has_begun_keeps_its_corpus_wherever_that_is(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, other = (made_corpus(tmp_path / f"corpus {seed}", seed) for seed in (0, 1))
    trained: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "train", lambda *_, facts, **__: trained.append(facts))
    on_corpus(workdir, corpus.folder)
    manifest.update(workdir, trained[0])
    (workdir / "metrics.jsonl").write_text('{"step": 0}\n')
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    differs = rf"data\.corpus=.*{other.sha256[:12]}.*{corpus.sha256[:12]}.*choose a new --workdir"
    with pytest.raises(InputError, match=differs):
        on_corpus(workdir, other.folder)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    on_corpus(workdir, corpus.folder.rename(tmp_path / "moved"))
    assert trained[1] == trained[0]
    (workdir / "manifest.json").write_text("{}")  # as of older runs and imports
    on_corpus(workdir, other.folder)
    assert trained[2]["corpus_sha256"] == other.sha256


def test_the_configuration_follows_a_corpus_that_moves(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is absolute, and that of the corpus as it was last found; nothing else in an older file changes."""

    class Claimed(Exception):
        pass

    def stop(*_: object) -> None:
        raise Claimed

    def claimed(folder: str) -> dict[str, Any]:
        with pytest.raises(Claimed):
            on_corpus(workdir, folder)
        found: dict[str, Any] = json.loads((workdir / "config.json").read_text())
        return found

    monkeypatch.setattr(loop, "Checkpoints", stop)
    monkeypatch.chdir(tmp_path)
    corpus = made_corpus(tmp_path / "corpus", 0)
    config = claimed("corpus")
    assert config["data"]["corpus"] == str(tmp_path / "corpus")
    (workdir / "metrics.jsonl").write_text('{"step": 0}\n')
    del config["sparsity"]["revive_every"], config["bridge"]  # as of an older version
    (workdir / "config.json").write_text(json.dumps(config))
    assert claimed("corpus") == config
    corpus.folder.rename(tmp_path / "moved")
    assert claimed("moved") == {**config, "data": {**config["data"], "corpus": str(tmp_path / "moved")}}
    (tmp_path / "moved").rename(workdir / "corpus")
    assert claimed("") == {**config, "data": {**config["data"], "corpus": ""}}


def test_a_corpus_that_was_prepared_for_a_refused_run_goes_again(workdir: Path) -> None:
    workdir.mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text('{"step": 0}\n')
    manifest.update(workdir, {"corpus_sha256": "ab" * 32})
    with pytest.raises(InputError, match=r"data\.corpus=.*abababababab.*choose a new --workdir"):
        on_corpus(workdir, "")
    assert sorted(os.listdir(workdir)) == ["manifest.json", "metrics.jsonl"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# Where one write has failed, orbax closes its loop of events, and another write that ends then complains of that.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_line_and_leaves_older_checkpoints_alone(tiny_disk: Path) -> None:
    rng = np.random.default_rng(0)  # random, because checkpoints are compressed
    params = {"a": jnp.asarray(rng.random(100_000), jnp.float32)}
    with Checkpoints(tiny_disk) as checkpoints:
        checkpoints.save(1, params)
    with pytest.raises(InputError, match="the disk is full; finished checkpoints are intact"), full_disk(tiny_disk):
        overfill(tiny_disk, rng)
    with Checkpoints(tiny_disk) as checkpoints:
        found = checkpoints.restore_newest(params, None)
    assert found is not None
    assert found[0] == 1
    np.testing.assert_array_equal(found[1]["a"], params["a"])


def overfill(folder: Path, rng: np.random.Generator) -> None:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, {"a": jnp.asarray(rng.random(400_000), jnp.float32)})
        checkpoints.wait()


def test_only_a_full_disk_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disk is full"), full_disk(tmp_path):
        raise ValueError("wrapped") from OSError(errno.ENOSPC, "as a library would")
    with pytest.raises(ValueError, match="something else"), full_disk(tmp_path):
        raise ValueError("something else")


# ---------------------------------------------------------------------------------------------------------------------
# Parameters written on the way, and rows shorter than the context


def test_parameters_are_written_under_any_name_and_nothing_else(tmp_path: Path) -> None:
    config, path = small(5), tmp_path / "weights.bin"
    params = step.make_state(config).params
    write = ParamsFile(config, path, 2)
    for finished in range(6):
        write(finished, jax.tree.map(lambda x, n=finished: np.full(x.shape, n, np.float32), params))
        assert path.exists() == (finished >= 2)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with np.load(path) as tensors:
        assert (tensors["transformer.wte.weight"] == 2).all()


def test_parameters_of_a_step_that_does_not_come_are_refused(tmp_path: Path) -> None:
    config, path = small(5), tmp_path / "at.npz"
    params = step.make_state(config).params
    with pytest.raises(InputError, match="--params_at=6: the run has 5 steps"):
        ParamsFile(config, path, 6)
    ParamsFile(config, path, 5)
    ParamsFile(configs.replace(config, {"optimizer.recipe": "openai_reference"}), path, 6)
    with pytest.raises(InputError, match="--params_at=2: the run resumes after 3 steps; give 3 or more"):
        ParamsFile(config, path, 2)(3, params)
    ParamsFile(config, None, None)(3, params)
    ParamsFile(config, path, None)(3, params)
    assert not path.exists()
    ParamsFile(config, path, 3)(3, params)
    assert path.exists(), "what a run resumes after is at hand"
    ParamsFile(config, path, 2)(3, params)  # written before the run was interrupted: the same command resumes


@pytest.mark.slow
def test_rows_may_be_shorter_than_the_context_and_initial_parameters_can_be_had(workdir: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", tokens(3).astype(np.int64))
    overrides = {name: value for name, value in OVERRIDES.items() if name != "train.batch_size"} | {"model.context": 16}
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    flags += ["--preset=tiny", f"--workdir={workdir}", f"--batches={tmp_path / 'short.npy'}"]

    def launched(out: str, at: int) -> "subprocess.CompletedProcess[str]":
        return launch_here("train", *flags, f"--params_out={tmp_path / out}", f"--params_at={at}")

    late = launched("late.npz", 4)
    assert (late.returncode, workdir.exists()) == (2, False)
    assert "--params_at=4: the run has 3 steps" in late.stderr
    done = launched("initial", 0)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["tokens"]) for row in rows] == [(0, 4 * 8), (2, 3 * 4 * 8)]
    config = configs.load(workdir)
    wanted = to_tensors(config.model, step.make_state(config).params)
    with np.load(tmp_path / "initial") as found:
        assert set(found.files) == set(wanted)
        for name, tensor in wanted.items():
            np.testing.assert_array_equal(found[name], tensor)
    before = (workdir / "metrics.jsonl").read_bytes()
    passed = launched("passed", 0)
    assert passed.returncode == 2
    assert "--params_at=0: the run resumes after 3 steps" in passed.stderr
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert launched("initial", 0).returncode == 0
    assert launched("last", 3).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"short.npy", "initial", "last", workdir.parent.name}


# ---------------------------------------------------------------------------------------------------------------------
# The script, as a process that can be stopped


def start(workdir: Path, batches: Path) -> "subprocess.Popen[str]":
    """Output goes to a file: a pipe that nobody reads would stop the process once it is full."""
    flags = [f"--config.{name}={value}" for name, value in OVERRIDES.items() if name != "train.batch_size"]
    flags += ["--preset=tiny", f"--workdir={workdir}", f"--batches={batches}"]
    command = [sys.executable, "-m", "launch.train", *flags]
    with (batches.parent / "log").open("w") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, text=True)


def until_checkpoint(process: "subprocess.Popen[str]", workdir: Path, before: int) -> int:
    """Waits for a checkpoint later than step `before`; returns the newest step."""
    while process.poll() is None:
        steps = [int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal()]
        if max(steps, default=0) > before:
            return max(steps)
        time.sleep(0.02)
    raise AssertionError(f"ended with exit code {process.returncode} before a checkpoint of a step after {before}")


@pytest.mark.slow
def test_a_stopped_and_a_killed_run_end_like_an_undisturbed_one(workdir: Path, tmp_path: Path) -> None:
    steps, batches = 300, tmp_path / "batches.npy"
    np.save(batches, tokens(steps))
    process = start(workdir, batches)
    until_checkpoint(process, workdir, 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 75, "its own exit code: saved, run again to resume"
    assert re.search("saved[.;] [Tt]he same command resumes", (tmp_path / "log").read_text())

    process = start(workdir, batches)
    until_checkpoint(process, workdir, load_params(workdir, configs.load(workdir).model)[1])
    process.kill()
    assert process.wait(timeout=300) == -signal.SIGKILL

    for folder in (workdir, tmp_path / "straight"):
        assert start(folder, batches).wait(timeout=300) == 0, (tmp_path / "log").read_text()
    held, wanted = (json.loads((folder / "manifest.json").read_text()) for folder in (workdir, tmp_path / "straight"))
    assert held["params_sha256"] == wanted["params_sha256"]
    assert load_params(workdir, configs.load(workdir).model)[1] == steps
