"""What programs cost: compiling ahead of time, reading HLO, roofline estimates, benchmarks."""
