"""The error of a checkpoint that cannot be loaded, and of a path that cannot be written to."""


class CheckpointError(ValueError):
    """A checkpoint, or what a file beside it says, is refused; the message says why."""
