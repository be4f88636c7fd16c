"""The transformer, its parameter table and its taps."""

from sparse_gpt.model.parameters import Params, abstract_params, flatten, parameter_table, unflatten
from sparse_gpt.model.transformer import Transformer, build

__all__ = ["Params", "Transformer", "abstract_params", "build", "flatten", "parameter_table", "unflatten"]
