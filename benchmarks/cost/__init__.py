"""Parts of `benchmarks.step_cost`: trees, forms of the update, bars, and what measures them."""
