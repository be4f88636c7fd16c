"""The model seen through gates: losses of candidate circuits, ablation values, circuits that stand alone."""
