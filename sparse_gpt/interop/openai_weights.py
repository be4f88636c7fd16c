"""The reference's state dict to and from our parameter tree.

The reference stores matrices as (out, in), ours are (in, out); embedding and tables are alike. Nothing is copied on the
way: matrices become transposed views, so that a large file stays on disk until a tensor is used.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.interop.layouts import check_names
from sparse_gpt.model.transformer import sinusoids
from sparse_gpt.parameters import Params, Path, flatten, parameter_table, unflatten

Tensors = dict[str, np.ndarray]

WPE, FINAL_BIAS, UNEMBEDDING = "transformer.wpe.weight", "final_logits_bias", "lm_head.weight"
_TOP = {
    "wte": "transformer.wte.weight",
    "wpe": WPE,
    "lm_head": UNEMBEDDING,
    "final_logits_bias": FINAL_BIAS,
    "bigram": "bigram_table",
}
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias", "sink": "attn_imp.sink_logit"}
_CAUSAL_MASK = re.compile(r"transformer\.h\.\d+\.attn\.bias")
_HINTS = {  # what a surplus or missing tensor says about the configuration
    "sink_logit": "sink",
    "bigram_table": "enable_bigram_table",
    ".ln_p": "d_pos_emb",
    ".bias": "bias and ln_bias",
    "transformer.h.": "n_layer",
}


def reference_name(path: Path) -> str:
    """The state dict's name of one of our parameters."""
    if len(path) == 1:
        return _TOP[path[0]]
    *modules, leaf = path
    module = modules[0].replace("h_", "h.", 1) if modules[0].startswith("h_") else modules[0]
    return ".".join(["transformer", module, *modules[1:], _LEAF[leaf]])


def is_transposed(path: Path) -> bool:
    """Whether the state dict holds the transpose of our parameter."""
    return path[-1] in ("kernel", "lm_head")


def refine(config: Config, tensors: Mapping[str, np.ndarray]) -> tuple[Config, list[str]]:
    """What the stored tensors show about the configuration.

    The reference always stores positions and a final bias, used or not: all zeros mean that there are none. Sinusoids
    that differ from ours in any bit (they are computed in float32 there) are kept as a table of numbers.
    """
    m, notes = config.model, []
    wpe, final_bias = tensors.get(WPE), tensors.get(FINAL_BIAS)
    if m.position == "additive" and wpe is not None and not np.any(wpe):
        m = dataclasses.replace(m, position="none")
        notes.append("positions are all zero: imported as a model without positions")
    if m.position == "sinusoidal" and wpe is not None and not _equals_our_sinusoids(m, wpe):
        m = dataclasses.replace(m, position="concat")
        notes.append("sinusoids imported as a table, number for number")
    if final_bias is None or not np.any(final_bias):
        m = dataclasses.replace(m, final_bias=False)
    return dataclasses.replace(config, model=m), notes


def _equals_our_sinusoids(m: ModelConfig, wpe: np.ndarray) -> bool:
    return m.d_position % 2 == 0 and np.array_equal(wpe, sinusoids(m.context, m.d_position))


def to_params(m: ModelConfig, tensors: Mapping[str, np.ndarray], source: str) -> Params:
    """The parameter tree (float32; views of the given arrays where they are float32 already).

    Raises:
      InputError: for a tensor that is missing, surplus, of another shape or kind than the configuration says, and for
        a tied unembedding that is not the embedding.
    """
    check_names(tensors, source)
    leaves: dict[Path, np.ndarray] = {}
    remaining = {name: array for name, array in tensors.items() if not _is_causal_mask(name, array)}
    for path, spec in parameter_table(m).items():
        shape = spec.shape[::-1] if is_transposed(path) else spec.shape
        array = _taken(remaining, reference_name(path), shape, source)
        leaves[path] = array.T if is_transposed(path) else array
    _take_unused(m, remaining, leaves["wte",], source)
    for name, array in remaining.items():
        raise InputError(f"{source}: surplus tensor {name} {array.shape}{_hint(name)}")
    return unflatten(leaves)


def _taken(tensors: Tensors, name: str, shape: tuple[int, ...], source: str, *, optional: bool = False) -> np.ndarray:
    """Removes a tensor from `tensors`, checked, as float32; zeros for an optional one that is not there."""
    if optional and name not in tensors:
        return np.zeros(shape, np.float32)
    if name not in tensors:
        raise InputError(f"{source}: tensor {name} {shape} is missing{_hint(name)}")
    array = tensors.pop(name)
    if array.shape != shape:
        raise InputError(f"{source}: tensor {name} has shape {array.shape}, expected {shape} from beeg_config.json")
    if array.dtype.kind not in "fV":  # bfloat16 has kind V
        raise InputError(f"{source}: tensor {name} has dtype {array.dtype}, expected floating point")
    return array if array.dtype == np.float32 else array.astype(np.float32)


def _take_unused(m: ModelConfig, remaining: Tensors, embedding: np.ndarray, source: str) -> None:
    """Removes the tensors that the reference stores although this model does not need them, each checked first."""
    if m.tied:
        head = _taken(remaining, UNEMBEDDING, (m.vocab_size, m.d_model), source)
        if not np.array_equal(head, embedding, equal_nan=True):
            raise InputError(
                f"{source}: {UNEMBEDDING} differs from {_TOP['wte']}, but beeg_config.json says tied_unembed=true"
            )
    if m.position in ("none", "sinusoidal"):
        wpe = _taken(remaining, WPE, (m.context, m.d_position or m.d_model), source)
        expected = sinusoids(m.context, m.d_position) if m.position == "sinusoidal" else np.zeros((1, 1), np.float32)
        if not (wpe == expected).all():
            raise InputError(f"{source}: {WPE} holds other positions than position={m.position} stands for")
    if not m.final_bias and np.any(_taken(remaining, FINAL_BIAS, (m.vocab_size,), source, optional=True)):
        raise InputError(f"{source}: {FINAL_BIAS} is not zero, but the model has none (final_bias=false)")


def _is_causal_mask(name: str, array: np.ndarray) -> bool:
    """Whether this is the (1, 1, T, T) buffer that models without flash attention carry."""
    shape = array.shape
    return bool(_CAUSAL_MASK.fullmatch(name)) and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _hint(name: str) -> str:
    """Which field of the configuration decides whether this tensor is there."""
    field = next((field for part, field in _HINTS.items() if part in name), None)
    return f"; beeg_config.json ({field}) contradicts the weights, or the file is incomplete" if field else ""


def to_tensors(m: ModelConfig, params: Params) -> Tensors:
    """The state dict of a model, complete as the reference stores it; matrices are transposed views of `params`.

    Tied models hold the same array under both names.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    tensors = {}
    for path in parameter_table(m):
        leaf = leaves[path]
        tensors[reference_name(path)] = leaf.T if is_transposed(path) else leaf
    if m.position == "none":
        tensors[WPE] = np.zeros((m.context, m.d_model), np.float32)
    if m.position == "sinusoidal":
        tensors[WPE] = sinusoids(m.context, m.d_position)
    if m.tied:
        tensors[UNEMBEDDING] = tensors[_TOP["wte"]]
    if not m.final_bias:
        tensors[FINAL_BIAS] = np.zeros(m.vocab_size, np.float32)
    return tensors
