"""Parts of `benchmarks.accelerator`, which need jax, optax and flax alone."""
