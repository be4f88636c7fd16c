"""The reference's folders: configurations of every age, weights that must fit them, and round trips."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from sparse_gpt import config as configs
from sparse_gpt.data.tokenizer import Tokenizer, train_tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.interop import openai, openai_config, openai_weights, workdirs
from sparse_gpt.interop.torch_format import read_tensors
from sparse_gpt.parameters import flatten, parameter_table
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.training.manifest import params_sha256
from tests import reference_files as files
from tests import reference_model as reference
from tests.reference_small import SMALL, folder_of, ours


def assert_same_model(found: openai.Imported, expected: openai.Imported) -> None:
    assert found.config == expected.config
    leaves, wanted = flatten(found.params), flatten(expected.params)
    assert leaves.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(leaves[path], leaf, err_msg="/".join(path))


# ---------------------------------------------------------------------------------------------------------------------
# Configuration


def test_absent_fields_have_the_references_defaults() -> None:
    config, notes = openai_config.from_fields({})
    m, s = config.model, config.sparsity
    assert (m.context, m.vocab_size, m.n_layer, m.n_head, m.d_model) == (1024, 50304, 12, 12, 768)
    assert (m.d_head, m.d_mlp, m.norm, m.norm_bias, m.bias, m.tied) == (64, 3072, "layer", True, True, True)
    assert (m.activation, m.residual_activation, m.position) == ("gelu", "identity", "additive")
    assert (m.bigram, m.attention_sink, m.d_position) == (False, False, 0)
    assert (s.activation_fraction, s.activation_sites) == (0.0, ("attn_in", "attn_out", "mlp_in", "mlp_out"))
    assert notes == []


def test_the_size_of_the_mlp_had_another_name() -> None:
    assert openai_config.from_fields({"n_mlp": 100})[0].model.d_mlp == 100
    assert openai_config.from_fields({"n_mlp": 100, "d_mlp": None})[0].model.d_mlp == 100
    assert openai_config.from_fields({"n_mlp": None, "d_mlp": 64})[0].model.d_mlp == 64
    with pytest.raises(InputError, match=r"n_mlp=100 and d_mlp=64"):
        openai_config.from_fields({"n_mlp": 100, "d_mlp": 64})


def test_null_stands_for_an_absent_field() -> None:
    assert (
        openai_config.from_fields({"sink": None, "d_pos_emb": None, "afrac": None, "enable_bigram_table": None})[0]
        == (openai_config.from_fields({})[0])
    )


@pytest.mark.parametrize(
    "skew",
    [
        {"pfrac": 0.25, "expansion_factor": 4, "bigram_table_rank": None, "debug_exact_topk": True, "n_embd": 512},
        {"use_tied_aux_matrix": False},
        {"unembed_rank": None, "rtopk": False, "mup": False, "enable_fp8_linear": False, "afrac_ste": True},
        {"some_later_field": None},
    ],
)
def test_fields_that_do_not_change_the_forward_pass_are_reported(skew: dict[str, Any]) -> None:
    config, notes = openai_config.from_fields(SMALL | skew)
    assert config == openai_config.from_fields(SMALL)[0]
    for name in skew:
        assert any(name in note for note in notes), (name, notes)


@pytest.mark.parametrize(
    ("skew", "named"),
    [
        ({"use_tied_aux_matrix": True}, "use_tied_aux_matrix=True"),
        ({"mup": True}, "mup=True"),
        ({"rope_theta": 10000.0}, "rope_theta=10000.0"),
        ({"some_later_field": 0}, "some_later_field=0"),
        ({"activation_type": "silu"}, "silu"),
        ({"residual_activation_type": None, "activation_type": 3}, "activation_type=3"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"n_layer": "2"}, "n_layer='2'"),
        ({"n_layer": True}, "n_layer=True"),
        ({"d_model": 8.0}, "d_model=8.0"),
        ({"rms_norm": 1}, "rms_norm=1"),
        ({"afrac": 1.5}, "afrac=1.5"),
        ({"afrac": 0.0}, "afrac=0.0"),
        ({"afrac": True}, "afrac=True"),
        ({"afrac_loctypes": "attn_in, mlp_in"}, "' mlp_in'"),
        ({"afrac_loctypes": ["attn_in"]}, "afrac_loctypes"),
        ({"d_head": None, "n_head": 3}, "n_head=3"),
    ],
)
def test_other_fields_are_refused_by_name(skew: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        openai_config.from_fields(SMALL | skew)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_our_configuration_survives_the_references_format() -> None:
    for model in (
        configs.ModelConfig(),
        configs.ModelConfig(position="additive", tied=True, norm="layer", norm_bias=True, bias=False),
        configs.ModelConfig(position="concat", d_position=8, activation="relu", residual_activation="relu"),
        configs.ModelConfig(position="sinusoidal", d_position=8, attention_sink=False, bigram=False, norm="layer"),
    ):
        fields = openai_config.to_fields(configs.Config(model=model))
        back, notes = openai_config.from_fields(json.loads(json.dumps(fields)))
        expected = dataclasses.replace(model, position="additive" if model.position == "none" else model.position)
        assert back.model == expected
        assert notes == []


def test_a_fraction_without_sites_is_exported_as_no_abs_topk() -> None:
    """With `afrac` set, an absent list of places stands for four of them in the reference."""
    sparsity = configs.SparsityConfig(activation_fraction=0.25, activation_sites=())
    fields = openai_config.to_fields(configs.Config(sparsity=sparsity))
    assert fields["afrac"] is None
    assert configs.activation_sites(openai_config.from_fields(fields)[0].sparsity) == ()
    one_site = dataclasses.replace(sparsity, activation_sites=("mlp_in",))
    fields = openai_config.to_fields(configs.Config(sparsity=one_site))
    assert (fields["afrac"], fields["afrac_loctypes"]) == (0.25, "mlp_in")


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def test_names_are_those_of_the_reference() -> None:
    for options in (
        {},
        {"rms_norm": False, "d_pos_emb": 4, "sink": False},
        {"bias": False, "enable_bigram_table": False},
    ):
        config, _ = openai_config.from_fields(SMALL | options)
        shapes = {
            openai_weights.reference_name(path): spec.shape[::-1] if openai_weights.is_transposed(path) else spec.shape
            for path, spec in parameter_table(config.model).items()
        }
        assert shapes == reference.parameter_shapes(SMALL | options)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: Any) -> None:
    weights = {name: array.astype(dtype) for name, array in reference.random_weights(SMALL, 0).items()}
    model = openai.read_model(files.write_model(tmp_path / "a", SMALL, weights))
    for path, leaf in flatten(model.params).items():
        assert leaf.dtype == np.float32
        stored = weights[openai_weights.reference_name(path)].astype(np.float32)
        np.testing.assert_array_equal(leaf.T if openai_weights.is_transposed(path) else leaf, stored)


def test_what_the_weights_show_about_the_configuration(tmp_path: Path) -> None:
    weights = reference.random_weights(SMALL, 0)
    weights["transformer.wpe.weight"][:] = 0
    weights["final_logits_bias"][:] = 0
    model = openai.read_model(files.write_model(tmp_path / "a", SMALL, weights))
    assert (model.config.model.position, model.config.model.final_bias) == ("none", False)
    del weights["final_logits_bias"]  # older files
    assert_same_model(openai.read_model(files.write_model(tmp_path / "b", SMALL, weights)), model)


def test_densities_are_measured(tmp_path: Path) -> None:
    weights = reference.random_weights(SMALL, 0, density=0.3)
    s = openai.read_model(files.write_model(tmp_path / "a", SMALL, weights)).config.sparsity
    matrices = [w for name, w in weights.items() if ".h." in name and w.ndim == 2]
    largest = max(np.count_nonzero(w) / w.size for w in matrices)
    assert largest <= s.density <= largest + 1e-4


def test_causal_masks_are_ignored(tmp_path: Path) -> None:
    weights = reference.random_weights(SMALL, 0)
    plain = openai.read_model(files.write_model(tmp_path / "a", SMALL, weights))
    weights["transformer.h.0.attn.bias"] = np.tril(np.ones((1, 1, 12, 12), np.float32))
    assert_same_model(openai.read_model(files.write_model(tmp_path / "b", SMALL | {"flash": False}, weights)), plain)


def change(weights: dict[str, np.ndarray], name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    changed = {key: array for key, array in weights.items() if key != name}
    return changed if value is None else changed | {name: value}


@pytest.mark.parametrize(
    ("config", "name", "value", "parts"),
    [
        ({}, "transformer.h.0.attn.c_proj.weight", np.zeros((8, 5), np.float32), ["(8, 5)", "(8, 6)"]),
        ({}, "transformer.wte.weight", np.zeros((19, 9), np.float32), ["(19, 9)", "(19, 8)"]),
        ({}, "transformer.h.0.mlp.c_fc.bias", None, ["missing", "(10,)"]),
        ({}, "transformer.wpe.weight", None, ["missing"]),
        ({}, "lm_head.weight", np.zeros((19, 8), np.int64), ["int64"]),
        ({}, "transformer.h.1.ln_1.weight", np.zeros(8, np.float32), ["surplus", "n_layer"]),
        ({}, "transformer.h.0.attn.bias", np.zeros((2, 12), np.float32), ["surplus"]),
        ({"sink": False}, "transformer.h.0.attn.attn_imp.sink_logit", np.zeros(2, np.float32), ["surplus", "(sink)"]),
        ({}, "transformer.h.0.attn.attn_imp.sink_logit", None, ["missing", "(sink)"]),
        ({"enable_bigram_table": False}, "bigram_table", np.zeros((19, 19), np.float32), ["surplus", "bigram"]),
        ({"tied_unembed": True}, "lm_head.weight", np.zeros((19, 8), np.float32), ["differs", "tied_unembed"]),
    ],
)
def test_weights_that_contradict_the_configuration_are_refused(
    tmp_path: Path, config: dict[str, Any], name: str, value: np.ndarray | None, parts: list[str]
) -> None:
    weights = change(reference.random_weights(SMALL | config, 0), name, value)
    folder = files.write_model(tmp_path / "model", SMALL | config, weights)
    with pytest.raises(InputError) as error:
        openai.read_model(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in (name, *parts):
        assert part in message, message


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"position": "none"}, "transformer.wpe.weight"),
        ({"position": "sinusoidal", "d_position": 4}, "transformer.wpe.weight"),
        ({"final_bias": False}, "final_logits_bias"),
    ],
)
def test_stored_numbers_are_never_dropped(options: dict[str, Any], name: str) -> None:
    """Tensors that our model does without must hold what it stands for."""
    config, params = ours(options)
    tensors = openai_weights.to_tensors(config.model, params)
    openai_weights.to_params(config.model, tensors, "x")
    tensors[name] = tensors[name] + np.float32(0.5)
    with pytest.raises(InputError, match=name):
        openai_weights.to_params(config.model, tensors, "x")


def test_missing_and_damaged_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        openai.read_model(tmp_path / "absent")
    folder = folder_of(tmp_path / "model", SMALL)
    for content in ("{", "[1]", "\ufffd"):
        (folder / openai_config.FILE).write_text(content)
        with pytest.raises(InputError, match="beeg_config"):
            openai.read_model(folder)
    (folder / openai_config.FILE).unlink()
    with pytest.raises(InputError, match=r"beeg_config\.json: not found"):
        openai.read_model(folder)


# ---------------------------------------------------------------------------------------------------------------------
# Workdirs and round trips


def workdir_of(path: Path, config: configs.Config, params: Any) -> Path:
    """A workdir as training leaves it, as far as export needs it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(configs.to_dict(config)))
    (path / "manifest.json").write_text(json.dumps({"corpus_sha256": "ab" * 32, "packages": {"jax": "1.2"}}))
    save_params(path, params, 7)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"position": "additive", "tied": True},
        {"position": "concat", "d_position": 4, "norm": "layer", "norm_bias": True},
        {"position": "sinusoidal", "d_position": 4, "attention_sink": False, "bigram": False, "final_bias": False},
    ],
)
def test_import_after_export_gives_the_same_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    config, params = ours(options)
    first = workdir_of(tmp_path / "first", config, params)
    workdirs.export_openai(first, tmp_path / "exported")
    imported = workdirs.import_openai(tmp_path / "exported", tmp_path / "second")
    assert_same_model(imported, openai.Imported(config, params, []))
    assert configs.load(tmp_path / "second") == config
    stored, _ = load_params(tmp_path / "second", config.model)
    jax.tree.map(np.testing.assert_array_equal, stored, params)
    workdirs.export_openai(tmp_path / "second", tmp_path / "again")
    for name in (openai_config.FILE, openai.WEIGHTS, openai.OWN_CONFIG):
        assert (tmp_path / "exported" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize("stale", [False, True], ids=["today's export", "an older export"])
def test_folders_of_the_machine_that_trained_stay_there(tmp_path: Path, stale: bool) -> None:
    """Nobody has them where the export goes: what opens the corpus or tokenizer would look for them in vain."""
    plain, params = ours({})
    config = configs.replace(plain, {"data.corpus": "/there/corpus", "data.tokenizer": "/there/tokenizer"})
    workdirs.export_openai(workdir_of(tmp_path / "first", config, params), tmp_path / "exported")
    own = tmp_path / "exported" / openai.OWN_CONFIG
    written = json.loads(own.read_text())
    assert "/there" not in own.read_text()
    if stale:
        own.write_text(json.dumps({**written, openai.OWN_KEY: configs.to_dict(config)}))
    workdirs.import_openai(tmp_path / "exported", tmp_path / "second")
    assert configs.load(tmp_path / "second") == plain


def test_zeros_of_our_own_models_come_back_as_they_were(tmp_path: Path) -> None:
    """All-zero positions of an untrained model are still positions when our own configuration says so."""
    config, params = ours({"position": "additive"})
    params = {**params, "wpe": np.zeros_like(params["wpe"])}
    workdirs.export_openai(workdir_of(tmp_path / "first", config, params), tmp_path / "exported")
    assert openai.read_model(tmp_path / "exported").config.model.position == "additive"
    (tmp_path / "exported" / openai.OWN_CONFIG).unlink()
    assert openai.read_model(tmp_path / "exported").config.model.position == "none"


def test_a_stale_config_of_ours_is_not_believed(tmp_path: Path) -> None:
    """beeg_config.json and the weights decide, not the config.json that an export put beside them."""
    config, params = ours({})
    exported = tmp_path / "exported"
    workdirs.export_openai(workdir_of(tmp_path / "first", config, params), exported)
    fields = openai_config.to_fields(config)
    (exported / openai_config.FILE).write_text(json.dumps(fields | {"afrac": 0.125}))
    assert openai.read_model(exported).config.sparsity.activation_fraction == 0.125
    (exported / openai_config.FILE).write_text(json.dumps(fields))
    assert openai.read_model(exported).config == config
    tensors = {name: np.array(array) for name, array in read_tensors(exported / openai.WEIGHTS).items()}
    tensors["transformer.wpe.weight"][0, 0] = 1.0
    files.save(exported / openai.WEIGHTS, tensors)
    assert openai.read_model(exported).config.model.position == "additive"


def test_the_exported_folder(tmp_path: Path) -> None:
    config, params = ours({})
    workdirs.export_openai(workdir_of(tmp_path / "first", config, params), tmp_path / "exported")
    expected = read_tensors(tmp_path / "exported" / openai.WEIGHTS)
    stored = load_file(tmp_path / "exported" / "model.safetensors")
    assert stored.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert card.startswith("---\n")
    for fact in ("ab" * 32, params_sha256(params), "| training step | 7 |", "jax 1.2"):
        assert fact in card
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["hidden_size"] == 8
    assert not list(tmp_path.glob(".*"))


def test_tokenizers_travel_both_ways(tmp_path: Path) -> None:
    """encoder.json and vocab.bpe beside the weights give the workdir its tokenizer, and leave with the export."""
    tokenizer = train_tokenizer(["def f(x):\n    return x\n" * 20], 270)
    weights = reference.random_weights(SMALL | {"vocab_size": 272}, 0)
    source = files.write_model(tmp_path / "model", SMALL | {"vocab_size": 272}, weights)
    tokenizer.save(source)
    (source / "tokenizer.json").unlink()
    workdirs.import_openai(source, tmp_path / "one")
    assert Tokenizer.load(tmp_path / "one" / "tokenizer").sha256 == tokenizer.sha256
    assert json.loads((tmp_path / "one" / "manifest.json").read_text())["tokenizer_sha256"] == tokenizer.sha256
    workdirs.export_openai(tmp_path / "one", tmp_path / "exported")
    for name in workdirs.TOKENIZER_PAIR:
        assert (tmp_path / "exported" / name).read_bytes() == (source / name).read_bytes()
    with pytest.raises(InputError, match="270 entries"):
        workdirs.import_openai(folder_of(tmp_path / "small", SMALL), tmp_path / "two", tokenizer=source)


def test_folders_in_use_are_refused_and_failures_leave_nothing(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "model", SMALL)
    with pytest.raises(InputError, match="not empty"):
        workdirs.import_openai(source, source)
    (source / openai.WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a torch"):
        workdirs.import_openai(source, tmp_path / "workdir")
    with pytest.raises(InputError, match="no tokenizer"):
        workdirs.import_openai(folder_of(tmp_path / "whole", SMALL), tmp_path / "workdir", tokenizer=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


# ---------------------------------------------------------------------------------------------------------------------
# Names of activations, files of tokens and logits


# ---------------------------------------------------------------------------------------------------------------------
# The scripts
