"""Benchmarks of optax_dtnh: one question per script, see the docstring of each."""
