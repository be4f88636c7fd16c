"""A circuit in the formats of other programs: tables, GraphML, attribution graphs, a picture. Reads records only."""

from sparse_gpt.exports.files import export_circuit

__all__ = ["export_circuit"]
