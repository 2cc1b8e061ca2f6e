"""How images become the input of a network: what the checkpoint says, unless an option does.

The protocol is that of DELTA (Li et al., 2019), whatever a checkpoint says of its own: a test image
is resized whole, and a training image is resized to a larger square, which is cropped at random.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.finetune.errors import UsageError, usage_errors
from optax_dtnh.models._errors import CheckpointError
from optax_dtnh.models._facts import OUR_FIELDS, UNUSED, Fact, facts_beside

DEFAULT = "default"
RESIZE_OF_CROP = 256 / 224


class Preprocessing(NamedTuple):
    """How an image becomes the input of a network.

    Attributes:
      image_size: Height and width of the input.
      resize: Height and width of a training image before it is cropped.
      mean: Mean of each channel, which is subtracted from the rescaled values.
      std: Standard deviation of each channel, which the difference is divided by.
      interpolation: PIL's name for how images are resized: bilinear, bicubic, ...
      rescale: What the pixels from 0 to 255 are multiplied by before that.
    """

    image_size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    rescale: float = 1 / 255


def preprocessing_of(checkpoint: Path, **overrides: Any) -> Preprocessing:
    """Return the values of `preprocessing_facts`, which has the same arguments and errors."""
    facts = preprocessing_facts(checkpoint, **overrides)
    return Preprocessing(**{name: facts[name].value for name in Preprocessing._fields})


def preprocessing_facts(
    checkpoint: Path, *, usual: Mapping[str, Fact] | None = None, **overrides: Any
) -> dict[str, Fact]:
    """Return every field of `Preprocessing` with its origin, and the facts that are of no effect.

    Args:
      checkpoint: File of weights, or its folder; `facts_beside` lists what is read beside it.
      usual: Fields of this network, where no file and no option tells them.
      **overrides: Fields of `Preprocessing`, of the options of these names; None overrides nothing.
        `image_size` without `resize` changes both in proportion.

    Raises:
      UsageError: A file beside the checkpoint is malformed, or the fields do not fit together.
    """
    with usage_errors(CheckpointError):
        beside = facts_beside(checkpoint)
    found = {n: f for n, f in beside.items() if n in (*Preprocessing._fields, *UNUSED)}
    given = {n: _of_option(n, value) for n, value in overrides.items() if value is not None}
    if "image_size" in given:
        found.pop("resize", None)
    defaults = {n: Fact(v, DEFAULT) for n, v in Preprocessing()._asdict().items()}
    defaults |= {n: f for n, f in (usual or {}).items() if n in defaults}
    facts = defaults | found | given
    _check_size(facts["image_size"])
    if "resize" not in found | given:
        size = round(facts["image_size"].value * RESIZE_OF_CROP)
        facts["resize"] = Fact(size, "default: 8/7 of the image size")
    _check_resize(facts)
    _check_mean(facts)
    return facts


def described(facts: dict[str, Fact]) -> list[str]:
    """Return the lines that tell a user which facts a run uses, where from, and which it does not.

    Args:
      facts: As of `preprocessing_facts`.
    """
    size, resize = facts["image_size"], facts["resize"]
    lines = [
        f"images: {size.value} x {size.value} ({size.origin}), training crops out of "
        f"{resize.value} x {resize.value} ({resize.origin}), {_told(facts, 'interpolation')}",
        f"pixels: mean {_told(facts, 'mean')}, std {_told(facts, 'std')}"
        + (f", times {_told(facts, 'rescale')}" if facts["rescale"].origin != DEFAULT else ""),
    ]
    if usual := [name for name in Preprocessing._fields[:-1] if facts[name].origin == DEFAULT]:
        lines.append(f"no file beside the checkpoint tells {', '.join(usual)}: ImageNet's are used")
    unused = [f"{name} {_told(facts, name)}" for name in UNUSED if name in facts]
    return lines + ([f"not used: {', '.join(unused)}"] if unused else [])


def _told(facts: dict[str, Fact], name: str) -> str:
    value, origin = facts[name]
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    text = " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
    return f"{text} ({origin})"


def _of_option(name: str, value: Any) -> Fact:
    _, read = OUR_FIELDS[name]
    option = f"--{name.replace('_', '-')}"
    try:
        return Fact(read(list(value) if isinstance(value, tuple) else value), option)
    except ValueError as error:
        raise UsageError(f"`{option}` should be {error}, got {value}. Change it.") from error


def _check_size(size: Fact) -> None:
    if not isinstance(size.value, int):
        raise UsageError(
            f"`--image-size` should be given where images are not square, got {size.value[0]} x "
            f"{size.value[1]} in {size.origin}. Pass the side of a square."
        )


def _check_mean(facts: dict[str, Fact]) -> None:
    largest = 255 * facts["rescale"].value
    mean, origin = facts["mean"]
    if min(mean) < 0 or max(mean) > 1.001 * largest:  # 0.00392157 stands for 1 / 255
        raise UsageError(
            f"`--mean` should be between 0 and {largest:.4g}, the largest pixel times "
            f"{_told(facts, 'rescale')}, got {' '.join(f'{m:g}' for m in mean)} ({origin}). Pass "
            "the mean of such values."
        )


def _check_resize(facts: dict[str, Fact]) -> None:
    size, resize = facts["image_size"], facts["resize"]
    if resize.value < size.value:
        raise UsageError(
            f"`--resize` should be at least the image size, {size.value} ({size.origin}), got "
            f"{resize.value} ({resize.origin}). Pass a larger one, or another --image-size."
        )
