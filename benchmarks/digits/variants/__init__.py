"""Which form of the method for which case, under momentum, Adam and small batches."""
