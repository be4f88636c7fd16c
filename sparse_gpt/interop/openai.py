"""Folders in the reference's format: beeg_config.json and final_model.pt."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.interop import layouts, openai_config, openai_weights
from sparse_gpt.interop.torch_format import read_tensors, write_tensors
from sparse_gpt.io import read_json, write_json
from sparse_gpt.parameters import EMBEDDING, MATRIX, Params, flatten, parameter_table

WEIGHTS = layouts.WEIGHTS
OWN_CONFIG = "config.json"  # beside them in our exports; its entry OWN_KEY is our configuration
OWN_KEY = "sparse_gpt"


@dataclasses.dataclass(frozen=True)
class Imported:
    """A model read from the reference's format. `params` are read-only views of the file where possible."""

    config: Config
    params: Params
    notes: list[str]


def read_model(folder: str | Path) -> Imported:
    """Reads beeg_config.json and final_model.pt.

    An export of this project also carries our own configuration; it is taken when it describes the same model, so that
    export and import give back the same workdir.

    Raises:
      InputError: if a file is missing, damaged, or if configuration and weights contradict each other.
    """
    folder = Path(folder)
    layouts.check_folder(folder)
    fields = read_json(folder / openai_config.FILE)
    config, notes = openai_config.from_fields(fields, str(folder / openai_config.FILE))
    tensors = read_tensors(folder / WEIGHTS)
    source = str(folder / WEIGHTS)
    own = _own_config(folder, fields, tensors)
    if own is not None:
        return Imported(own, openai_weights.to_params(own.model, tensors, source), notes)
    config, more = openai_weights.refine(config, tensors)
    params = openai_weights.to_params(config.model, tensors, source)
    return Imported(configs.validate(_with_densities(config, params)), params, notes + more)


def write_model(folder: str | Path, config: Config, params: Params) -> None:
    """Writes beeg_config.json and final_model.pt into an existing folder. Equal models give equal bytes."""
    folder = Path(folder)
    write_json(folder / openai_config.FILE, openai_config.to_fields(config))
    write_tensors(folder / WEIGHTS, openai_weights.to_tensors(config.model, params))


def _own_config(folder: Path, fields: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> Config | None:
    """Our configuration from an export of ours, if it says the same as beeg_config.json and the weights; without the
    folders that older exports name."""
    path = folder / OWN_CONFIG
    if not path.is_file():
        return None
    try:
        own = configs.validate(configs.from_dict(read_json(path)[OWN_KEY], str(path)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # somebody else's config.json
    if openai_config.to_fields(own) != dict(fields):
        return None
    if own.model.position == "none" and np.any(tensors.get(openai_weights.WPE, True)):
        return None
    if not own.model.final_bias and np.any(tensors.get(openai_weights.FINAL_BIAS, False)):
        return None
    return configs.without_folders(own)


def _with_densities(config: Config, params: Params) -> Config:
    """The configuration with the densities that the weights show, as if the model had been trained here."""
    table, leaves = parameter_table(config.model), flatten(params)

    def density(kind: str) -> float:
        fractions = [np.count_nonzero(leaves[p]) / spec.size for p, spec in table.items() if spec.kind == kind]
        return min(1.0, max(1e-4, math.ceil(1e4 * max(fractions)) / 1e4))

    measured = dataclasses.replace(config.sparsity, density=density(MATRIX), embedding_density=density(EMBEDDING))
    for min_alive in (4, 3, 2, 1):
        fitting = dataclasses.replace(config, sparsity=dataclasses.replace(measured, min_alive=min_alive))
        try:
            return configs.validate(fitting)
        except InputError:
            continue  # more than the weights leave alive
    return dataclasses.replace(config, sparsity=measured)
