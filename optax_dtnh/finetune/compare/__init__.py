"""The command `compare`: candidates on folds of the training images, or finished runs."""
