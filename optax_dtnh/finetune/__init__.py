"""The command `python -m optax_dtnh.finetune`, a module for each concept."""
