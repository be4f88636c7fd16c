"""A small model in the reference's format, and one of ours."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.parameters import parameter_table, unflatten
from tests import reference_files as files
from tests import reference_model as reference

SMALL: dict[str, Any] = {
    "block_size": 12,
    "vocab_size": 19,
    "n_layer": 1,
    "n_head": 2,
    "d_head": 3,
    "d_model": 8,
    "d_mlp": 10,
    "rms_norm": True,
    "tied_unembed": False,
    "afrac": 0.5,
    "afrac_loctypes": "attn_in,mlp_neuron",
    "enable_bigram_table": True,
    "sink": True,
}


def folder_of(path: Path, config: dict[str, Any], **options: Any) -> Path:
    """A reference folder with random weights."""
    return files.write_model(path, config, reference.random_weights(config, 0), **options)


def ours(options: dict[str, Any], seed: int = 0) -> tuple[configs.Config, Any]:
    """A model of ours with every parameter drawn at random."""
    config = presets.tiny()
    sizes = {"n_layer": 1, "d_model": 8, "d_mlp": 12, "n_head": 2, "d_head": 3, "vocab_size": 19, "context": 12}
    model = dataclasses.replace(config.model, **sizes, **options)
    config = dataclasses.replace(config, model=model, sparsity=dataclasses.replace(config.sparsity, min_alive=0))
    rng = np.random.default_rng(seed)
    table = parameter_table(model)
    return config, unflatten({path: rng.standard_normal(spec.shape).astype(np.float32) for path, spec in table.items()})
