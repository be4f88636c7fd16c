"""What is known about a circuit beside its size: controls, baselines, curves, paths, traces."""
