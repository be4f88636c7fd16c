"""The report card of a circuit: one row per criticism, each with a threshold written down before its number."""
