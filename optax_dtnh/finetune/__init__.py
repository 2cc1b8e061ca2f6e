"""Parts of `optax_dtnh.finetune`, one concept each."""
