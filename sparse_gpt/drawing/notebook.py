"""A circuit as a notebook shows it."""

from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.drawing.text import escape, number
from sparse_gpt.records import Circuit, Traces

SHOWN = {
    "nodes": "nodes",
    "edges": "edges",
    "task_loss": "held-out task loss",
    "full_model_task_loss": "full model",
    "ablated_task_loss": "circuit ablated",
}


def circuit_html(circuit: Circuit, traces: Traces | None = None) -> str:
    """The main numbers of a circuit, and its drawing; with traces also tokens and what nodes respond to."""
    found = {name: getattr(circuit.metrics, key) for key, name in SHOWN.items()}
    numbers = [f"{name} {number(value)}" for name, value in found.items() if value is not None]
    return f"<p><b>{escape(circuit.task)}</b>: {escape(' · '.join(numbers))}</p>{draw_circuit(circuit, traces)}"
