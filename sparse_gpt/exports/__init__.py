"""A circuit in the formats of other programs: tables, GraphML, attribution graphs, a picture. Reads records only."""

from sparse_gpt.exports.files import export_circuit, require_new

__all__ = ["export_circuit", "require_new"]
