"""Weight-sparse transformers with interpretable circuits, in JAX and Flax.

    import sparse_gpt as sg

    model = sg.open("laptop")
    found = model.find_circuit("single_double_quote")

Everything listed in `__all__` is public and documented with an example; other modules may change.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sparse_gpt.api.compare import Comparison, compare
    from sparse_gpt.api.interventions import ablate, keep, patch, steer
    from sparse_gpt.api.losses import Losses
    from sparse_gpt.api.model import Model, stored_models, train
    from sparse_gpt.api.model import open_model as open
    from sparse_gpt.api.runs import Run
    from sparse_gpt.circuits.circuit import Circuit, Edge
    from sparse_gpt.circuits.pipeline import FoundCircuit, find_circuit
    from sparse_gpt.circuits.problem import Problem
    from sparse_gpt.config import Config
    from sparse_gpt.errors import InputError
    from sparse_gpt.presets import preset
    from sparse_gpt.records import Node
    from sparse_gpt.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "Circuit",
    "Comparison",
    "Config",
    "Edge",
    "FoundCircuit",
    "InputError",
    "Losses",
    "Model",
    "Node",
    "Problem",
    "Run",
    "Task",
    "ablate",
    "compare",
    "find_circuit",
    "keep",
    "open",
    "patch",
    "preset",
    "steer",
    "stored_models",
    "train",
]

_HOMES = {
    "api.compare": ("Comparison", "compare"),
    "api.interventions": ("ablate", "keep", "patch", "steer"),
    "api.losses": ("Losses",),
    "api.model": ("Model", "open_model", "stored_models", "train"),
    "api.runs": ("Run",),
    "circuits.circuit": ("Circuit", "Edge"),
    "circuits.pipeline": ("FoundCircuit", "find_circuit"),
    "circuits.problem": ("Problem",),
    "config": ("Config",),
    "errors": ("InputError",),
    "presets": ("preset",),
    "records": ("Node",),
    "tasks": ("TASKS", "Task"),
}


def __getattr__(name: str) -> object:
    """Public names are imported when they are first asked for: scripts check their flags before JAX is there."""
    wanted = "open_model" if name == "open" else name
    for home, names in _HOMES.items():
        if wanted in names and name in __all__:
            return getattr(importlib.import_module(f"{__name__}.{home}"), wanted)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
