"""Parts of `benchmarks.peers`: the same work in jax and in torch, each in a process of its own."""
