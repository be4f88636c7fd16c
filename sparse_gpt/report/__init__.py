"""Figures and the HTML report of a workdir. Reads JSON files only; knows nothing of training or models."""

from sparse_gpt.drawing.svg import CircuitDrawing, draw_circuit
from sparse_gpt.report.overview import build_overview
from sparse_gpt.report.page import build_report

__all__ = ["CircuitDrawing", "build_overview", "build_report", "draw_circuit"]
