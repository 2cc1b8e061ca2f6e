"""Parts of `benchmarks.cost.accelerator`, which need jax, optax and flax alone."""
