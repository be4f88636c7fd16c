"""Scripts: flags, wiring, printing. Each is run as `python -m launch.NAME`."""
