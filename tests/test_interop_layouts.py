"""What is nearly a folder in the reference's format: the error names what is there, and nothing is made."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparse_gpt.errors import InputError
from sparse_gpt.interop import layouts, openai_weights
from sparse_gpt.presets import preset
from tests.inprocess import launch_here

OWN, WEIGHTS = "beeg_config.json", "final_model.pt"


def _files(**contents: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return make


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}})
CASES: tuple[tuple[str, Callable[[Path], None], tuple[str, ...]], ...] = (
    ("empty", _files(), ("not found", "holds nothing", OWN, WEIGHTS)),
    ("other files", _files(a="", b=""), ("holds a, b",)),
    ("many files", _files(**{f"f{i}": "" for i in range(30)}), ("and 22 more",)),
    ("Hugging Face", _files(config_dot_json="{}", model_dot_safetensors=""), ("config.json and model.safetensors",)),
    ("older", _files(config_dot_json="{}", pytorch_model_dot_bin=""), ("config.json and pytorch_model.bin",)),
    ("weights alone", _files(pytorch_model_dot_bin=""), ("found pytorch_model.bin",)),
    ("sharded", _files(model_dot_safetensors_dot_index_dot_json=INDEX), ("index of 2 files", "Hugging Face")),
    ("sharded, damaged", _files(model_dot_safetensors_dot_index_dot_json="["), ("index of several files",)),
    ("sharded, older", _files(pytorch_model_dot_bin_dot_index_dot_json=INDEX), ("pytorch_model.bin.index.json",)),
    ("weights as folder", _files(beeg_config_dot_json="{}", final_model_dot_pt__a=""), ("is a folder", WEIGHTS)),
    ("unpacked weights", _files(final_model_dot_pt__archive__data_dot_pkl=""), ("unpacked", "zip it")),
    ("inside", _files(model__beeg_config_dot_json="{}"), ("model/beeg_config.json", "name its folder")),
    ("deeper", _files(a__b__beeg_config_dot_json="{}"), ("a/b/beeg_config.json",)),
    ("no weights", _files(beeg_config_dot_json="{}"), (f"{WEIGHTS}: not found",)),
)


@pytest.mark.parametrize(("make", "parts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_there_is_named(make: Callable[[Path], None], parts: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    make(source)
    done = launch_here("import_openai", f"--source={source}", f"--workdir={tmp_path}/new/deep")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    for part in parts:
        assert part in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_configuration_beside_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / OWN).write_text("{}")
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match=r"found .*other/beeg_config\.json"):
        layouts.check_folder(tmp_path / "source")


@pytest.mark.parametrize(
    ("prefix", "part"), [("_orig_mod.", "torch.compile"), ("module.", "DistributedDataParallel"), ("model.", "inside")]
)
def test_a_wrappers_prefix_is_named(prefix: str, part: str) -> None:
    model = preset("tiny").model
    tensors = {prefix + "transformer.wte.weight": np.zeros((model.vocab_size, model.d_model), np.float32)}
    with pytest.raises(InputError, match=part) as reported:
        openai_weights.to_params(model, tensors, WEIGHTS)
    assert repr(prefix) in str(reported.value)
