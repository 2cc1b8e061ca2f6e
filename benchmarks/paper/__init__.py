"""Parts of `benchmarks.paper`, one concept each."""
