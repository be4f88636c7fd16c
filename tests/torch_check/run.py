"""Checks the formats and the reference model against real PyTorch, in an environment of its own.

    bash launch/environment.sh requirements-torch.txt .venv-torch && .venv-torch/bin/python tests/torch_check/run.py

PyTorch reads what we write, we read what PyTorch writes, the float64 reference model computes what PyTorch's modules
compute, and the golden training run is what PyTorch gives (--write_golden makes it anew). Prints a line per check;
exits with 1 at the first failure.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sparse_gpt.errors import InputError
from sparse_gpt.interop.torch_format import read_tensors, write_tensors
from tests import reference_model as reference
from tests.torch_check import mask_search, training
from tests.torch_check.model import Model

SITES = "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out"
SMALL = {"block_size": 20, "vocab_size": 29, "n_layer": 2, "n_head": 2, "d_head": 6, "d_model": 14, "d_mlp": 23}
SPARSE = {"rms_norm": True, "tied_unembed": False, "afrac": 0.3, "afrac_loctypes": SITES}
CASES: list[dict[str, Any]] = [
    SPARSE | {"sink": True, "enable_bigram_table": True},
    SPARSE,
    SPARSE | {"d_pos_emb": 5, "activation_type": "relu", "bias": False},
    SPARSE | {"afrac_loctypes": "resid_post_attn,resid_post_mlp", "residual_activation_type": "relu", "sink": True},
    {"rms_norm": False, "tied_unembed": True},
    {"rms_norm": False, "ln_bias": False, "d_pos_emb": 4, "tied_unembed": False},
]


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array; bfloat16 as ml_dtypes.bfloat16."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def assert_same(array: np.ndarray, tensor: torch.Tensor, name: str) -> None:
    """Same shape, kind and bytes."""
    expected = numpy_of(tensor)
    assert array.shape == expected.shape, name
    assert array.dtype == expected.dtype, name
    assert array.tobytes() == expected.tobytes(), name


def check_pytorch_reads_what_we_write(folder: Path) -> None:
    """torch.load(weights_only=True), also memory-mapped; tied tensors share their storage."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((5, 7)).astype(np.float32)
    arrays = {
        "float32": matrix,
        "transposed": rng.standard_normal((7, 5)).astype(np.float32).T,
        "float16": matrix.astype(np.float16),
        "bfloat16": matrix.astype(ml_dtypes.bfloat16),
        "float64": matrix.astype(np.float64),
        "int64": np.array([-(2**40), 3]),
        "bool": matrix > 0,
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "tied": matrix,
    }
    write_tensors(folder / "ours.pt", arrays)
    for mmap in (False, True):
        loaded = torch.load(folder / "ours.pt", weights_only=True, mmap=mmap)
        assert list(loaded) == list(arrays)
        for name, array in arrays.items():
            assert_same(array, loaded[name], name)
        assert loaded["tied"].data_ptr() == loaded["float32"].data_ptr()


def check_we_read_what_pytorch_writes(folder: Path) -> None:
    """Parameters, shared and non-contiguous storages, every precision, a module's state dict, both pickle protocols."""
    base = torch.randn(6, 8)
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.LayerNorm(4, bias=False))
    state = {
        "base": base,
        "row": base[2],
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "expanded": base[:1].expand(3, 8),
        "parameter": nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 2),
        **{
            str(kind): (base * 9).to(kind)
            for kind in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
        },
    }
    for number, saved in enumerate((state, module.state_dict(), dict(module.named_parameters()))):
        for protocol in (2, 4):
            path = folder / f"theirs{number}.pt"
            torch.save(saved, path, pickle_protocol=protocol)
            found = read_tensors(path)
            assert list(found) == list(saved)
            for name, tensor in saved.items():
                assert_same(found[name], tensor, name)
    shared = read_tensors(folder / "theirs0.pt")
    assert np.shares_memory(shared["row"], shared["base"])


def check_refusals(folder: Path) -> None:
    """A whole module, the old format and a program are refused in one line, the foreign name given."""
    module = nn.Linear(2, 2)
    torch.save(module, folder / "module.pt")
    torch.save(module.state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"optimizer": {"lr": 1.0}}, folder / "nested.pt")
    for name, part in (("module.pt", "torch.nn"), ("old.pt", "before 1.6"), ("nested.pt", "'optimizer'")):
        message = refusal(folder / name)
        assert part in message, message
        assert "\n" not in message


