"""A circuit that runs on its own: built from a gated model, needing the model no more."""
