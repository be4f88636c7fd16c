"""What launch.reproduce runs: experiments, and the harness that checks their numbers."""
