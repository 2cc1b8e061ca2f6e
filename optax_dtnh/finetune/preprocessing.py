"""How images become the input of a network: what the checkpoint says, unless an option does.

The protocol is that of DELTA (Li et al., 2019), whatever a checkpoint says of its own: a test image
is resized whole, and a training image is resized to a larger square, which is cropped at random.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.finetune.errors import UsageError, flag, usage_errors
from optax_dtnh.models._checkpoint import CheckpointError
from optax_dtnh.models._facts import OUR_FIELDS, facts_beside
from optax_dtnh.models._fields import Fact

DEFAULT = "default for ImageNet"
# What a run tells of its checkpoint, a line each.
TOLD = {
    "network": ("network", "heads", "activation", "epsilon", "positions"),
    "images": ("image_size", "resize", "mean", "std", "interpolation", "rescale"),
    "not used": ("model_type",),
}
RESIZE_OF_CROP = 256 / 224


class Preprocessing(NamedTuple):
    """How an image becomes the input of a network: `(pixels * rescale - mean) / std`.

    Test images are resized to `image_size` squared; training images are resized to `resize` squared
    and cropped to that size. `interpolation` is PIL's name for how: bilinear, bicubic, ...
    """

    image_size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    rescale: float = 1 / 255


def preprocessing_from(facts: Mapping[str, Fact]) -> Preprocessing:
    """Return the values of the facts."""
    return Preprocessing(**{name: facts[name].value for name in Preprocessing._fields})


def preprocessing_facts(
    checkpoint: Path, *, usual: Mapping[str, Fact] | None = None, **overrides: Any
) -> dict[str, Fact]:
    """Return every field of `Preprocessing` with its origin, and a `model_type` that is not used.

    The files beside the checkpoint, which `facts_beside` lists, count more than the `usual` fields
    of a network, and overrides, which are the options of these names, count most. One that is None
    overrides nothing; `image_size` without `resize` changes both in proportion.
    """
    with usage_errors(CheckpointError):
        beside = facts_beside(checkpoint)
    given = {n: _of_option(n, value) for n, value in overrides.items() if value is not None}
    if "image_size" in given:
        beside.pop("resize", None)
    facts = {n: Fact(v, DEFAULT) for n, v in Preprocessing()._asdict().items()}
    told = {**(usual or {}), **beside, **given}
    facts |= {n: told[n] for n in (*Preprocessing._fields, "model_type") if n in told}
    size = facts["image_size"]
    if not isinstance(size.value, int):
        height, width = size.value
        raise UsageError(
            f"`--image-size` should be given where images are not square, got {height} x {width} "
            f"in {size.origin}. Pass the side of a square."
        )
    if "resize" not in beside | given:
        derived = round(size.value * RESIZE_OF_CROP)
        facts["resize"] = Fact(derived, "default: 8/7 of the image size")
    if (resize := facts["resize"]).value < size.value:
        raise UsageError(
            f"`--resize` should be at least the image size, {size.value} ({size.origin}), got "
            f"{resize.value} ({resize.origin}). Pass a larger one, or another --image-size."
        )
    _check_mean(facts)
    return facts


def described(facts: Mapping[str, Fact], *, crops: bool = True) -> list[str]:
    """Return the lines that tell which facts a run uses, where from, and which it does not."""
    used = {n: f"{n} {_told(x)}" for n, x in facts.items() if crops or n != "resize"}
    if "network" in used:  # which the title of its line names
        used["network"] = _told(facts["network"])
    return [
        f"{title}: {', '.join(used[name] for name in names if name in used)}"
        for title, names in TOLD.items()
        if used.keys() & names
    ]


def _told(fact: Fact) -> str:
    value, origin = fact
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    text = " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
    return f"{text} ({origin})"


def _of_option(name: str, value: Any) -> Fact:
    read = OUR_FIELDS[name]
    try:
        return Fact(read(list(value) if isinstance(value, tuple) else value), flag(name))
    except ValueError as error:
        raise UsageError(f"`{flag(name)}` should be {error}, got {value}. Change it.") from error


def _check_mean(facts: dict[str, Fact]) -> None:
    largest = 255 * facts["rescale"].value
    mean, origin = facts["mean"]
    if min(mean) < 0 or max(mean) > 1.001 * largest:  # 0.00392157 stands for 1 / 255
        raise UsageError(
            f"`--mean` should be between 0 and {largest:.4g}, the largest pixel times "
            f"{_told(facts['rescale'])}, got {' '.join(f'{m:g}' for m in mean)} ({origin}). Pass "
            "the mean of such values."
        )
