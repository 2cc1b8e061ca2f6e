"""How long a run trains, in steps, once its data are known."""

import math
from dataclasses import replace

from optax_dtnh.finetune.settings import EPOCHS, FEWEST, PUBLISHED, Settings


def resolved(settings: Settings, images: int) -> Settings:
    """Return the settings with the number of steps for this number of training images.

    The last epoch is rounded up to a whole step. Without a given length, it is that of `--help`.
    """
    if settings.steps is not None:
        return settings
    steps = math.ceil((settings.epochs or EPOCHS) * images / settings.batch_size)
    if settings.epochs is None:
        steps = min(max(steps, FEWEST), PUBLISHED)
    return replace(settings, steps=steps, epochs=None)


def described(settings: Settings, images: int) -> str:
    """Return the length in steps and epochs."""
    epochs = round(settings.steps * settings.batch_size / images, 1)
    return f"{settings.steps} steps of {settings.batch_size} images, {epochs:g} epochs"
