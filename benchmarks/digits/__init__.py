"""What the benchmarks share, one concept per module."""
