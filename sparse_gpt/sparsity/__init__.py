"""Which weights and activations stay: top-k selection, and the projection of a parameter tree onto sparse ones."""
