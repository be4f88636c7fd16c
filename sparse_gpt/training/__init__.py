"""Training: projection, schedules, optimizer recipes, the step, checkpoints and the loop."""
