"""Parts of `benchmarks.finetune`, one concept each."""
