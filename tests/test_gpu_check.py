"""The kit for a GPU machine, as far as it goes without one: parts and their time, packages, the corpus, the plan.

All of it at tiny sizes on a CPU: python tests/gpu_check/run.py --small, python tests/gpu_check/train.py --small.
"""

import dataclasses
import time
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_gpt import presets
from sparse_gpt.costs import accelerator
from sparse_gpt.data import Corpus
from sparse_gpt.sparsity import pallas_rows
from sparse_gpt.stored.initial import load_initial
from sparse_gpt.training import schedules, step
from tests.gpu_check import corpus, kit, run, train_model

HERE = Path(__file__).resolve().parent


def part(tmp_path: Path, code: str, seconds: float = 60.0) -> kit.Part:
    return kit.run_part("p", ["-c", code], seconds, kit.environment(), tmp_path / "log")


def test_a_part_hands_over_results_and_its_last_words(tmp_path: Path) -> None:
    done = part(tmp_path, "from tests.gpu_check.kit import tell; print('a'); tell(x=1); tell(y=None)")
    assert (done.status, done.results, done.tail) == ("done", [{"x": 1}, {"y": None}], "a\n")
    assert (tmp_path / "log").read_text() == "a\n"
    failed = part(tmp_path, "from tests.gpu_check.kit import tell; tell(x=1); raise RuntimeError('no such kernel')")
    assert (failed.status, failed.results) == ("failed", [{"x": 1}])
    assert "no such kernel" in failed.tail


@pytest.mark.slow
def test_a_part_that_hangs_costs_its_time_and_no_more(tmp_path: Path) -> None:
    """With what it started, though that holds its output open."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    started = time.monotonic()
    assert part(tmp_path, code, 3.0).status == "out of time"
    assert time.monotonic() - started < 60


def test_what_does_not_fit_into_the_time_is_skipped_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = run.Run(kit.Budget(time.monotonic(), 10.0), tmp_path, True, kit.environment())
    late.all_parts()
    result = late.result()
    assert (result["parts"], result["skipped"]) == ([], ["parity", "times", "PyTorch d=small"])
    run.report(result)
    assert "times: skipped, no time was left" in capsys.readouterr().out


def test_a_check_that_fails_or_was_not_made_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ok, status, code in ((True, "done", 0), (False, "done", 1), (True, "failed", 1), (True, "out of time", 1)):
        told = [{"device": "GPU"}, {"check": "AbsTopK", "ok": ok, "off": 1.0, "limit": 0.0, "of": "bits"}]

        def part(name: str, *_: object, told: list[dict[str, object]] = told, status: str = status) -> kit.Part:
            return kit.Part(name, status if name == "parity" else "done", 1.0, told, "")

        monkeypatch.setattr(kit, "run_part", part)
        assert run.main([f"--out={tmp_path}"]) == code


def test_carried_packages_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit, match=r"wheels\.sh"):
        kit._unpack_wheels()
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "x = 1")
    for _ in range(2):
        assert (kit._unpack_wheels() / "thing" / "__init__.py").read_text() == "x = 1"


def test_wheels_are_for_what_is_pinned() -> None:
    """A package that moves out of constraints.txt, or a new requirement that nobody has looked at, is noticed."""
    (line,) = (
        each for each in (HERE / "gpu_check" / "wheels.sh").read_text().splitlines() if each.startswith("names=")
    )
    carried = {name.lower() for name in line.removeprefix("names=").strip("'").split()}
    root = HERE.parent
    pins = {each.split("==")[0].lower() for each in (root / "constraints.txt").read_text().split() if "==" in each}
    assert carried <= pins
    wanted = {
        each.split("==")[0].lower() for each in (root / "requirements.txt").read_text().splitlines() if "==" in each
    }
    there = {
        "flax",
        "fsspec",
        "jax",
        "jinja2",
        "matplotlib",
        "ml_dtypes",
        "numpy",
        "optax",
        "orbax-checkpoint",
        "safetensors",
    }
    assert wanted - carried == there | {"scipy", "tiktoken", "tokenizers", "tqdm"}


@pytest.mark.slow
def test_parts_of_a_corpus_become_one(tmp_path: Path) -> None:
    first = corpus.prepare(corpus.PartOf(tmp_path / "0", 0, 20_000, 512))
    second = corpus.prepare(corpus.PartOf(tmp_path / "1", 1, 20_000, 512, str(first / "tokenizer")))
    before = [Corpus.open(each).tokens() for each in (first, second)]
    corpus.join([first, second], tmp_path / "whole")
    whole = Corpus.open(tmp_path / "whole")
    assert whole.tokens() == sum(before)
    assert [source["weight"] for source in whole.manifest["sources"]] == [0.5, 0.5]
    batch = whole.batch("train", 0, 0, 8, 32)
    assert batch.shape == (8, 33)
    assert len(np.unique(batch, axis=0)) == 8


def test_the_whole_schedule_fits_into_the_time() -> None:
    config = train_model.scheduled(presets.gpu(), 0.02, 300.0)
    assert schedules.iterations(config) * 0.02 * train_model.SLOWER <= 300.0 + 0.03
    assert schedules.density(config, config.train.steps, 1 / 32) == 1 / 32
    assert schedules.learning_rate(config, config.train.steps) == 0.0
    assert config.train.steps // config.train.checkpoint_every == 4


@pytest.mark.slow
def test_parameters_come_back_as_init_from_reads_them(tmp_path: Path) -> None:
    config = presets.tiny()
    params = jax.tree.map(np.asarray, step.make_state(config).params)
    train_model.write_params(config, params, tmp_path / "params.npz")
    jax.tree.map(np.testing.assert_array_equal, load_initial(str(tmp_path / "params.npz"), config), params)


def test_the_kernels_take_the_preset_for_gpus() -> None:
    m = presets.gpu().model
    for width in (m.d_model, m.d_mlp, m.n_head * m.d_head):
        assert pallas_rows.gpu_can(jax.ShapeDtypeStruct((64 * m.context, width), jnp.bfloat16))


def test_the_floor_of_a_step_by_hand() -> None:
    """Of 8 layers: 12 d^2 weights each, the unembedding, scores and their products; 22,528 activations a token."""
    config = presets.paper_475m()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=64))
    operations, traffic = accelerator.step_work(config)
    tokens, weights = 64 * 256, 8 * 12 * 2048**2
    assert operations == 6 * tokens * (weights + 2048 * 2048 + 8 * 2048 * 256)
    assert traffic == pytest.approx(32 * (weights + 2 * 2048 * 2048) + 8 * tokens * 8 * 22_528, rel=0.02)
