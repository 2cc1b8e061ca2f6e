"""The cost on a GPU or TPU. Needs jax, optax and NumPy alone, and the checkout, not installed."""
