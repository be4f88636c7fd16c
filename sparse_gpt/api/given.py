"""Circuits as callers give them: what `find_circuit` returns stands for its circuit."""

from typing import TypeVar

from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.circuits.pipeline import FoundCircuit
from sparse_gpt.errors import InputError

T = TypeVar("T")
AnyCircuit = Circuit | FoundCircuit


def circuit_or(given: T | FoundCircuit) -> T | Circuit:
    """The circuit that was found, or what else was given."""
    return given.circuit if isinstance(given, FoundCircuit) else given


def require_circuit(given: AnyCircuit, what: str) -> Circuit:
    """InputError, beginning with `what`, for anything but a circuit."""
    circuit = circuit_or(given)
    if not isinstance(circuit, Circuit):
        raise InputError(f"{what} {circuit!r:.80}: give a circuit, such as model.circuit(TASK)")
    return circuit
