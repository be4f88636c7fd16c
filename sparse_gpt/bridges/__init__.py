"""Bridges: linear maps between a sparse model's residual stream and that of a trained dense one (paper, section on
bridges)."""
