"""Parts of `benchmarks.multi_process`, one concept each."""
