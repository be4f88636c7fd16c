"""The report card of a circuit: one row per criticism, each with a threshold that was written down before its number."""
