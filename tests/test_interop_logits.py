"""From tokens to logits of an imported model, and the scripts that do it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse_gpt import config as configs
from sparse_gpt.errors import InputError
from sparse_gpt.interop import hooks, inference, openai
from sparse_gpt.interop.torch_format import read_tensors
from tests import reference_model as reference
from tests.inprocess import launch_here
from tests.reference_small import SMALL, folder_of, ours


def test_activations_are_chosen_by_any_of_their_names() -> None:
    model = configs.ModelConfig(n_layer=2)
    assert hooks.select(model, ["attn_q"]) == [("attn_q", 0), ("attn_q", 1)]
    assert hooks.select(model, ["1.attn_q", "0.mlp.post_act"]) == [("mlp_neuron", 0), ("attn_q", 1)]
    assert hooks.select(model, ["final_resid"]) == hooks.select(model, ["resid_final"]) == [("resid_final", 2)]
    assert hooks.select(model, ["all"]) == hooks.places(model)
    assert len({hooks.name(place, openai=True) for place in hooks.places(model)}) == 2 * 11 + 1
    assert hooks.select(model, []) == []
    for wrong in ("2.attn_q", "attn", "", "0.attn.act_out"):
        with pytest.raises(InputError, match="no such place"):
            hooks.select(model, [wrong])


@pytest.mark.parametrize(
    ("tokens", "part"),
    [
        (np.zeros((2, 3)), "float64"),
        (np.zeros((2, 3), bool), "bool"),
        (np.zeros(3, np.int32), r"shape \(3,\)"),
        (np.zeros((0, 3), np.int32), r"shape \(0, 3\)"),
        (np.zeros((1, 13), np.int32), "context of 12"),
        (np.array([[0, 18], [19, 0]]), r"token 19 at \[1, 0\]"),
        (np.array([[-1]]), "token -1"),
        (np.array([["a"]], object), "not a readable .npy"),
    ],
)
def test_tokens_that_cannot_be_are_refused(tmp_path: Path, tokens: np.ndarray, part: str) -> None:
    np.save(tmp_path / "tokens.npy", tokens, allow_pickle=True)
    model = configs.ModelConfig(vocab_size=19, context=12)
    with pytest.raises(InputError, match=part):
        inference.read_tokens(tmp_path / "tokens.npy", model)


def test_files_that_hold_no_tokens_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("1 2 3")
    np.savez(tmp_path / "many.npz", a=np.zeros((1, 1), np.int32))
    for name, part in (("text.npy", "not a readable .npy"), ("many.npz", "zip archive"), ("absent.npy", "not found")):
        with pytest.raises(InputError, match=part):
            inference.read_tokens(tmp_path / name, configs.ModelConfig())


@pytest.mark.slow
def test_files_of_logits_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    config, params = ours({})
    tokens = np.random.default_rng(0).integers(0, 19, (5, 7)).astype(np.int32)
    places = hooks.select(config.model, ["attn_q", "resid_final"])
    for size in (2, 8):
        activations = inference.ActivationsFile(tmp_path / f"{size}.npz", places)
        inference.write_files(config, params, tokens, tmp_path / f"{size}.npy", activations, batch_size=size)
    found, again = np.load(tmp_path / "2.npy"), np.load(tmp_path / "8.npy")
    assert (found.dtype, found.shape) == (np.float32, (5, 7, 19))
    np.testing.assert_allclose(found, again, rtol=0, atol=1e-5)
    with np.load(tmp_path / "2.npz") as first, np.load(tmp_path / "8.npz") as second:
        assert sorted(first) == sorted(second) == ["0.attn_q", "resid_final"]
        np.testing.assert_allclose(first["0.attn_q"], second["0.attn_q"], rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.npy", "2.npz", "8.npy", "8.npz"]


@pytest.mark.slow
def test_scripts_from_a_downloaded_folder_to_logits_and_back(tmp_path: Path, launch: Any) -> None:
    source = folder_of(tmp_path / "down loaded", SMALL)
    workdir, exported = tmp_path / "runs" / "one", tmp_path / "exported"
    done = launch("import_openai", f"--source={source}", f"--workdir={workdir}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads((workdir / "manifest.json").read_text())["params_sha256"]
    tokens = np.random.default_rng(0).integers(0, 19, (5, 11))
    np.save(tmp_path / "tokens.npy", tokens)
    asked = (f"--workdir={workdir}", f"--tokens={tmp_path / 'tokens.npy'}", f"--logits={tmp_path / 'logits.npy'}")
    done = launch("logits", *asked, "--activations=all", "--names=openai", "--batch_size=2")
    assert done.returncode == 0, done.stderr
    logits, activations = reference.forward(SMALL, reference.random_weights(SMALL, 0), tokens)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=0, atol=1e-5)
    with np.load(tmp_path / "logits.activations.npz") as found:
        assert sorted(found) == sorted(activations)
        for name, x in activations.items():
            np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-5, err_msg=name)
    done = launch("export_openai", f"--workdir={workdir}", f"--output={exported}", "--nosafetensors")
    assert done.returncode == 0, done.stderr
    assert not (exported / "model.safetensors").exists()
    expected = reference.random_weights(SMALL, 0)
    found = read_tensors(exported / openai.WEIGHTS)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--logits=tokens.npy",), "--logits={}/tokens.npy: is a file of --tokens too; name another file"),
        (("--logits=link/tokens.npy",), "is a file of --tokens too"),
        (("--tokens=a.npz", "--logits=a.npy", "--activations_out=./b/../a.npz"), "a.npz: is a file of --tokens too"),
        (("--logits=run/config.json",), "run/config.json: is there already; name a new file, or one that ends in .npy"),
        (("--logits=run/checkpoints/0/logits.npy",), "is among the files of the workdir {}/run; name another file"),
        (("--logits=b/logits.npy", "--init_from=b"), "is a file of --init_from too"),
    ],
)
def test_logits_are_written_over_nothing_that_is_read(tmp_path: Path, flags: tuple[str, ...], part: str) -> None:
    (tmp_path / "run/checkpoints/0").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("tokens.npy", "run/config.json"):
        (tmp_path / name).write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    done = launch_here("logits", "--workdir=run", "--tokens=tokens.npy", *flags, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert part.format(tmp_path) in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert all((tmp_path / name).read_text() == "kept" for name in ("tokens.npy", "run/config.json"))


@pytest.mark.parametrize(
    ("script", "flags", "part"),
    [
        ("import_openai", ("--source=absent", "--workdir=new"), "no such folder"),
        ("logits", ("--workdir=.", "--tokens=a.npy"), "--logits"),
    ],
)
def test_bad_flags_end_with_one_line(tmp_path: Path, script: str, flags: tuple[str, ...], part: str) -> None:
    flags = tuple(flag.replace("=", f"={tmp_path}/") for flag in flags)
    done = launch_here(script, *flags)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
