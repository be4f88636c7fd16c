"""Where tasks and models meet: samples of a task in a model's tokens, and how well a model does on every task."""
