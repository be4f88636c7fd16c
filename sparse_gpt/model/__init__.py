"""The transformer, its parameter table and its taps."""

from sparse_gpt.model.transformer import Transformer, build, build_exact
from sparse_gpt.parameters import Params, abstract_params, flatten, parameter_table, unflatten

__all__ = [
    "Params",
    "Transformer",
    "abstract_params",
    "build",
    "build_exact",
    "flatten",
    "parameter_table",
    "unflatten",
]
