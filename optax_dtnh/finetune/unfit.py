"""What data are refused for, before and after their images are read."""

from collections.abc import Iterable

import numpy as np

from optax_dtnh.finetune import class_names
from optax_dtnh.finetune.checking import Checked
from optax_dtnh.finetune.errors import UsageError, listed
from optax_dtnh.finetune.examples import Parts
from optax_dtnh.finetune.tfds import PREFIX


def refuse_parts(parts: Parts, data: str, train_per_class: int | None) -> None:
    """Refuse what can be refused before images are read."""
    if len(parts.classes) < 2:
        raise UsageError(
            f"`--data` should have at least 2 classes, got {len(parts.classes)} in "
            f"'{data}' ({listed(parts.classes) or 'none'}). "
            "Give the folder that holds the class folders, or choose other data."
        )
    if parts.test is None and train_per_class is None:
        raise UsageError(
            f"`--data` should have a split of its own where `--train-per-class` is not given, got "
            f"'{data}' without test images. Give `--train-per-class N`, or make folders "
            "`train` and `test`."
        )
    labels = getattr(parts.train, "labels", None)  # a folder has them without reading images
    if labels is not None:
        tested = {parts.classes[n] for n in set(getattr(parts.test, "labels", ()))}
        class_names.refuse_untrained(tested, {parts.classes[n] for n in set(labels)}, data)
        refuse_small_classes(labels, parts, train_per_class)


def refuse_small_classes(labels: Iterable[int], parts: Parts, train_per_class: int | None) -> None:
    """Refuse classes of which not enough can be trained and tested on."""
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


def refuse_empty(train: Checked, test: Checked, parts: Parts, data: str) -> None:
    """Refuse data of which too little can be read, or is left."""
    if not (train.labels and test.labels):
        raise UsageError(
            f"`--data` should have images to train on and to test on, got {len(train.labels)} and "
            f"{len(test.labels)} in '{data}' that can be read. Get the data again."
        )
    trained, tested = ({parts.classes[n] for n in x.labels.values()} for x in (train, test))
    class_names.refuse_untrained(tested, trained, data)


def broken(train: Checked, test: Checked) -> dict[str, str]:
    """Return why an image cannot be read, by name."""
    splits = (train, test)
    return {split.source.name(i): why for split in splits for i, why in split.broken.items()}


def refuse_broken(train: Checked, test: Checked, data: str, otherwise: str) -> None:
    """Refuse images that cannot be read; `otherwise` is what else the user can do."""
    found = broken(train, test)
    if not found:
        return
    name, reason = next(iter(found.items()))
    mend = "Prepare it again" if data.startswith(PREFIX) else "Mend or remove them"
    raise UsageError(
        f"`--data` should hold images that can be read, got {name!r} ({reason}), the first of "
        f"{broken_ones(len(found))} among {len(found) + len(train.labels) + len(test.labels)}. "
        f"{mend}{otherwise}."
    )


def broken_ones(count: int) -> str:
    """Return the number of broken images in words for a sentence."""
    return f"{count} broken {'one' if count == 1 else 'ones'}"
