"""Our models beside torch's: the same weights, both run, every output compared."""
