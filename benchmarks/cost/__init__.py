"""Parts of `benchmarks.cost`: trees, forms of the update, bars, and what measures them."""
