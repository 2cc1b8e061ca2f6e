"""What data are refused for, before and after their images are read."""

from collections.abc import Iterable

import numpy as np

from optax_dtnh.finetune import class_names
from optax_dtnh.finetune.checking import Checked
from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Parts, Request
from optax_dtnh.finetune.tfds import PREFIX


def refuse_parts(parts: Parts, request: Request) -> None:
    """Refuse what can be refused before images are read."""
    if len(parts.classes) < 2:
        raise UsageError(
            f"`--data` should have at least 2 classes, got {len(parts.classes)} in "
            f"'{request.data}' ({listed(parts.classes) or 'none'}). Give the folder that holds the "
            "class folders, or choose other data."
        )
    if parts.test is None and request.train_per_class is None:
        raise UsageError(
            "`--data` should have a split of its own where `--train-per-class` is not given, got "
            f"'{request.data}' without test images. Give `--train-per-class N`, or make folders "
            "`train` and `test`."
        )
    labels = getattr(parts.train, "labels", None)  # a folder has them without reading images
    if labels is not None:
        tested = getattr(parts.test, "labels", ())
        class_names.refuse_untrained(labels, tested, parts.classes, request.data)
        refuse_small_classes(labels, parts, request)


def refuse_small_classes(labels: Iterable[int], parts: Parts, request: Request) -> None:
    """Refuse classes of which not enough can be trained and tested on."""
    train_per_class = request.train_per_class
    if train_per_class is None:
        return
    needed, rest = train_per_class, ""
    if parts.test is None:
        needed, rest = train_per_class + 1, " and test on the rest"
    counts = np.bincount(list(labels), minlength=len(parts.classes))
    if counts.min() < needed:
        raise UsageError(
            f"`--data` should have {needed} or more readable images of every class, to train on "
            f"{train_per_class}{rest}, got {counts.min()} of {parts.classes[counts.argmin()]!r}. "
            "Lower `--train-per-class`, or leave the class out."
        )


def refuse_broken(checked: Checked, request: Request) -> None:
    """Refuse images that cannot be read, unless they are to be skipped."""
    broken = checked.broken
    if request.skip_broken or not broken:
        return
    name, reason = next(iter(broken.items()))
    mend = "Prepare it again" if request.data.startswith(PREFIX) else "Mend or remove them"
    skip = ", or leave them out with `--skip-broken`" if request.known is None else ""
    raise UsageError(
        f"`--data` should hold images that can be read, got {name!r} ({reason}), the first of "
        f"{broken_ones(len(broken))} among {len(broken) + len(checked.train) + len(checked.test)}. "
        f"{mend}{skip}."
    )


def broken_ones(count: int) -> str:
    """Return the number of broken images in words for a sentence."""
    return f"{count} broken {'one' if count == 1 else 'ones'}"
