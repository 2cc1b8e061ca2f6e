"""Whether to use a regularizer at all, decided before training."""
