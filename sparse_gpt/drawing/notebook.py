"""A circuit as a notebook shows it."""

from typing import Any

from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.drawing.text import escape, number

SHOWN = {
    "nodes": "nodes",
    "edges": "edges",
    "task_loss": "held-out task loss",
    "full_model_task_loss": "full model",
    "ablated_task_loss": "circuit ablated",
}


def circuit_html(circuit: dict[str, Any], traces: dict[str, Any] | None = None) -> str:
    """The main numbers of a circuit.json, and its drawing; with traces.json also tokens and what nodes respond to."""
    metrics = circuit["metrics"]
    numbers = [f"{name} {number(metrics[key])}" for key, name in SHOWN.items() if metrics.get(key) is not None]
    return f"<p><b>{escape(circuit['task'])}</b>: {escape(' · '.join(numbers))}</p>{draw_circuit(circuit, traces)}"