def refusal(path: Path) -> str:
    """The message with which a file is refused."""
    try:
        read_tensors(path)
    except InputError as error:
        return str(error)
    raise AssertionError(f"{path} was read")


def check_the_reference_model(folder: Path) -> None:
    """PyTorch's float32 logits and activations against float64 numpy, through a file of PyTorch's."""
    for number, case in enumerate(CASES):
        config = reference.complete(SMALL | case)
        model = Model(config)
        weights = reference.random_weights(config, number)
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
        torch.save(model.state_dict(), folder / "model.pt")
        stored = read_tensors(folder / "model.pt")
        assert stored.keys() == weights.keys() == reference.parameter_shapes(config).keys()
        tokens = np.random.default_rng(number).integers(0, config["vocab_size"], (3, 17))
        with torch.no_grad():
            logits, seen = model(torch.from_numpy(tokens))
        expected, activations = reference.forward(config, stored, tokens)
        assert seen.keys() == activations.keys()
        for name, x in [*seen.items(), ("logits", logits)]:
            wanted = expected if name == "logits" else activations[name]
            np.testing.assert_allclose(x.numpy(), wanted, rtol=0, atol=1e-5, err_msg=f"{case}: {name}")


def check_the_gated_model(folder: Path) -> None:
    """The model that mask_search.py searches, of which only some nodes are kept, against float64 numpy."""
    del folder
    for number, case in enumerate(CASES[:3]):
        rng, config = np.random.default_rng(number), reference.complete(SMALL | case)
        weights = reference.random_weights(config, number)
        shapes = {site: (config["n_layer"], width) for site, width in reference.site_widths(config).items()}
        values = {site: rng.standard_normal(shape).astype(np.float32) for site, shape in shapes.items()}
        keep = {site: rng.random(shape) < 0.6 for site, shape in shapes.items()}
        samples = [
            {"tokens": rng.integers(0, config["vocab_size"], length).tolist(), "answer_id": 3, "foil_id": 7}
            for length in (5, 1, 17, 9)
        ]
        model = mask_search.GatedModel(config, {site: torch.from_numpy(value) for site, value in values.items()})
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
        gates = {site: torch.from_numpy(kept).float() for site, kept in keep.items()}
        margins = model.margins(gates, mask_search.Batch(samples)).numpy()
        for sample, margin in zip(samples, margins, strict=True):
            support = reference.Support(keep, values)
            logits = reference.forward(config, weights, np.array([sample["tokens"]]), support)[0][0, -1]
            np.testing.assert_allclose(margin, logits[3] - logits[7], rtol=0, atol=1e-5, err_msg=str(case))
        assert model.count_edges(gates) == _edges(weights, keep, config["n_layer"])


def _edges(weights: reference.Weights, keep: dict[str, np.ndarray], layers: int) -> int:
    """Nonzero weights of the blocks between kept nodes, one after the other."""
    found = 0
    for layer in range(layers):
        attention, project, up, down = (
            weights[f"transformer.h.{layer}.{name}.weight"]
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        )
        heads = len(attention) // 3
        parts = [(attention[i * heads : (i + 1) * heads], "attn_in", f"attn_{name}") for i, name in enumerate("qkv")]
        parts += [(project, "attn_v", "attn_out"), (up, "mlp_in", "mlp_neuron"), (down, "mlp_neuron", "mlp_out")]
        for matrix, source, target in parts:
            found += sum(keep[target][layer][i] and keep[source][layer][j] for i, j in np.argwhere(matrix))
    return found


def check_the_golden_training_run(folder: Path) -> None:
    """The recipe `openai_reference`, in PyTorch, against tests/golden."""
    del folder
    training.check()


def main() -> None:
    """Runs every check."""
    if "--write_golden" in sys.argv:
        training.write_golden()
    torch.manual_seed(0)
    print(f"PyTorch {torch.__version__}")
    for check in (
        check_pytorch_reads_what_we_write,
        check_we_read_what_pytorch_writes,
        check_refusals,
        check_the_reference_model,
        check_the_gated_model,
        check_the_golden_training_run,
    ):
        with tempfile.TemporaryDirectory() as folder:
            check(Path(folder))
        print(f"passed: {check.__name__.removeprefix('check_').replace('_', ' ')}")


if __name__ == "__main__":
    main()
